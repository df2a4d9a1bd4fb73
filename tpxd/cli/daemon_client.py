"""Asks the running daemon over its Unix socket or its control address."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from tpxd.cli.options import DEFAULT_CONFIG
from tpxd.config.secret import SecretSources
from tpxd.config.settings import FILE_NAME, ControlSettings, settings_to_run
from tpxd.errors import TpxdError

SYSTEMD_SOCKET: Final = Path("/run/tpxd/control.sock")
TIMEOUT_S: Final = 10.0
ERRNO: Final = re.compile(r"\[Errno -?\d+\] ")
EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}  # noqa: S104 # compared, not bound


class Unreachable(TpxdError):
    """No daemon answers where the settings say."""


class Declined(TpxdError):
    """The daemon answered, and not with what was asked for."""


@dataclass(frozen=True, slots=True)
class Door:
    """One way to the daemon: a Unix socket, or `host:port`."""

    path: Path | None
    address: str

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"http://{self.address}"

    def open(self, headers: dict[str, str]) -> httpx.Client:
        """A client that leads through it; the environment's proxies are not for this machine.

        Raises:
            OSError: nobody listens at the Unix socket.
        """
        transport = None
        if self.path:
            # Tried first by hand: httpx leaves its own socket open when it is refused here.
            with socket.socket(socket.AF_UNIX) as visitor:
                visitor.connect(str(self.path))
            transport = httpx.HTTPTransport(uds=str(self.path))
        base = f"http://{self.address}"
        return httpx.Client(base_url=base, headers=headers, transport=transport, timeout=TIMEOUT_S, trust_env=False)


def doors(config_dir: Path, control: ControlSettings) -> list[Door]:
    """Where the daemon of this directory may be asked, best first."""
    host, _, port = control.listen.rpartition(":")
    found = [Door(None, f"{EVERYWHERE.get(host, host)}:{port}")]
    # The unit file names its socket in its environment, which a command does not see.
    path = control.socket or (SYSTEMD_SOCKET if config_dir == DEFAULT_CONFIG and SYSTEMD_SOCKET.exists() else None)
    if path is not None:
        found.insert(0, Door(path, "localhost"))
    return found


def ask(config_dir: Path, method: str, path: str, content: bytes | None = None) -> httpx.Response:
    """Send a request to the daemon of this directory, with a body where one is given.

    Returns:
        Its answer, whatever the status.

    Raises:
        ConfigError: `tpxd.toml` is wrong.
        Unreachable: no one answers; says what was tried.
    """
    sources = SecretSources(config_dir, lenient=True)
    settings, _ = settings_to_run(config_dir / FILE_NAME, sources)
    token = settings.control.token.get_secret_value()
    headers = {"authorization": f"Bearer {token}"} if token else {}
    tried = []
    for door in doors(config_dir, settings.control):
        try:
            with door.open(headers) as client:
                return client.request(method, path, content=content)
        except (httpx.TransportError, OSError) as error:
            reason = ERRNO.sub("", str(error)).lower() or type(error).__name__
            tried.append(f"{door} ({reason})")
    raise Unreachable(
        f"the daemon does not answer; tried {', '.join(tried)}",
        hint=f"is it running? systemctl status tpxd, or: tpxd run --config {config_dir}",
    )


def document_of(response: httpx.Response) -> dict[str, Any]:
    """The JSON object in an answer.

    Raises:
        Declined: something else is listening there.
    """
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Declined(
            f"{response.url} answered {response.status_code} without JSON",
            hint="another program listens at the address in [control]",
        )
    return document
