"""Shoppers against the sandbox that ships with the suite, both as real processes."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.profiles.simulator import comprehensive

ROOT = Path(__file__).parents[2]
DELETE_CART = "cart-service DELETE /api/cart"
FIELDS = ("sku", "name", "category", "brand", "price")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    catalogue = tmp_path_factory.mktemp("sandbox") / "catalogue.json"
    products = [{name: getattr(product, name) for name in FIELDS} for product in comprehensive().catalogue]
    catalogue.write_text(json.dumps(products))
    options = ["--port", "0", "--healthy", "--time-scale", "60", "--catalogue", str(catalogue)]
    sandbox = subprocess.Popen(
        [sys.executable, "-m", "sandbox", *options, "--parent", str(os.getpid())],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    try:
        assert sandbox.stdout is not None
        ready = next(line for line in sandbox.stdout if line.startswith("sandbox ready: "))
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("against.py")), ready.split()[2]],
            capture_output=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
    finally:
        sandbox.send_signal(signal.SIGINT)
        sandbox.communicate(timeout=30)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_healthy_sandbox_answers_every_request_of_every_journey(told: dict[str, Any]) -> None:
    assert told["reached"]
    assert told["errors"] == []
    assert told["failed"] == {}


def test_sessions_keep_their_intents_also_on_accounts_that_were_used_before(told: dict[str, Any]) -> None:
    outcomes = Counter(session["outcome"] for session in told["sessions"])
    assert set(outcomes) <= {"ENDED", "TRUNCATED"}
    assert outcomes["ENDED"] >= 20
    for session in told["sessions"]:
        assert session["orders_paid"] == session["orders_placed"] or session["outcome"] == "TRUNCATED"
        if session["intent"] == "ABANDON":
            assert session["orders_placed"] == 0
    assert DELETE_CART in told["endpoints"]  # carts left behind were found, and thrown out
