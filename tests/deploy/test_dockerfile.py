"""The Dockerfile, read as a list of instructions: it is built in tests/deploy/test_image.py, where that can be done."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.manifests import ROOT

DOCKERFILE = ROOT / "deploy" / "Dockerfile"


def stages() -> list[list[tuple[str, str]]]:
    """Instructions and their arguments, by stage; those before the first stage are the first list."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[tuple[str, str]]] = [[]]
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, arguments = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, " ".join(arguments.split())))
    return found


HEAD, BUILD, FINAL = stages()


def all_of(stage: list[tuple[str, str]], name: str) -> list[str]:
    return [arguments for instruction, arguments in stage if instruction == name]


def test_both_stages_begin_with_one_image_of_a_fixed_version() -> None:
    (image,) = all_of(HEAD, "ARG")
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+", image)
    assert all_of(BUILD, "FROM") == ["${PYTHON_IMAGE} AS build"]
    assert all_of(FINAL, "FROM") == ["${PYTHON_IMAGE}"]


def test_packages_are_installed_by_the_hashes_of_the_lock_file_and_nothing_is_compiled() -> None:
    assert all_of(BUILD, "ARG") == ["REQUIREMENTS=requirements.lock"]
    assert "${REQUIREMENTS} requirements.lock" in all_of(BUILD, "COPY")
    (install,) = [run for run in all_of(BUILD, "RUN") if "pip install" in run]
    assert "--require-hashes --only-binary=:all: -r requirements.lock" in install
    assert all("pip install" not in run for run in all_of(FINAL, "RUN"))
    assert re.fullmatch(r"(\S+==\S+.*\\\n(    --hash=sha256:\w+( \\)?\n)+)+", (ROOT / "requirements.lock").read_text())


def test_the_final_image_takes_the_result_alone_and_is_not_root() -> None:
    assert all(copied.startswith("--from=build ") for copied in all_of(FINAL, "COPY"))
    (user,) = all_of(FINAL, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    names = [name for name, _ in FINAL]
    assert "RUN" not in names[names.index("USER") :]


def test_locust_is_the_first_process() -> None:
    """The shell form would start a shell, which keeps SIGTERM to itself."""
    assert [json.loads(entry) for entry in all_of(FINAL, "ENTRYPOINT")] == [["locust"]]
    assert all_of(FINAL, "CMD") == []


def test_everything_the_suite_imports_is_copied() -> None:
    """And every folder that is copied is let through to the builder."""
    copied = {Path(arguments.split()[0]).name for arguments in all_of(BUILD, "COPY")} - {"${REQUIREMENTS}"}
    ours = {"scenario", "profiles", "shapes", "rl_hooks", "sandbox", "configs", "locustfile.py"}
    assert copied == ours
    let_through = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().split()
    assert {line[1:] for line in let_through if line.startswith("!")} == ours | {"requirements*.lock"}


def test_it_is_run_as_the_manifests_expect() -> None:
    user = all_of(FINAL, "USER")[0].partition(":")[0]
    assert f"runAsUser: {user}\n" in (ROOT / "deploy/kubernetes/base/worker.yaml").read_text()
    assert "LOCUST_LOCUSTFILE=/app/locustfile.py" in " ".join(all_of(FINAL, "ENV"))
    assert all_of(FINAL, "WORKDIR") == ["/data"]


@pytest.mark.kubernetes
def test_a_linter_for_dockerfiles_has_nothing_to_say() -> None:
    beside = Path(sys.executable).parent / "hadolint"
    hadolint = str(beside) if beside.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("needs hadolint, which is in the extra `deploy-test`")
    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
