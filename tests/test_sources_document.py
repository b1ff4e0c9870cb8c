"""The files that docs/sources.md shows are files that the sources read, and it names every source."""

import re
from pathlib import Path

import pytest

from rl_hooks.sources.fields import read_file
from rl_hooks.sources.none import BUILTIN

DOCUMENT = (Path(__file__).resolve().parents[1] / "docs" / "sources.md").read_text(encoding="utf-8")
FILES = re.findall(r"```yaml\n# source: (\w+)\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.mark.parametrize(("kind", "text"), FILES)
def test_a_file_that_is_shown_is_read(kind: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "metrics.yaml"
    file.write_text(text)
    assert read_file(str(file), kind).fields


def test_every_kind_of_file_is_shown() -> None:
    assert {kind for kind, _ in FILES} == {"prometheus", "text"}


@pytest.mark.parametrize("name", BUILTIN)
def test_every_source_is_in_the_table(name: str) -> None:
    assert re.search(rf"^\| `{name}[`:]", DOCUMENT, re.MULTILINE)
