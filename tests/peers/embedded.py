"""The embedded broker as a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.peers.ports import free_port


def free_address() -> str:
    return f"127.0.0.1:{free_port()}"


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


@contextmanager
def broker_process(address: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tpxd.broker.process", address]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()
