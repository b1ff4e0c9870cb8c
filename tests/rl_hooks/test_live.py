"""The live window: what a deciding process knows, from the reports of those that send. Laws over drawn traffic."""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from rl_hooks.action_space import instance_labels
from rl_hooks.control import Decision
from rl_hooks.decision import MOST_ACTIONS, SERVICES
from rl_hooks.export.align import spans_of
from rl_hooks.export.replay import replay
from rl_hooks.live import LiveWindow, LocalWindow, decision_rows, give_up_ns
from rl_hooks.observation import FEATURE_INDEX, FEATURES, ObservationWindow, Spans, features_of
from rl_hooks.report_rows import Report, Reporter
from rl_hooks.row import ENDED, ENDPOINT, MISSING_U32, OBSERVATION_VALUES, SENT, SENT_BYTES, VISIT, Method
from rl_hooks.run_folder import RunWriter, create_run_folder
from rl_hooks.run_reader import read_run
from tests import builders

SPANS = Spans(window_ns=10_000_000_000, interval_ns=1_000_000_000)
GIVE_UP_NS = 5_000_000_000
SECOND = 1_000_000_000


class Sender:
    """A process that sends requests and records them, with a clock of the test's own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.writer = RunWriter(folder, name, board_places=64)
        self.reporter = Reporter(self.writer)
        self._visit = VISIT.pack(0, 0, 0, 1, 0, 0, 0)
        self._free: list[int] = []
        self._trace = 0

    def send(self, service: int, t_ns: int) -> tuple[int, int, int]:
        place = self._free.pop() if self._free else self.writer.board.take()
        self._trace += 1
        endpoint = ENDPOINT.pack(0, service, Method.GET, 0, MISSING_U32)
        SENT.pack_into(self.writer.board.map, place, t_ns, 0, 0.5, 7, self._trace, 0, 1, endpoint, self._visit, 1)
        return place, service, t_ns

    def end(self, request: tuple[int, int, int], t_ns: int, ok: bool = True) -> tuple[int, int, int, bool]:
        """The request's (service, start_ns, duration_us, ok), as it is recorded."""
        place, service, start_ns = request
        rows = self.writer.tables["requests"]
        offset = rows.place()
        rows.map[offset : offset + SENT_BYTES] = self.writer.board.map[place : place + SENT_BYTES]
        duration_us = (t_ns - start_ns) // 1000
        ENDED.pack_into(
            rows.map, offset + SENT_BYTES, duration_us, 0, 0, 0, 0, 200, 0, 0, ok, 0 if ok else 3, rows.next_seq
        )
        rows.commit()
        self.writer.board.end(place)
        self._free.append(place)
        return service, start_ns, duration_us, ok


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_run_folder(tmp_path / "run", {})
    return tmp_path / "run"


