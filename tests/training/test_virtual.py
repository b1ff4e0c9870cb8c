"""Policies in the same worlds: every run once, results kept, differences paired by seed."""

import json
from pathlib import Path

import numpy as np
import pytest

from training.errors import TrainingError
from training.outcome import MEASURES
from training.virtual import Job, World, compare, run_all

SCENARIO = Path(__file__).with_name("turns.yaml")
WORLD = World(str(SCENARIO), None, 4.0, 1.0)
JOBS = [Job(policy, seed) for policy in ("round_robin", "least_loaded") for seed in (1, 2)]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("virtual")
    run_all(JOBS, WORLD, place, 2, lambda _: None)
    return place


def test_every_job_leaves_its_result_and_no_run(work: Path) -> None:
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in work.iterdir()]
    assert sorted((one["key"]["policy"], one["key"]["seed"]) for one in kept) == [
        ("fixed:least_loaded", 1),
        ("fixed:least_loaded", 2),
        ("fixed:round_robin", 1),
        ("fixed:round_robin", 2),
    ]
    assert all(set(one["measures"]) == set(MEASURES) for one in kept)
    assert all(list(one["phases"]) == ["busy", "calmer"] for one in kept)


def test_what_is_there_is_not_run_again(work: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in work.iterdir()}
    told: list[str] = []
    found = run_all(JOBS, WORLD, work, 2, told.append)
    assert {path: path.stat().st_mtime_ns for path in work.iterdir()} == before
    assert told[-1].startswith("4 of 4: ")
    assert list(found) == JOBS


def test_another_world_is_another_result(work: Path, tmp_path: Path) -> None:
    calm = World(str(SCENARIO), None, 4.0, 0.2)
    (job, *_) = JOBS
    with_few = run_all([job], calm, tmp_path, 1, lambda _: None)[job]
    with_all = run_all([job], WORLD, work, 1, lambda _: None)[job]
    assert with_few["measures"]["requests_per_s"] < 0.5 * with_all["measures"]["requests_per_s"]


def test_differences_are_paired_by_seed(work: Path) -> None:
    found = run_all(JOBS, WORLD, work, 2, lambda _: None)
    comparison = compare("least_loaded", [1, 2], found, WORLD)
    rewards = {job: one["measures"]["reward"] for job, one in found.items()}
    each = [rewards[Job("least_loaded", seed)] - rewards[Job("round_robin", seed)] for seed in (1, 2)]
    difference = comparison.differences["fixed:round_robin"]["reward"]
    assert difference.value == pytest.approx(np.mean(each))
    assert difference.degrees == 1
    assert comparison.chosen == "fixed:least_loaded"
    shares = comparison.shares["fixed:least_loaded"]["busy"]
    assert shares.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    nowhere = World(str(tmp_path / "nothing.yaml"), None, 4.0, 1.0)
    with pytest.raises(TrainingError, match=r"the run of fixed:round_robin with seed 1 failed: .*nothing\.yaml"):
        run_all(JOBS[:1], nowhere, tmp_path / "work", 1, lambda _: None)
