"""A bundle of random facts in which the last action was never taken."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.export.formats.table import find_writers, write_formats
from tests.rl_hooks.export.formats.truth import NEVER_TAKEN, Truth, run_without_an_action, truth_of


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("formats") / "bundle"
    write_bundle(assemble([run_without_an_action()]), out)
    assert NEVER_TAKEN not in truth_of(out, "train").column("action")
    return out


@pytest.fixture(scope="session")
def written(bundle: Path) -> Iterator[Callable[[str], Path]]:
    """The folder of a format of the bundle, written once."""

    def folder(name: str) -> Path:
        if not (bundle / "formats" / name).exists():
            write_formats(bundle, find_writers(name))
        return bundle / "formats" / name

    yield folder


@pytest.fixture(scope="session")
def truth(bundle: Path) -> Callable[[str], Truth]:
    return lambda part: truth_of(bundle, part)
