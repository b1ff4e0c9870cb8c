"""Who sits where: user slots of the profiles and the scenario's accounts, handed out one by one.

Pure bookkeeping for one run. A seat names a user slot; with the seed it fixes the sessions of whoever sits there, so no
two users may sit on one. `profiles.seating` shares both among the workers of a distributed run.
"""

import heapq
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

LOST_SESSIONS = 1000
"""A seat whose worker was lost goes on at the next multiple of this: how far the worker had come is not known, and no
session may happen twice."""


@dataclass(slots=True)
class Seat:
    """A user slot of a profile while a user sits on it."""

    profile: str
    slot: int  # from 0 on
    session: int  # number of the slot's next session


class Seats:
    """The slots of every profile; the lowest free one is taken first."""

    def __init__(self) -> None:
        self._free: dict[str, list[int]] = {}  # a heap per profile
        self._made: dict[str, int] = {}
        self._next_session: dict[tuple[str, int], int] = {}
        self._holders: dict[tuple[str, int], str] = {}

    def take(self, profile: str, holder: str = "") -> Seat:
        """The lowest free slot of `profile`. `holder` is who may give it back."""
        free = self._free.setdefault(profile, [])
        if free:
            slot = heapq.heappop(free)
        else:
            slot = self._made.get(profile, 0)
            self._made[profile] = slot + 1
        self._holders[profile, slot] = holder
        return Seat(profile, slot, self._next_session.get((profile, slot), 0))

    def give_back(self, seat: Seat, holder: str = "") -> None:
        """Frees the seat. Nothing happens when it was taken back from `holder` in the meantime."""
        if self._holders.get((seat.profile, seat.slot)) == holder:
            self._release(seat.profile, seat.slot, seat.session)

    def take_back(self, present: Collection[str]) -> list[tuple[str, int]]:
        """Frees the seats of all holders that are not `present`, and returns them as (profile, slot)."""
        lost = [place for place, holder in self._holders.items() if holder not in present]
        for profile, slot in lost:
            known = self._next_session.get((profile, slot), 0)
            self._release(profile, slot, (known // LOST_SESSIONS + 1) * LOST_SESSIONS)
        return lost

    def _release(self, profile: str, slot: int, next_session: int) -> None:
        del self._holders[profile, slot]
        self._next_session[profile, slot] = next_session
        heapq.heappush(self._free[profile], slot)


class NoAccountFreeError(Exception):
    """More sessions than accounts."""


class Accounts:
    """Accounts by number, leased in turn; at most one holder each."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._free = deque(numbers)
        self._holders: dict[int, str] = {}
        self._total = len(self._free)

    def lease(self) -> int:
        """The account that was free the longest. Raises NoAccountFreeError when all are leased."""
        block = self.lease_block(1)
        if not block:
            raise NoAccountFreeError(f"all {self._total} accounts are in use; raise total_users in the scenario")
        return block[0]

    def give_back(self, account: int) -> None:
        self.give_back_block([account])

    def lease_block(self, most: int, holder: str = "") -> list[int]:
        """Up to `most` accounts for one holder, fewer when few are left: at most a quarter of those, at least one."""
        count = min(most, max(1, len(self._free) // 4), len(self._free))
        block = [self._free.popleft() for _ in range(count)]
        self._holders.update(dict.fromkeys(block, holder))
        return block

    def give_back_block(self, accounts: Iterable[int], holder: str = "") -> None:
        """Frees accounts. Those that `holder` does not hold (any more) are left alone."""
        for account in accounts:
            if self._holders.get(account) == holder:
                del self._holders[account]
                self._free.append(account)

    def take_back(self, present: Collection[str]) -> list[int]:
        """Frees the accounts of all holders that are not `present`, and returns them."""
        lost = [account for account, holder in self._holders.items() if holder not in present]
        for account in lost:
            del self._holders[account]
            self._free.append(account)
        return lost
