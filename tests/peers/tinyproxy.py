"""A real tinyproxy on a free loopback port, for tests marked `broker`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import NamedTemporaryFile

from tests.peers.ports import free_port
from tests.peers.proxy_process import ProxyProcess

PROGRAM = shutil.which("tinyproxy") or "/usr/bin/tinyproxy"


@contextmanager
def running_tinyproxy(*, login: str = "", tunnels_to: Sequence[int] = ()) -> Iterator[ProxyProcess]:
    """Run a proxy while the block lasts.

    Args:
        login: `user:password`, which it asks for.
        tunnels_to: the ports that it opens tunnels to; without any, all.
    """
    port = free_port()
    lines = [f"Port {port}", "Listen 127.0.0.1", "Timeout 30", "MaxClients 50"]
    lines += [f"BasicAuth {login.replace(':', ' ', 1)}"] if login else []
    lines += [f"ConnectPort {port}" for port in tunnels_to]
    with NamedTemporaryFile("w", prefix="tinyproxy-", suffix=".conf") as configuration:
        configuration.write("\n".join(lines) + "\n")
        configuration.flush()
        with ProxyProcess("tinyproxy", port, [PROGRAM, "-d", "-c", configuration.name]).running() as proxy:
            yield proxy
