"""A small bundle, as the exporter writes it."""

from pathlib import Path

import pytest

from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from tests import builders


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("training") / "bundle"
    write_bundle(assemble([builders.random_run()]), out)
    return out
