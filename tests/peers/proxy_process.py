"""A real proxy as a process that may be killed and started again; see tinyproxy and squid."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

START_S = 10.0


@dataclass(slots=True)
class ProxyProcess:
    """One proxy on a loopback port; `start` and `kill` may be called again, the port stays.

    Attributes:
        name: what it calls itself in `Via`.
    """

    name: str
    port: int
    argv: Sequence[str]
    process: subprocess.Popen[bytes] | None = None

    def __str__(self) -> str:
        return f"proxy 127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it listens; this takes some 50 ms."""
        self.process = subprocess.Popen(self.argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while not self._listens():
            assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}"
            assert time.monotonic() < deadline, f"{self.name} does not listen"
            time.sleep(0.01)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """Kill it, so that every link through it breaks at once; it keeps nothing that could suffer."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(START_S)
            self.process = None

    @contextmanager
    def running(self) -> Iterator[ProxyProcess]:
        """Run it while the block lasts."""
        try:
            self.start()
            yield self
        finally:
            self.kill()


RunProxy = Callable[..., AbstractContextManager[ProxyProcess]]
"""`running_tinyproxy` or `running_squid`."""
