"""The stores behind the window, against plain lists."""

import numpy as np

from rl_hooks.timed_facts import TimedFacts, WaitingFacts


def test_facts_are_kept_in_order_of_time_wherever_they_come_in() -> None:
    rng, facts, expected = np.random.default_rng(1), TimedFacts(value=np.int64), []
    for start in range(0, 3000, 300):
        times = rng.integers(max(0, start - 100), start + 300, 300)
        values = rng.integers(0, 1000, 300)
        place = facts.push(times, value=values)
        expected.extend(zip(times.tolist(), values.tolist(), strict=True))
        assert sorted(zip(facts["t_ns"][place].tolist(), facts["value"][place].tolist(), strict=True)) == sorted(
            zip(times.tolist(), values.tolist(), strict=True)
        )
    kept = list(zip(facts["t_ns"].tolist(), facts["value"].tolist(), strict=True))
    assert sorted(kept) == sorted(expected)
    assert (np.diff(facts["t_ns"]) >= 0).all()
    assert facts.position(1500) == sum(t < 1500 for t, _ in expected)


def test_waiting_facts_come_out_once_and_never_early() -> None:
    rng, facts, pushed, released = np.random.default_rng(2), WaitingFacts(value=np.int64), [], []
    for now in range(0, 6000, 200):
        times = rng.integers(max(0, now - 150), now + 400, 250)  # some late, some early
        values = np.arange(len(pushed), len(pushed) + 250)
        facts.push(times, value=values)
        pushed.extend(times.tolist())
        out = facts.release(now)["value"].tolist()
        assert all(pushed[value] < now for value in out)
        released.extend(out)
        assert sorted(released) == [index for index, t in enumerate(pushed) if t < now]
