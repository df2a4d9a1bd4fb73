"""A real moto server, which plays the registry of AWS IoT, on a free loopback port, for tests marked `broker`."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from tests.peers.ports import free_port
from tests.wire.scripted_registry import KEY_ID, REGION, SECRET

START_S = 60.0
STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Moto:
    """One server.

    Attributes:
        client: AWS's own client, for what a test wants to prepare and to see.
    """

    url: str
    client: Any
    _log: Path

    def reset(self) -> None:
        """Forget everything, as if it had just begun."""
        request = urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")
        urllib.request.urlopen(request, timeout=STOP_S).close()
        self._log.write_bytes(b"")

    def asked(self, method: str) -> list[str]:
        """The paths of all requests of this method since the last reset, in order."""
        return re.findall(rf'"(?:\x1b\[\d+m)*{method} (\S+) HTTP', self._log.read_text())

    def certificate(self) -> str:
        """The ARN of a certificate that it has just made."""
        arn: str = self.client.create_keys_and_certificate(setAsActive=True)["certificateArn"]
        return arn

    def things(self) -> dict[str, str]:
        """The type of each thing, by its name."""
        pages = self.client.get_paginator("list_things").paginate()
        return {thing["thingName"]: thing["thingTypeName"] for page in pages for thing in page["things"]}

    def attached_to(self, thing: str) -> list[str]:
        """The ARNs of the certificates of a thing."""
        arns: list[str] = self.client.list_thing_principals(thingName=thing)["principals"]
        return arns


@contextmanager
def running_moto() -> Iterator[Moto]:
    """Run a server while the block lasts."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="tpxd-moto-") as directory:
        path = Path(directory) / "requests.log"
        # appended to, so that a test can begin it anew
        with path.open("ab") as log:
            argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait(url, process, path)
            client = boto3.client(
                "iot", REGION, endpoint_url=url, aws_access_key_id=KEY_ID, aws_secret_access_key=SECRET
            )
            yield Moto(url, client, path)
            client.close()
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        assert process.poll() is None, log.read_text()[-2_000:]
        assert time.monotonic() < deadline, "moto does not answer"
        try:
            urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=5).close()
        except urllib.error.URLError:
            time.sleep(0.05)
        else:
            return
