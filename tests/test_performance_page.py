"""docs/performance.md: the numbers of the README are those of the code, and every benchmark is named."""

import re
from typing import Any

import pytest

from rl_hooks.decision import SERVICES
from rl_hooks.report.thresholds import Thresholds
from scenario.load import find_file, load_file
from scenario.plan import DYNAMICS_LIMIT, SHORTEST_DECISION_INTERVAL_S, Plan, make_plan
from tests.processes import ROOT

README, MAKEFILE, PAGE = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "Makefile", "docs/performance.md")
)


def plan(name: str, **options: Any) -> Plan:
    return make_plan(load_file(find_file(name)).scenario(None), seed=1, **options)


def decisions(of: Plan) -> int:
    return round(of.duration_s / of.decision_interval_s) * len(SERVICES)


def test_the_numbers_that_the_readme_says_follow_from_the_scenarios() -> None:
    scale = float(re.findall(r"--scenario comprehensive_rl_training --time-scale (\d+)", MAKEFILE)[0])
    short, whole = (
        plan("comprehensive_rl_training_config.yaml", time_scale=scale),
        plan("comprehensive_rl_training_config.yaml"),
    )
    assert f"time scale {scale:g}" in README and short.duration_s == 240
    assert "four minutes has about 6,000 decisions" in README
    assert decisions(short) == pytest.approx(6000, rel=0.02)
    assert "scale 1 has 27,000" in README and decisions(whole) == 27_000
    assert "(two minutes, starts the sandbox itself)" in README
    assert plan("quick_validation_config.yaml", time_scale=15.0).duration_s == 120
    limit = Thresholds().transitions
    assert "Offline RL wants 20,000 or more" in README
    assert (limit.fail, limit.warn) == (5_000, 20_000)
    assert "beyond 10 the floors bind (0.2 s per decision, 5 ms per service time)" in README
    assert (DYNAMICS_LIMIT, SHORTEST_DECISION_INTERVAL_S) == (10.0, 0.2)


def test_every_benchmark_that_make_bench_runs_is_named() -> None:
    (run,) = re.findall(r"for name in ([a-z ]+); do \$\(BIN\)/python -m benchmarks", MAKEFILE)
    assert set(re.findall(r"python -m benchmarks\.(\w+)` \|", PAGE)) == set(run.split())


def test_the_commands_of_the_page_name_files_that_exist() -> None:
    for name in re.findall(r"python -m scenario (\S+\.yaml)", PAGE):
        assert (ROOT / "configs" / name).is_file()
