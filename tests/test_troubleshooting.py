"""The messages in docs/troubleshooting.md are those that the program prints."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from profiles.answers import Failure, judge, no_answer
from profiles.shop import LOGIN
from rl_hooks.decision import ACTIONS
from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from tests import builders

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = [line for block in re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
REASONS = {one for one in MESSAGES if re.match("status|timeout: |connection: ", one)}  # of failed requests
PACKAGES = ("scenario", "profiles", "shapes", "rl_hooks", "sandbox")
SOURCES = [ROOT / "locustfile.py", ROOT / "rl_training_executor.py"]
SOURCES += [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]


def texts(path: Path) -> Iterator[str]:
    """The texts in a source file, with <> for whatever is filled in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (one.value if isinstance(one, ast.Constant) else "<>" for one in node.values)
            yield "".join(str(part) for part in parts)


KNOWN = {path: "\n".join(texts(path)) for path in SOURCES}


def is_printed(message: str) -> bool:
    """Whether one source file has all of the message's fixed parts.

    What is in parentheses is the system's; what is on both sides of a colon or semicolon may be two texts of the file.
    """
    own = re.sub(r"\([^)]*\)|run stopped: ", "<>", message)
    fixed = [part.strip() for part in re.split(r"<[^>]*>|[:;] ", own) if len(part.strip()) > 1]
    return any(all(part in text for part in fixed) for text in KNOWN.values())


def test_there_are_messages_to_test() -> None:
    assert len(MESSAGES) > 15
    assert len(REASONS) > 5


@pytest.mark.parametrize("message", [one for one in MESSAGES if one not in REASONS])
def test_a_message_of_ours_is_in_the_source(message: str) -> None:
    assert is_printed(message)


def test_a_message_that_nobody_prints_is_not_found() -> None:
    assert not is_printed("run failed: no request was good of <n> sent to <host>")


def test_reasons_of_failed_requests_are_put_together_as_it_says() -> None:
    """Which exception it is shows tests/profiles/test_live.py."""
    reasons = [
        judge(LOGIN, 401, b"{}").reason,
        judge(LOGIN, 502, b'{"error": "Failed to forward request: 401 no"}').reason.replace("502", "<status>"),
        judge(LOGIN, 503, b"{}").reason,
        no_answer(Failure.TIMEOUT, "Timeout").reason,
    ]
    kinds = ("ConnectionResetError", "HTTPConnectionClosed", "HTTPParseError", "ConnectionRefusedError")
    reasons += [no_answer(Failure.CONNECTION, kind).reason for kind in kinds]
    assert set(reasons) == REASONS


def test_the_example_counts_failed_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = builders.random_run()
    write_bundle(assemble([run]), tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    example, _ = EXAMPLES
    names: dict[str, Any] = {}
    exec(example, names)
    assert len(names["failed"]) == (run.requests["ok"] == 0).sum() > 0
    assert "cart-service" in capsys.readouterr().out


def test_the_example_counts_what_was_asked_for_and_what_was_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A balancer that takes the last action for the first one."""
    run = builders.random_run()
    sent = run.requests.copy()
    sent["action_applied"][sent["action_requested"] == len(ACTIONS) - 1] = 0
    write_bundle(assemble([replace(run, requests=sent)]), tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(EXAMPLES[1], names)
    other = names["other"]
    assert set(other["action_requested"]) == {len(ACTIONS) - 1}
    assert set(other["action"]) == {0}
    assert other["propensity"].isna().all()
    assert "cart-service" in capsys.readouterr().out


def test_the_table_of_the_readme_leads_to_every_section() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in sections}
    linked = set(re.findall(r"\(docs/troubleshooting\.md#([a-z0-9-]+)\)", readme))
    assert linked == anchors
