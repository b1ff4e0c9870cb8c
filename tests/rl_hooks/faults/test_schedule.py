"""When faults begin and end, and which were left in force: laws over drawn timelines."""

from random import Random

import pytest

from rl_hooks.faults.schedule import changes, in_force
from scenario.faults import PlanFault
from tests.rl_hooks.faults.made import fault


def test_the_drawing_of_the_docstring() -> None:
    made = [fault(0, start_s=60, end_s=120), fault(1, start_s=84, end_s=140)]
    assert [("+" if one.begins else "-", one.fault.index) for one in changes(made)] == [
        ("+", 0),
        ("+", 1),
        ("-", 0),
        ("-", 1),
    ]


def test_what_ends_comes_before_what_begins_at_the_same_moment() -> None:
    made = [fault(0, start_s=10, end_s=20), fault(1, start_s=20, end_s=30)]
    assert [(one.at_s, one.begins) for one in changes(made)] == [(10, True), (20, False), (20, True), (30, False)]


@pytest.mark.parametrize("seed", range(30))
def test_at_every_moment_what_acts_is_what_is_planned(seed: int) -> None:
    random = Random(seed)
    spans = [sorted(random.sample(range(100), 2)) for _ in range(8)]
    made = [fault(index, start_s=start, end_s=end) for index, (start, end) in enumerate(spans)]
    acting: set[int] = set()
    planned = changes(made)
    for now, following in zip(planned, [*planned[1:], None], strict=True):
        (acting.add if now.begins else acting.remove)(now.fault.index)
        if following is None or following.at_s > now.at_s:
            assert acting == {one.index for one in made if one.start_s <= now.at_s < one.end_s}


def test_faults_in_force_by_the_record_are_those_applied_and_not_lifted() -> None:
    def event(what: str, index: int) -> dict[str, object]:
        return {"kind": "fault", "what": what, "fault": index, "handle": f"h{index}"}

    events = [
        {"kind": "phase", "phase": "morning"},
        event("applied", 0),
        event("applied", 1),
        event("not_applied", 2),
        event("lifted", 0),
        event("applied", 3),
        event("not_lifted", 3),
    ]
    assert {index: one["handle"] for index, one in in_force(events).items()} == {1: "h1", 3: "h3"}


def test_a_fault_is_read_back_as_it_was_written() -> None:
    one = fault(3, instances=("cart-service-1",), value=None, kind="crash")
    assert PlanFault.from_json(one.to_json()) == one
