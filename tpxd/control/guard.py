"""Who may ask for what.

Health and metrics answer everyone, the dashboard's page holds no data. The rest changes or reveals: it wants the
bearer token where one is set. Where none is, it answers this machine only, and nothing that a web page in the
operator's browser could have sent: a foreign page's request has a foreign Origin, and a page whose name was rebound to
127.0.0.1 has a foreign Host.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from tpxd.control.answers import QUOTED, error_response

OPEN_PATHS: Final = frozenset({"/", "/health", "/metrics"})
OPEN_PREFIXES: Final = ("/health/", "/assets/")
NEXT_STEP: Final = 'set "token" in [control] of tpxd.toml and send it as "Authorization: Bearer"'


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered: 401 for a missing or wrong token, 403 for the wrong place."""

    status: int
    message: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a request decides whether it is answered.

    Attributes:
        path: percent-decoded.
        headers: lower-case names.
        peer: the address it came from; None over the Unix socket, whose file mode already said who may.
    """

    method: str
    path: str
    headers: Sequence[tuple[bytes, bytes]]
    peer: str | None

    def values(self, name: bytes) -> list[str]:
        """Every value of a header."""
        return [value.decode("latin-1") for key, value in self.headers if key == name]


def refusal(asked: Asked, token: str) -> Refusal | None:
    """Why the request must not be answered, None when it may be; `token` is "" where none is set."""
    if asked.method in ("GET", "HEAD") and (asked.path in OPEN_PATHS or asked.path.startswith(OPEN_PREFIXES)):
        return None
    if token:
        return _without_token(asked, token)
    return None if asked.peer is None else _from_elsewhere(asked, asked.peer)


def _without_token(asked: Asked, token: str) -> Refusal | None:
    match asked.values(b"authorization"):
        case [one]:
            scheme, _, given = one.partition(" ")
            right = hmac.compare_digest(given.strip().encode("latin-1"), token.encode())
            if right and scheme.lower() == "bearer":
                return None
            return Refusal(401, "the bearer token is wrong")
        case _:
            return Refusal(401, 'this needs the token of [control]: send it as "Authorization: Bearer"')


def _from_elsewhere(asked: Asked, peer: str) -> Refusal | None:
    if not _is_loopback(peer) or asked.values(b"x-forwarded-for") or asked.values(b"forwarded"):
        return Refusal(403, f"without a token this answers only this machine; {NEXT_STEP}")
    hosts = asked.values(b"host")
    if len(hosts) != 1 or not _names_this_machine(hosts[0]):
        return Refusal(403, f"without a token this answers only to localhost, not {str(hosts)[:QUOTED]}; {NEXT_STEP}")
    if any(origin != f"http://{hosts[0]}" for origin in asked.values(b"origin")):
        return Refusal(403, f"without a token this answers no web page but its own; {NEXT_STEP}")
    if any(site not in ("same-origin", "none") for site in asked.values(b"sec-fetch-site")):
        return Refusal(403, f"without a token this answers no web page but its own; {NEXT_STEP}")
    return None


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def _names_this_machine(host: str) -> bool:
    name, _, rest = host.removeprefix("[").partition("]") if host.startswith("[") else host.partition(":")
    return (not rest or rest.lstrip(":").isdecimal()) and (name.lower() == "localhost" or _is_loopback(name))


class Guard:
    """The gate in front of an application: refuses before a body is read."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the refusal, or let the application answer."""
        if scope["type"] == "http":
            client = scope["client"]
            asked = Asked(scope["method"], scope["path"], scope["headers"], client and client[0])
            refused = refusal(asked, self._token)
            if refused is not None:
                await error_response(refused.status, refused.message)(scope, receive, send)
                return
        await self._app(scope, receive, send)
