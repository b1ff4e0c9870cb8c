"""Episodes and split: every step once, whole blocks, and no request seen by both sides."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rl_hooks.export import check, episodes, split
from rl_hooks.export.dataset import Dataset, assemble
from rl_hooks.run_reader import Run
from tests import builders


def frame_of_blocks(blocks: dict[str, int]) -> pd.DataFrame:
    """A run with so many blocks per phase, in order."""
    phases = [phase for phase, count in blocks.items() for _ in range(count)]
    return pd.DataFrame({"block": np.arange(len(phases)), "phase": phases})


def seen_pairs(data: Dataset, run: Run, window_ns: int, timeout_ns: int) -> dict[int, set[str]]:
    """Which sides each request contributes to, request by request, straight from what a step is made of."""
    kept = data.frame[data.frame["split"] != split.EXCLUDED]
    found: dict[int, set[str]] = {}
    spans = [
        *(
            (int(r["start_ns"]), int(r["start_ns"]) + int(r["duration_us"]) * 1000, int(r["service"]))
            for r in run.requests
        ),
        *((int(r["start_ns"]), int(r["start_ns"]) + timeout_ns, int(r["service"])) for r in run.in_flight),
    ]
    t_ns, next_ns = kept["t_unix_ns"].to_numpy(), kept["next_unix_ns"].to_numpy()
    for number, (start_ns, end_ns, service) in enumerate(spans):
        in_cohort = (kept["service_index"].to_numpy() == service) & (t_ns <= start_ns) & (start_ns < next_ns)
        in_observation = np.zeros(len(kept), bool)
        for moment in (t_ns, next_ns):  # of any service: the features know the others' totals too
            in_flight = (start_ns < moment) & (moment <= end_ns)
            in_window = (end_ns < moment) & (moment - window_ns <= end_ns)
            in_observation |= in_flight | in_window
        found[number] = set(kept["split"].to_numpy()[in_cohort | in_observation])
    return found


@pytest.mark.parametrize("seed", range(4))
def test_no_request_contributes_to_both_sides(seed: int) -> None:
    planned = builders.plan(seed=seed)
    run = builders.random_run(seed=seed, count=400, planned=planned)
    run.requests["duration_us"][::7] = 9_900_000  # some that reach far over any border
    lost = builders.rows("in_flight", [{"start_ns": builders.at(t), "service": 2} for t in range(1, 230, 9)])
    run = builders.run(planned, requests=run.requests, decisions=run.decisions, samples=run.samples, in_flight=lost)
    data = assemble([run])
    assert {split.TRAIN, split.VALIDATION} <= set(data.frame["split"])
    pairs = seen_pairs(data, run, 10 * 10**9, round(planned.request_timeout_s * 1e9))
    assert Counter(len(sides) for sides in pairs.values())[2] == 0
    assert check.shared_requests(data, data.runs[0]) == 0


def test_without_the_purge_requests_would_be_seen_by_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "purge", lambda frame, *_: np.zeros(len(frame), bool))
    run = builders.random_run(count=400)
    data = assemble([run])
    pairs = seen_pairs(data, run, 10 * 10**9, 0)
    both = sum(len(sides) == 2 for sides in pairs.values())
    assert both > 0
    assert check.shared_requests(data, data.runs[0]) == both


def test_at_least_one_window_is_purged_behind_every_border_even_without_requests() -> None:
    planned = builders.plan()
    run = builders.run(planned, decisions=builders.decisions(planned, np.random.default_rng(1)))
    data = assemble([run])
    first = data.frame[data.frame["service_index"] == 0]
    side = first["side"].to_numpy()
    for border in np.flatnonzero(side[1:] != side[:-1]) + 1:
        purged = first.iloc[border : border + 6]
        assert (purged["reason"] == "purged").all()  # [T, T + 10 s], both ends included
        assert first.iloc[border + 6]["reason"] != "purged"


def test_every_step_is_in_one_part_and_every_episode_in_one_piece() -> None:
    data = assemble([builders.random_run()])
    frame = data.frame
    assert len(frame) == 600
    assert set(frame["split"]) == set(split.SPLITS)
    assert sum(data.rows(name).sum() for name in split.SPLITS) == len(frame)
    assert (frame["reason"] == "").equals(frame["split"] != split.EXCLUDED)
    for _, steps in frame.groupby("episode_id"):
        assert steps["step"].tolist() == list(range(len(steps)))
        assert steps["truncated"].tolist() == [False] * (len(steps) - 1) + [True]
        assert not steps["terminated"].any()
        assert steps[["service", "phase", "block", "split", "policy_version"]].nunique().eq(1).all()
        assert (steps["t_unix_ns"].to_numpy()[1:] == steps["next_unix_ns"].to_numpy()[:-1]).all()
    assert data.episodes["steps"].sum() == len(frame)


def test_a_block_is_on_one_side_with_all_its_services() -> None:
    frame = assemble([builders.random_run()]).frame
    assert frame.groupby("block")["side"].nunique().eq(1).all()
    assert frame.groupby("block")["service"].nunique().eq(5).all()
    assert frame.groupby("decision_tick")["block"].nunique().eq(1).all()


def test_blocks_are_at_most_an_episode_long_and_keep_to_phases() -> None:
    frame = assemble([builders.random_run(planned=builders.plan(phases={"morning": 1.0, "evening": 3.0}))]).frame
    lengths = frame.groupby("block").agg(phase=("phase", "nunique"), first=("t_s", "min"), last=("t_s", "max"))
    assert (lengths["phase"] == 1).all()
    assert (lengths["last"] - lengths["first"] < 30).all()
    assert len(lengths) == 2 + 6


def test_a_phase_a_little_longer_than_an_episode_is_halved_and_jitter_makes_no_rest() -> None:
    def blocks(times: list[float]) -> list[int]:
        frame = pd.DataFrame(
            {"decision_tick": range(len(times)), "t_unix_ns": [builders.at(t) for t in times], "phase": "morning"}
        )
        return episodes.block_of(frame, 2 * 10**9, 30 * 10**9).tolist()

    assert blocks([2.0 * i for i in range(15)]) == [0] * 15
    assert blocks([2.001 * i for i in range(15)]) == [0] * 15
    assert blocks([2.0 * i for i in range(18)]) == [0] * 9 + [1] * 9


@pytest.mark.parametrize("seed", range(20))
def test_a_fifth_of_the_blocks_validates_and_every_phase_with_two_is_in_it(seed: int) -> None:
    frame = frame_of_blocks({"a": 5, "b": 7, "c": 4, "d": 8, "e": 6, "f": 6, "g": 1})
    side = split.sides(frame, seed)
    validation = Counter(frame["phase"][side == split.VALIDATION])
    train = Counter(frame["phase"][side == split.TRAIN])
    assert set(validation) == set("abcdef")
    assert set(train) == set("abcdefg")
    assert sum(validation.values()) == round(0.2 * len(frame))


def test_the_seed_decides_which_blocks() -> None:
    frame = frame_of_blocks({"a": 10, "b": 10})
    first = split.sides(frame, 1)
    assert (split.sides(frame, 1) == first).all()
    assert any((split.sides(frame, seed) != first).any() for seed in range(2, 6))


def test_phases_of_one_block_train_unless_nothing_else_could_validate() -> None:
    assert Counter(split.sides(frame_of_blocks({"a": 1, "b": 1, "c": 1}), 1)) == {split.TRAIN: 2, split.VALIDATION: 1}
    assert Counter(split.sides(frame_of_blocks({"a": 1}), 1)) == {split.TRAIN: 1}
    assert Counter(split.sides(frame_of_blocks({"a": 2, "b": 1}), 1)) == {split.TRAIN: 2, split.VALIDATION: 1}


def test_short_phases_validate_too_even_if_that_is_more_than_a_fifth() -> None:
    frame = frame_of_blocks({"a": 2, "b": 2, "c": 2})
    assert sorted(frame["phase"][split.sides(frame, 1) == split.VALIDATION]) == ["a", "b", "c"]


def rows_by(data: Dataset, column: str) -> Any:
    return data.frame[data.frame["service_index"] == 0].set_index("decision_tick")[column]


def test_a_step_that_is_left_out_in_the_middle_ends_an_episode() -> None:
    run = builders.random_run()
    tick_50 = (run.requests["service"] == 0) & (run.requests["decision_tick"] == 50)
    assert tick_50.sum() > 0
    run.requests["action_applied"][tick_50] = (run.requests["action_requested"][tick_50] + 1) % 6
    data = assemble([run])
    assert rows_by(data, "reason")[50] == "action_differs"
    assert rows_by(data, "truncated")[49]
    assert rows_by(data, "step")[51] == 0
    before, after = (
        np.flatnonzero((data.frame["service_index"] == 0) & (data.frame["decision_tick"] == t))[0] for t in (49, 50)
    )
    np.testing.assert_array_equal(data.next_observation[before], data.observation[after])


@pytest.mark.parametrize(
    "change",
    [
        {"followed": [True, True, False, True, True, True]},
        {"policy_version": ["uniform"] * 3 + ["sticky:0.5"] * 3},
        {"block": [0] * 3 + [1] * 3},
        {"service": ["cart-service"] * 3 + ["order-service"] * 3},
        {"run_id": ["a"] * 3 + ["b"] * 3},
        {"sample_unix_ns": [builders.at(2 * step) for step in (0, 1, 2)] + [builders.at(0)] * 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_of_these_changes_alone_cuts_an_episode(change: dict[str, Any]) -> None:
    times = [builders.at(2 * step) for step in range(6)]
    same = {"run_id": "a", "service": "cart-service", "service_index": 2, "block": 0, "policy_version": "uniform"}
    steps = pd.DataFrame({"t_unix_ns": times, "sample_unix_ns": times, "followed": True, **same})
    assert episodes.stretch_starts(steps, 2 * 10**9).tolist() == [True] + [False] * 5
    starts = episodes.stretch_starts(steps.assign(**change), 2 * 10**9)
    assert starts.tolist() == [True, False, False, True, False, False]


def test_telemetry_that_stops_cuts_an_episode_and_a_slow_source_does_not() -> None:
    run = builders.random_run()
    silent = (run.samples["t_ns"] > builders.at(100)) & (run.samples["t_ns"] < builders.at(112))
    stopped = assemble([builders.run(requests=run.requests, decisions=run.decisions, samples=run.samples[~silent])])
    starts = rows_by(stopped, "step")
    assert starts[starts == 0].index.intersection(range(46, 60)).tolist() == [52, 57]  # more than 4 s old; there again
    slow = run.samples[(run.samples["t_ns"] + 10_000_000 - builders.START_NS) % (8 * 10**9) == 0]
    steady = assemble([builders.run(requests=run.requests, decisions=run.decisions, samples=slow)])
    plain = assemble([run])
    assert rows_by(steady, "step").tolist() == rows_by(plain, "step").tolist()


def test_a_step_without_a_finished_request_gets_the_mean_of_train() -> None:
    data = assemble([builders.random_run(count=800)])
    frame = data.frame
    filled = frame[frame["reward_filled"]]
    assert len(filled) > 0
    known = frame[~frame["reward_filled"] & (frame["split"] == split.TRAIN)]
    for service, steps in filled.groupby("service"):
        assert steps["reward"].to_numpy() == pytest.approx(known[known["service"] == service]["reward"].mean())
        assert data.reward_means[service] == steps["reward"].iloc[0]
    assert filled["reward_error_rate"].isna().all()


def test_a_service_that_was_never_asked_has_no_reward_and_is_left_out() -> None:
    run = builders.random_run()
    data = assemble([builders.run(decisions=run.decisions, requests=run.requests[run.requests["service"] != 4])])
    payment = data.frame[data.frame["service"] == "payment-service"]
    assert set(payment["reason"]) == {"warmup", "purged", "no_reward"}
    assert "payment-service" not in data.reward_means


def test_decisions_outside_the_plan_are_left_out() -> None:
    run = builders.random_run()
    run.decisions["phase_ref"][run.decisions["tick"] == 119] = 0
    data = assemble([run])
    assert rows_by(data, "reason")[119] == "outside_plan"