def drawn_traffic(sender: Sender, random: Random, seconds: int) -> Any:
    """Yields (t_ns, sent, ended) every tenth of a second: all requests sent so far, and the facts of those ended."""
    sent: list[tuple[int, int, int]] = []
    open_: list[tuple[int, int, int]] = []
    ended: list[tuple[int, int, int, bool]] = []
    for tick in range(10 * seconds):
        t_ns = tick * SECOND // 10
        for request in list(open_):
            if random.random() < 0.3:
                open_.remove(request)
                at_ns = random.randrange(max(request[2] + 1000, t_ns - SECOND // 10), t_ns + 2000)
                ended.append(sender.end(request, at_ns, random.random() < 0.9))
        for _ in range(random.randrange(4)):
            request = sender.send(random.randrange(len(SERVICES)), t_ns - random.randrange(SECOND // 20))
            open_.append(request)
            sent.append(request)
        yield t_ns + SECOND // 100, sent, ended


def told_at_once(sent: list[Any], ended: list[Any]) -> ObservationWindow:
    """A window that knows everything of these facts."""
    window = ObservationWindow(SPANS)
    window.push_starts(np.array([one[1] for one in sent], np.int64), np.array([one[2] for one in sent], np.int64))
    service, start_ns, duration_us, ok = (np.array(column) for column in zip(*ended, strict=True))
    window.push_completions(service, start_ns + duration_us * 1000, duration_us, ok)
    return window


@pytest.mark.parametrize("seed", range(5))
def test_a_process_that_reads_its_own_rows_knows_everything_at_every_moment(folder: Path, seed: int) -> None:
    sender, random = Sender(folder, "local"), Random(seed)
    window = LocalWindow(SPANS, GIVE_UP_NS, sender.reporter)
    looked = 0
    for t_ns, sent, ended in drawn_traffic(sender, random, 25):
        if random.random() < 0.05:
            sender.writer.rotate()  # rows of a segment that is full are not forgotten
        if ended and random.random() < 0.2:
            expected = told_at_once(sent, ended).observe(t_ns).values
            np.testing.assert_array_equal(window.observe(t_ns, None), expected)
            assert window.seen[sender.writer.incarnation].seq == len(ended)
            looked += 1
    assert looked > 20


@pytest.mark.parametrize("seed", range(5))
def test_workers_that_report_in_between_are_known_as_of_their_report(folder: Path, seed: int) -> None:
    """Two workers report at moments of their own; the window has to know each as of then, and everything at the end."""
    random = Random(seed)
    senders = [Sender(folder, f"worker{number}") for number in (1, 2)]
    traffic = [drawn_traffic(sender, Random(f"{seed} {number}"), 25) for number, sender in enumerate(senders)]
    window = LiveWindow(SPANS, GIVE_UP_NS)
    for one, other in zip(*traffic, strict=True):
        for sender in senders:
            if random.random() < 0.3:
                message = sender.reporter.report(one[0]).to_message()
                window.fold(Report(**message))
        last_ns, facts = one[0], (one, other)
    for sender in senders:
        window.fold(sender.reporter.report(last_ns))
    sent, ended = ([fact for part in facts for fact in part[index]] for index in (1, 2))
    np.testing.assert_array_equal(window.observe(last_ns, None), told_at_once(sent, ended).observe(last_ns).values)


@pytest.mark.parametrize("seed", range(5))
def test_a_worker_of_another_clock_is_known_by_ours_and_can_be_looked_at_again(folder: Path, seed: int) -> None:
    """Its offset is known better and better; what each decision had seen stays what it was."""
    random, plan = Random(seed), builders.plan()
    spans = spans_of(plan)
    master, sender = RunWriter(folder, "master", 1), Sender(folder, "worker")
    window, seen = LiveWindow(spans, give_up_ns(plan.request_timeout_s)), {}
    ahead_ns = 90 * SECOND  # our clock shows so much more than the worker's
    for tick, (t_ns, _, _) in enumerate(drawn_traffic(sender, random, 25)):
        if random.random() < 0.4:
            offset_ns = ahead_ns + random.randrange(-SECOND // 50, SECOND // 50)
            window.fold(sender.reporter.report(t_ns, offset_ns))
        if tick % 10 == 9:
            observed_ns = t_ns + ahead_ns
            seen[tick] = window.observe(observed_ns, None)
            rows = {name: [one.seq, one.at_ns, one.offset_ns] for name, one in window.seen.items()}
            master.event("seen", tick=tick, observed_ns=observed_ns, rows=rows)
    assert max(values[:, FEATURE_INDEX["request_rate_rps"]].max() for values in seen.values()) > 0
    again = {one.tick: one.values for one in replay(read_run(folder, correct_clocks=False), plan)}
    assert again.keys() == seen.keys()
    for tick, values in seen.items():
        np.testing.assert_array_equal(again[tick], values)


def test_a_report_that_got_lost_is_noticed(folder: Path) -> None:
    sender = Sender(folder, "worker")
    window = LiveWindow(SPANS, GIVE_UP_NS)
    for second in (1, 2):
        sender.end(sender.send(0, second * SECOND), second * SECOND + 1_000_000)
    window.fold(sender.reporter.report(2 * SECOND))
    sender.end(sender.send(0, 3 * SECOND), 3 * SECOND + 1_000_000)
    sender.reporter.report(3 * SECOND)
    sender.end(sender.send(0, 4 * SECOND), 4 * SECOND + 1_000_000)
    with pytest.raises(ValueError, match=r"worker\..*: rows 3 to 3 were not reported"):
        window.fold(sender.reporter.report(4 * SECOND))


def test_what_a_process_had_in_flight_is_given_up_when_it_falls_silent(folder: Path) -> None:
    sender = Sender(folder, "worker")
    window = LiveWindow(SPANS, GIVE_UP_NS)
    sender.send(2, SECOND)
    window.fold(sender.reporter.report(2 * SECOND))
    in_flight = FEATURE_INDEX["in_flight"]
    assert window.observe(2 * SECOND + GIVE_UP_NS, None)[2, in_flight] == 1
    assert window.observe(2 * SECOND + GIVE_UP_NS + 1, None)[2, in_flight] == 0
    assert window.observe(30 * SECOND, None)[2, in_flight] == 0  # and only once


def test_what_was_reported_while_a_decision_was_on_its_way_is_not_seen_by_it(folder: Path) -> None:
    sender = Sender(folder, "worker")
    window = LiveWindow(SPANS, GIVE_UP_NS)
    window.fold(sender.reporter.report(SECOND))
    window.observe(SECOND, None)
    sender.end(sender.send(0, SECOND), SECOND + 1_000_000)
    window.fold(sender.reporter.report(2 * SECOND))
    assert window.seen[sender.writer.incarnation].seq == 0
    window.observe(2 * SECOND, None)
    assert window.seen[sender.writer.incarnation].seq == 1


def test_a_row_of_the_observations_table_has_room_for_every_feature() -> None:
    assert len(FEATURES) < len(features_of(instance_labels(MOST_ACTIONS))) == OBSERVATION_VALUES


def test_decisions_come_to_the_window_as_they_were_made() -> None:
    sixth = (1 / 6,) * 6
    made = [Decision(7, 0, 5, sixth, "mixed", True), Decision(7, 3, 2, sixth, "mixed", False)]
    service, t_ns, action, actuated = decision_rows(1_000, made)
    assert service.tolist() == [0, 3]
    assert t_ns.tolist() == [1_000, 1_000]
    assert action.tolist() == [5, 2]
    assert actuated.tolist() == [True, False]
