"""A plan without shoppers: what the exporter makes of traffic that nobody planned."""

from pathlib import Path

import numpy as np
import pytest

from rl_hooks.export.dataset import assemble
from rl_hooks.export.verify.__main__ import VerifyError, verify
from rl_hooks.run_reader import Run
from tests import builders
from tests.tiny_policy import schema
from training.serving.plan import plan_of_schema


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    planned = plan_of_schema(schema(window_s=10.0), 1, 240.0)
    names = {**builders.NAMES, "phase": ("serving",) * 3}  # whatever phase a builder's row names
    monkeypatch.setattr(builders, "NAMES", names)
    serving = {"policy": "onnx:tiny", "fallback": "backpressure"}
    events = [{"t_ns": builders.START_NS, "kind": "phase", "phase": "serving", "run_time_s": 0.0}]
    return builders.random_run(planned=planned, names=names, events=events, manifest={"serving": serving})


def test_throughput_is_missing_and_the_other_rewards_share_its_weight(run: Run) -> None:
    steps = assemble([run]).frame
    judged = steps[(steps["n_finished"] > 0) & (steps["reason"] == "")]
    assert len(judged) > 100
    assert judged["reward_throughput"].isna().all()
    parts = judged[["reward_response_time", "reward_error_rate", "reward_load_balance", "reward_user_satisfaction"]]
    assert judged["reward"].to_numpy() == pytest.approx(np.nanmean(parts.to_numpy(), axis=1))  # of equal weights
    assert set(steps["phase"]) == {"serving"}


def test_it_is_not_compared_with_a_plan(run: Run) -> None:
    with pytest.raises(VerifyError) as caught:
        verify(run)
    assert str(caught.value) == (
        f"{Path('runs') / 'run'}: a policy served real traffic here, so no traffic was planned; "
        "python -m rl_hooks.report judges its data"
    )
