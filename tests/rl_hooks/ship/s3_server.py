"""Moto's server as a process of its own: S3 on loopback, in memory, ended with the test."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.processes import answers, free_port, wait_until

BUCKET = "recordings"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "somebody",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
TIMEOUT_S = 60


class Server:
    """A server that can be paused, killed and started again at the same address, then without its content."""

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(lambda: answers(f"{self.url}/moto-api/"), "the S3 server answers")
        self.client().create_bucket(Bucket=BUCKET)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(TIMEOUT_S)

    def client(self) -> Any:
        boto3 = pytest.importorskip("boto3")
        return boto3.client("s3", endpoint_url=self.url)

    def objects(self, below: str = "") -> dict[str, bytes]:
        """Name -> content, as another client sees them."""
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=below)
        names = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return {name: client.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in names}

    def asked_for(self, method: str) -> int:
        """How many requests of a kind for objects it has had."""
        return self._log.read_text().count(f'"{method} /{BUCKET}/')


@contextmanager
def s3_server(log: Path) -> Iterator[Server]:
    pytest.importorskip("boto3", reason="boto3 is not installed; the extra s3 installs it")
    pytest.importorskip("moto.server", reason="moto's server is not installed; the extra s3-test installs it")
    server = Server(log)
    with environment({**ENVIRONMENT, "AWS_ENDPOINT_URL": server.url}):
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield
