"""docs/report-card.md says what the code does."""

import re
from pathlib import Path

import yaml

from rl_hooks.report.judge import KINDS, threshold
from rl_hooks.report.thresholds import Thresholds, override
from rl_hooks.report.verdict import EXIT_CODES

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "report-card.md").read_text(encoding="utf-8")


def test_every_check_is_described_as_it_is() -> None:
    rows = []
    for kind in KINDS:
        name = f"`{kind.name}` (coverage)" if kind.coverage else f"`{kind.name}`"
        limits = ", ".join(f"`{limit}`" for limit in kind.limits) or "-"
        rows.append(f"| {name} | {kind.title}. {kind.meaning} | {threshold(kind, Thresholds())} | {limits} |")
    table = TEXT.split("<!-- checks -->\n")[1].split("\n<!-- /checks -->")[0].splitlines()
    assert table[2:] == rows


def test_every_verdict_has_its_exit_code() -> None:
    told = dict(re.findall(r"^\| ([a-zR][^|]+?) \| .* \| ([01]) \|$", TEXT, re.MULTILINE))
    assert told == {str(fitness): str(code) for fitness, code in EXIT_CODES.items()}


def test_the_example_of_a_configuration_is_one() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert override(yaml.safe_load(example), "example") != Thresholds()
