"""The clocks of master and workers inside Locust: who asks, who answers, and what is written down.

A worker asks from its first moment on, so that it knows its offset when a run begins. Asking uses the monotonic clocks
of both, which nobody sets; `rl_hooks.clock` makes offsets of recorded times of it.
"""

import itertools
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any

import gevent
from locust.exception import RPCError

from rl_hooks.clock import STEP_NS, Offset, OffsetEstimate, SteadyClock
from rl_hooks.run_clocks import READING, STEP
from rl_hooks.run_folder import EventWriter

ASK_MESSAGE, ANSWER_MESSAGE = "rl_clock_ask", "rl_clock_answer"
FIRST_ASKS, FIRST_ASKS_EVERY_S, ASK_EVERY_S = 20, 0.1, 2.0  # real seconds
LOOK_EVERY_S, NOTE_EVERY_S = 1.0, 10.0

logger = logging.getLogger(__name__)


def answer_clocks(runner: Any) -> None:
    """Let a master answer its workers, once per process."""
    me = secrets.token_hex(4)  # a master that comes after this one has another monotonic clock

    def on_ask(msg: Any, **_: Any) -> None:
        answer = {"of": me, "asked_ns": msg.data["asked_ns"], "stated_ns": time.monotonic_ns()}
        runner.send_message(ANSWER_MESSAGE, answer, msg.node_id)

    runner.register_message(ASK_MESSAGE, on_ask)


class MasterClock:
    """The offset of this worker's monotonic clock to the master's, kept up to date from construction on."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._estimate = OffsetEstimate()
        runner.register_message(ANSWER_MESSAGE, self._on_answer)
        gevent.spawn(self._keep_asking)

    def offset(self) -> Offset | None:
        """None before the first answer."""
        return self._estimate.at(time.monotonic_ns())

    def _keep_asking(self) -> None:
        for number in itertools.count():
            try:
                self._runner.send_message(ASK_MESSAGE, {"asked_ns": time.monotonic_ns()})
            except RPCError:  # the master is away, which the heartbeats tell; the next question finds it again
                logger.debug("The master could not be asked for its clock")
            gevent.sleep(FIRST_ASKS_EVERY_S if number < FIRST_ASKS else ASK_EVERY_S)

    def _on_answer(self, msg: Any, **_: Any) -> None:
        heard_ns, said = time.monotonic_ns(), msg.data
        self._estimate.add(said["of"], said["asked_ns"], said["stated_ns"], heard_ns)


class ClockNotes:
    """Writes the offset of a recording process, and that its wall clock was set; see `rl_hooks.run_clocks`."""

    def __init__(self, writer: EventWriter, clock: SteadyClock, offset: Callable[[], Offset | None]) -> None:
        self._writer = writer
        self._clock = clock
        self._offset = offset
        self._step_ns = 0
        self._noted_s: float | None = None

    def keep(self, on_fault: Callable[[str], None]) -> None:
        """Run until killed; ends with `on_fault(message)` when an event cannot be written."""
        while True:
            try:
                self.look()
            except OSError as error:
                on_fault(f"{self._writer.path}: an event could not be written ({error.strerror})")
                return
            gevent.sleep(LOOK_EVERY_S)

    def look(self, last: bool = False) -> None:
        """Note what is due; the `last` time also what is not. Raises OSError when there is no room."""
        step_ns = self._clock.step_ns()
        if abs(step_ns - self._step_ns) > STEP_NS:
            stepped_s = (step_ns - self._step_ns) / 1e9
            logger.warning(
                "The wall clock of this machine was set by %+.3f s; what is recorded keeps its time", stepped_s
            )
            self._writer.event(STEP, process=self._writer.incarnation, step_s=stepped_s)
            self._step_ns = step_ns
        is_due = last or self._noted_s is None or time.monotonic() - self._noted_s >= NOTE_EVERY_S
        offset = self._offset() if is_due else None
        if offset is not None:
            facts = {"offset_s": offset.offset_ns / 1e9, "uncertainty_s": offset.uncertainty_ns / 1e9}
            self._writer.event(READING, process=self._writer.incarnation, **facts)
            self._noted_s = time.monotonic()
