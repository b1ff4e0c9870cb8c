"""Processor sharing against theory. Tolerances: the standard error of each mean is below a third of the one stated."""

from random import Random

import pytest

from sandbox.clock import VirtualClock
from sandbox.processor import SharedProcessor


def run_jobs(jobs: list[tuple[float, float]], cores: float) -> dict[int, float]:
    """Response time per job of (arrival, work)."""
    clock = VirtualClock()
    left: dict[int, float] = {}
    processor: SharedProcessor[int] = SharedProcessor(clock, cores, lambda i: left.__setitem__(i, clock.now()))
    for i, (arrival, work) in enumerate(jobs):
        clock.call_later(arrival, lambda i=i, work=work: processor.add(i, work))
    clock.run_until(1e9)
    return {i: left[i] - jobs[i][0] for i in range(len(jobs))}


def test_two_jobs_share_one_core_and_the_rest_has_it_alone() -> None:
    # Both run at half speed until 2 (1 done each); then the first has 1 left, alone after the second left at 3.
    assert run_jobs([(0.0, 3.0), (1.0, 1.0)], cores=1.0) == {0: pytest.approx(4.0), 1: pytest.approx(2.0)}


def test_a_job_never_gets_more_than_one_core() -> None:
    assert run_jobs([(0.0, 3.0), (0.0, 1.0)], cores=8.0) == {0: pytest.approx(3.0), 1: pytest.approx(1.0)}


def test_a_fraction_of_a_core_is_a_slower_core() -> None:
    assert run_jobs([(0.0, 1.0)], cores=0.25) == {0: pytest.approx(4.0)}


@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_the_mean_response_of_one_shared_core_does_not_depend_on_the_shape_of_the_demand(sigma: float) -> None:
    # M/G/1-PS: E[T] = E[S] / (1 - rho), for any distribution of S with this mean. Kleinrock, vol. 2, 4.4.
    rng, rho = Random(3), 0.7
    mu = -(sigma**2) / 2
    time, jobs = 0.0, []
    for _ in range(40_000):
        time += rng.expovariate(rho)
        jobs.append((time, rng.lognormvariate(mu, sigma)))
    responses = run_jobs(jobs, cores=1.0)
    mean = sum(responses.values()) / len(responses)
    assert mean == pytest.approx(1.0 / (1.0 - rho), rel=0.12)
    # and a job twice as long stays twice as long: T(x) = x / (1 - rho)
    for low, high in ((0.8, 0.9), (1.1, 1.2)):
        some = [(jobs[i][1], responses[i]) for i in responses if low < jobs[i][1] < high]
        assert sum(t for _, t in some) / sum(x for x, _ in some) == pytest.approx(1.0 / (1.0 - rho), rel=0.12)


def test_work_is_conserved_when_the_cores_change() -> None:
    clock = VirtualClock()
    done: list[tuple[int, float]] = []
    processor: SharedProcessor[int] = SharedProcessor(clock, 2.0, lambda i: done.append((i, clock.now())))
    processor.add(1, 1.0)
    processor.add(2, 1.0)
    processor.add(3, 1.0)  # 3 jobs on 2 cores: each has 2/3 of a second done at 1
    clock.run_until(1.0)
    processor.set_cores(0.0)
    clock.run_until(5.0)
    assert done == [] and processor.cores_used == 0.0
    processor.set_cores(1.0)  # 3 x 1/3 left on one core: all done one second later
    clock.run_until(20.0)
    assert done == [(1, pytest.approx(6.0)), (2, pytest.approx(6.0)), (3, pytest.approx(6.0))]


def test_cleared_jobs_are_not_done(clock: VirtualClock) -> None:
    done: list[int] = []
    processor: SharedProcessor[int] = SharedProcessor(clock, 1.0, done.append)
    processor.add(1, 1.0)
    processor.clear()
    processor.add(2, 1.0)
    clock.run_until(10.0)
    assert done == [2]
