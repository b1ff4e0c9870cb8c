"""docs/extending.md: its files are written as they stand, and its commands run: in virtual time, and on the sandbox."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from rl_hooks.parts_check import CHECKS
from rl_hooks.run_folder import read_manifest
from rl_hooks.run_reader import read_run
from scenario.load import load_file
from tests.processes import ROOT, TIMEOUT_S, Sandbox, sandbox_started

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = {
    name: text
    for text in re.findall(r"```(?:python|yaml)\n(.*?)```", PAGE, re.DOTALL)
    for name in re.findall(r"\A# (\S+)\n", text)
}
VIRTUAL, LIVE = (block.replace("\\\n", "").splitlines() for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder one starts from, with the files of the page."""
    place = tmp_path_factory.mktemp("mine")
    for name, text in FILES.items():
        (place / name).write_text(text, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with sandbox_started() as running:
        yield running


def started(line: str, folder: Path, host: str = "http://127.0.0.1:8080/proxy") -> "subprocess.CompletedProcess[str]":
    """What came of a command of the page, with the sandbox at `host`."""
    words = shlex.split(line.replace("http://127.0.0.1:8080/proxy", host))
    programs = {"python": [sys.executable], "locust": [sys.executable, "-m", "locust"]}
    words = [str(ROOT / word) if word == "locustfile.py" else word for word in words]
    return subprocess.run(
        [*programs[words[0]], *words[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def run(line: str, folder: Path, host: str = "http://127.0.0.1:8080/proxy") -> str:
    """What a command of the page prints; it has to end well."""
    done = started(line, folder, host)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_every_example_is_a_file_and_every_kind_of_part_has_one() -> None:
    assert len(FILES) == len(re.findall(r"```(?:python|yaml)\n", PAGE)) == 8
    tried = re.findall(r"parts_check (\w+) ", "\n".join([*VIRTUAL, *LIVE]))
    assert set(tried) == set(CHECKS)


def test_the_profile_is_known_by_its_configuration_alone(folder: Path) -> None:
    scenario = load_file(folder / "shop.yaml").scenario()
    assert scenario.profiles["night_owl"].conversion_rate == 0.3
    assert scenario.reward_weights["within_slo"] == 0.2


def test_reward_policy_feature_and_format_work_in_virtual_time(folder: Path) -> None:
    printed = [run(line, folder) for line in VIRTUAL]
    assert [text for text in printed if "does what it has to" in text] == [
        text for line, text in zip(VIRTUAL, printed, strict=True) if "parts_check" in line
    ]
    bundle = folder / "runs" / "virtual" / "bundle"
    train = pd.read_parquet(bundle / "data" / "transitions" / "train-00000-of-00001.parquet")
    assert train["reward_within_slo"].between(0, 1).sum() > 100
    assert (train["obs.slowest_ms"] >= train["obs.response_time_p99_ms"] * 0.99).sum() > 100
    assert set(train["policy_version"]) == {"cautious"}
    assert len(set(train["propensity"].round(3))) > 1
    csv = pd.read_csv(bundle / "formats" / "my_format.write_csv" / "train.csv")
    assert csv["reward"].to_numpy() == pytest.approx(train["reward"].to_numpy(), abs=1e-6)
    facts = json.loads((bundle / "dataset.json").read_text())
    assert facts["observation"]["features"][-1]["class"] == "my_features:Slowest"
    assert facts["rewards"]["components"][-1]["function"] == "my_rewards:within_slo"


def test_source_actuator_and_injector_work_against_the_sandbox(folder: Path, sandbox: Sandbox) -> None:
    for line in LIVE:
        run(line, folder, sandbox.host)
    manifest, recorded = read_manifest(folder / "runs" / "live"), read_run(folder / "runs" / "live")
    assert (manifest["source"], manifest["actuator"]) == ("cpu only", "one by one")
    assert manifest["faults"]["injector"] == "only slow"
    assert {event["what"] for event in recorded.events if event["kind"] == "fault"} == {"applied", "lifted"}
    assert (recorded.decisions["actuated"] == 1).mean() > 0.9
    assert (recorded.samples["cpu"] >= 0).all()
    train = pd.read_parquet(
        folder / "runs" / "live" / "bundle" / "data" / "transitions" / "train-00000-of-00001.parquet"
    )
    assert train["obs.cpu_mean"].notna().mean() > 0.9
    assert train["obs.memory_mean"].isna().all()
    assert train["reward_within_slo"].notna().any()


@pytest.mark.parametrize(
    "line",
    [
        "python -m sandbox.virtual --scenario-file gone.yaml --run-folder runs/gone",
        "python -m sandbox.virtual.compare uniform least_loaded --scenario-file gone.yaml",
        "python -m rl_training_executor --mode custom --config gone.yaml --host http://127.0.0.1:9/proxy",
        "locust -f locustfile.py --headless --scenario-file gone.yaml --host http://127.0.0.1:9/proxy",
    ],
)
def test_a_reward_that_is_not_there_is_told_before_anything_is_recorded(line: str, folder: Path) -> None:
    (folder / "gone.yaml").write_text(FILES["shop.yaml"].replace("my_rewards:within_slo", "my_rewards:within_sol"))
    before = sorted((folder / "runs").glob("*"))
    done = started(line, folder)
    assert done.returncode == 2
    told = "reward within_slo (my_rewards:within_sol): my_rewards has no within_sol. Did you mean 'within_slo'?"
    assert told in done.stdout + done.stderr
    assert sorted((folder / "runs").glob("*")) == before
