"""What answers say beside what was asked: a balancer that decides by itself states its decision, instances their load.

A recorder of its own, so that the one of the ordinary runs, which is called for every request, knows nothing of it.
Everything here comes from the network: names and texts have a longest length and a largest number.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rl_hooks.decision import (
    NO_INSTANCE,
    RESPONSE_DECISION_ID,
    RESPONSE_INSTANCE,
    RESPONSE_LOAD,
    RESPONSE_POLICY,
    RESPONSE_PROPENSITY,
    SERVICE_INDEX,
    one_value,
    read_policy,
    read_propensity,
)
from rl_hooks.record.recorder import MAX_NAME, InForce, Recorder
from rl_hooks.row import MISSING_U32, PROPENSITY, PROPENSITY_OFFSET, STATED, STATED_OFFSET
from rl_hooks.run_folder import RunWriter

MOST_POLICIES = 64
"""Names of policies in one process. A balancer has a handful; more are somebody's mistake, and count as not stated."""
MOST_INSTANCES, LONGEST_LOAD, LONGEST_ID = 4096, 4096, 256

Load = tuple[int, str, str, int]
"""An instance's report of its load: service index, instance, the header as it came, when it came (ns)."""


@dataclass(frozen=True)
class Reading:
    """What is read of answers beside the usual."""

    statements: bool = False  # who decided, with which probability
    loads: bool = False  # reports of the instances

    @staticmethod
    def of(source: Any, actuator: Any) -> "Reading":
        """What a source and an actuator ask for by their attributes `reads_responses` and `observes`."""
        return Reading(bool(getattr(actuator, "observes", False)), bool(getattr(source, "reads_responses", False)))


ORDINARY = Reading()


def make_recorder(
    reading: Reading, writer: RunWriter, in_force: InForce, on_fault: Callable[[str], None], now_ns: Callable[[], int]
) -> Recorder:
    """The recorder that reads so much and no more."""
    if reading == ORDINARY:
        return Recorder(writer, in_force, on_fault, now_ns)
    return ReadingRecorder(reading, writer, in_force, on_fault, now_ns)


class ReadingRecorder(Recorder):
    """Also writes what the balancer states into the rows, and keeps the newest load report of each instance."""

    def __init__(self, reading: Reading, writer: RunWriter, *others: Any) -> None:
        super().__init__(writer, *others)
        self._reading = reading
        self._policies: dict[str, int] = {}
        self._loads: dict[tuple[int, str], tuple[str, int]] = {}

    def on_request(self, *arguments: Any, **about: Any) -> None:
        """Locust's request event, see `Recorder`; Locust names all that it passes."""
        call = about["context"].get("call")
        headers = getattr(about["response"], "headers", None)
        if call is not None and headers is not None:
            try:
                if self._reading.statements:
                    self._note_statement(call.place, headers)
                if self._reading.loads:
                    self._note_load(call.service, headers)
            except Exception as error:  # noqa: BLE001  (as in Recorder.on_request)
                self._report(f"an answer could not be read: {type(error).__name__}: {error}")
        super().on_request(*arguments, **about)

    def take_loads(self) -> list[Load]:
        """The newest report of each instance that reported since the last call."""
        loads, self._loads = self._loads, {}
        return [(service, instance, text, at_ns) for (service, instance), (text, at_ns) in loads.items()]

    def _note_statement(self, place: int, headers: Mapping[str, Any]) -> None:
        """Into the request's place on the board, from where the row is made."""
        propensity = read_propensity(one_value(headers.get(RESPONSE_PROPENSITY)))
        policy = read_policy(one_value(headers.get(RESPONSE_POLICY)))
        if propensity is not None:
            PROPENSITY.pack_into(self._board_map, place + PROPENSITY_OFFSET, propensity)
        decision = checksum(one_value(headers.get(RESPONSE_DECISION_ID)))
        STATED.pack_into(self._board_map, place + STATED_OFFSET, self._policy_ref(policy), decision)

    def _policy_ref(self, policy: str | None) -> int:
        if policy is None:
            return 0
        known = self._policies.get(policy)
        if known is not None:
            return known
        if len(self._policies) == MOST_POLICIES:
            return 0
        ref = self._policies[policy] = self.writer.ref("policy", policy)
        if len(self._policies) == MOST_POLICIES:
            self.writer.event("policy_names", text=f"the balancer named {MOST_POLICIES} policies; more count as none")
        return ref

    def _note_load(self, service: str, headers: Mapping[str, Any]) -> None:
        text, instance = one_value(headers.get(RESPONSE_LOAD)), one_value(headers.get(RESPONSE_INSTANCE))
        if text is None or instance is None:
            return
        if len(text) > LONGEST_LOAD or not 0 < len(instance) <= MAX_NAME or instance == NO_INSTANCE:
            return
        key = SERVICE_INDEX[service], instance
        if key in self._loads or len(self._loads) < MOST_INSTANCES:
            self._loads[key] = text, self._now_ns()


def checksum(decision_id: Any) -> int:
    """What is kept of a decision's id: enough to tell the requests of one decision from those of another."""
    if not isinstance(decision_id, str) or not 0 < len(decision_id) <= LONGEST_ID:
        return MISSING_U32
    return zlib.crc32(decision_id.encode()) % MISSING_U32


class FedSource:
    """A metrics source that lives on what answers carry: given the newest reports right before it is asked."""

    def __init__(self, source: Any, take: Callable[[], Iterable[Load]]) -> None:
        self._source = source
        self._take = take

    def describe(self) -> str:
        text: str = self._source.describe()
        return text

    def sample(self) -> Any:
        self._source.push_reports(list(self._take()))
        return self._source.sample()
