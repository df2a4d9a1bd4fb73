"""A real Squid on a free loopback port, for tests marked `broker`: without a cache, without logs."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.peers.ports import free_port
from tests.peers.proxy_process import ProxyProcess

PROGRAM = shutil.which("squid") or "/usr/sbin/squid"
CHECKS_LOGINS = "/usr/lib/squid/basic_ncsa_auth"
RUNS_AS = "proxy"
"""The user that Debian's Squid becomes when root starts it."""


@contextmanager
def running_squid(
    *, login: str = "", tunnels_to: Sequence[int] = (), rules: Sequence[str] = ()
) -> Iterator[ProxyProcess]:
    """Run a proxy while the block lasts.

    Args:
        login: `user:password`, which it asks for.
        tunnels_to: the ports that it opens tunnels to; without any, all.
        rules: further lines of its configuration, before the one that allows everything.
    """
    port = free_port()
    # it shares memory with processes of the same service, and a name says which those are
    service = f"tpxd{port}"
    with _directory_of_its_own() as own:
        configuration = own / "squid.conf"
        # where the system's file names ::1 as well, Squid 6 asks nobody but that
        (own / "hosts").write_text("127.0.0.1 localhost\n")
        lines = [
            *_basis(port),
            f"hosts_file {own / 'hosts'}",
            *_login(own, login),
            *_tunnels(tunnels_to),
            *rules,
            "http_access allow all",
        ]
        configuration.write_text("\n".join(lines) + "\n")
        try:
            argv = [PROGRAM, "-N", "-n", service, "-f", str(configuration)]
            with ProxyProcess("squid", port, argv).running() as proxy:
                yield proxy
        finally:
            for shared in Path("/dev/shm").glob(f"{service}-*"):
                shared.unlink()


@contextmanager
def _directory_of_its_own() -> Iterator[Path]:
    """A directory which the user that Squid runs as can read: nobody else reads those of pytest."""
    with TemporaryDirectory(prefix="squid-") as own:
        if os.geteuid() == 0:
            shutil.chown(own, RUNS_AS)
        yield Path(own)


def _basis(port: int) -> list[str]:
    return [
        f"http_port 127.0.0.1:{port}",
        "visible_hostname squid.test",
        "pid_filename none",
        "access_log none",
        "cache_store_log none",
        "cache_log /dev/null",
        "netdb_filename none",
        "pinger_enable off",
        "cache deny all",
        "cache_mem 0",
        "max_filedescriptors 1024",
    ]


def _login(directory: Path, login: str) -> list[str]:
    if not login:
        return []
    name, _, password = login.partition(":")
    # of the forms that the program takes, the one that needs no crypt(3)
    (directory / "logins").write_text(f"{name}:{hashlib.md5(password.encode()).hexdigest()}\n")
    return [
        f"auth_param basic program {CHECKS_LOGINS} {directory}/logins",
        "auth_param basic children 1 startup=1 idle=1",
        "acl known proxy_auth REQUIRED",
        "http_access deny !known",
    ]


def _tunnels(ports: Sequence[int]) -> list[str]:
    if not ports:
        return []
    return [
        "acl tunnel method CONNECT",
        f"acl tunnel_port port {' '.join(map(str, ports))}",
        "http_access deny tunnel !tunnel_port",
    ]
