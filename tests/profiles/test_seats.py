from random import Random

import pytest

from profiles.seats import LOST_SESSIONS, Accounts, NoAccountFreeError, Seats


def test_the_lowest_free_slot_is_taken_first_and_goes_on_with_its_sessions() -> None:
    seats = Seats()
    taken = [seats.take("a") for _ in range(3)]
    assert [seat.slot for seat in taken] == [0, 1, 2]
    assert seats.take("b").slot == 0
    taken[1].session = 7
    seats.give_back(taken[2])
    seats.give_back(taken[1])
    again = seats.take("a")
    assert (again.slot, again.session) == (1, 7)
    assert [seats.take("a").slot for _ in range(2)] == [2, 3]


def test_no_two_hold_one_seat_and_no_session_happens_twice() -> None:
    """Whoever comes and goes, and whichever worker is lost."""
    draws, seats, held, happened = Random(1), Seats(), [], set()
    for _ in range(4000):
        if draws.random() < 0.5 or not held:
            holder = draws.choice(("w1", "w2", "w3"))
            seat = seats.take(draws.choice("ab"), holder)
            assert (seat.profile, seat.slot) not in {(other.profile, other.slot) for other, _ in held}
            held.append((seat, holder))
        elif draws.random() < 0.9:
            seats.give_back(*held.pop(draws.randrange(len(held))))
        else:
            lost = draws.choice(("w1", "w2", "w3"))
            taken_back = seats.take_back({"w1", "w2", "w3"} - {lost})
            assert set(taken_back) == {(seat.profile, seat.slot) for seat, holder in held if holder == lost}
            held = [(seat, holder) for seat, holder in held if holder != lost]
        for seat, _ in held:
            assert (seat.profile, seat.slot, seat.session) not in happened
            happened.add((seat.profile, seat.slot, seat.session))
            seat.session += 1


def test_a_seat_that_was_taken_back_is_not_given_back_later() -> None:
    seats = Seats()
    seat = seats.take("a", "lost")
    assert seats.take_back({"other"}) == [("a", 0)]
    now = seats.take("a", "other")
    assert (now.slot, now.session) == (0, LOST_SESSIONS)
    seats.give_back(seat, "lost")
    assert seats.take("a", "other").slot == 1


def test_accounts_are_leased_in_turn() -> None:
    accounts = Accounts(range(3))
    assert [accounts.lease() for _ in range(2)] == [0, 1]
    accounts.give_back(0)
    assert [accounts.lease() for _ in range(2)] == [2, 0]
    with pytest.raises(NoAccountFreeError, match="all 3 accounts are in use; raise total_users in the scenario"):
        accounts.lease()


def test_blocks_shrink_as_accounts_run_out_so_that_everyone_gets_some() -> None:
    accounts = Accounts(range(100))
    sizes = []
    while block := accounts.lease_block(20, "w"):
        sizes.append(len(block))
    assert sizes[:3] == [20, 20, 15] and sizes[-4:] == [1, 1, 1, 1]
    assert sum(sizes) == 100


def test_only_the_holder_gives_accounts_back() -> None:
    accounts = Accounts(range(2))
    block = accounts.lease_block(1, "w1") + accounts.lease_block(1, "w1")
    accounts.give_back_block(block, "w2")
    assert accounts.lease_block(1) == []
    assert accounts.take_back({"w2"}) == [0, 1]
    accounts.give_back_block(block, "w1")
    assert [accounts.lease(), accounts.lease()] == [0, 1]
    with pytest.raises(NoAccountFreeError):
        accounts.lease()
