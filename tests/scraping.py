"""A real Prometheus as a process that ends with the test that starts it."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.processes import TIMEOUT_S, answers, free_port, wait_until

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="prometheus is not installed; Debian's package `prometheus` has it",
)


@contextmanager
def prometheus_started(folder: Path, jobs: Mapping[str, Sequence[str]], interval: str = "1s") -> Iterator[str]:
    """Its URL, once it has scraped every target of `jobs` (job -> host:port of its targets)."""
    scrapes = [{"job_name": job, "static_configs": [{"targets": list(targets)}]} for job, targets in jobs.items()]
    file = folder / "prometheus.yml"
    file.write_text(json.dumps({"global": {"scrape_interval": interval}, "scrape_configs": scrapes}))
    port = free_port()
    command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}", "--log.level=error"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=100y"]
    url = f"http://127.0.0.1:{port}"
    with (folder / "prometheus.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_until(lambda: answers(f"{url}/-/ready"), "Prometheus is ready")
            wanted = sum(map(len, jobs.values()))
            wait_until(lambda: len(query(url, "up == 1")) == wanted, "Prometheus has scraped every target")
            yield url
        finally:
            process.terminate()
            process.wait(TIMEOUT_S)


def query(url: str, text: str) -> list[Any]:
    answer = requests.get(f"{url}/api/v1/query", params={"query": text}, timeout=10)
    answer.raise_for_status()
    found: list[Any] = answer.json()["data"]["result"]
    return found


def put_history(folder: Path, lines: Sequence[str]) -> None:
    """Give a Prometheus that is not started yet values of the past, in the OpenMetrics format with times in seconds."""
    text = folder / "history.txt"
    text.write_text("\n".join([*lines, "# EOF", ""]))
    (folder / "tsdb").mkdir()
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(folder / "tsdb")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
