"""The data plane's server: its routes, its limits, its certificate."""

from __future__ import annotations

import ssl
import time
from collections.abc import Awaitable
from dataclasses import replace

import trio

from tpxd.config.settings import IntakeSettings, LrcSettings
from tpxd.intake.counters import Clock, IntakeCounters, Refusal
from tpxd.intake.places import Places
from tpxd.intake.proxies import Proxies
from tpxd.intake.routes import Route, error_response, json_response, route_requests
from tpxd.intake.uplinks import Claimed, Heard, uplink_route
from tpxd.lorawan.token import TokenCheck
from tpxd.spool import ReportStore
from tpxd.wire.http import CannotListen, Limits, Request, Response, serve_http
from tpxd.wire.http.server import Conversation
from tpxd.wire.open_files import INTAKE


class Intake:
    """What the data plane answers.

    Attributes:
        counters: what was accepted and refused.
        proxies: the reverse proxies that are trusted.
        routes: path, then method, then route; add routes before serving (see `tpxd.intake.routes`).
    """

    def __init__(
        self,
        settings: IntakeSettings,
        lrc: LrcSettings,
        store: ReportStore,
        *,
        claimed: Claimed = lambda report: True,
        heard: Heard = lambda report: False,
        clock: Clock = time.time,
    ) -> None:
        tokens = TokenCheck(lrc.token_keys, lrc.max_time_deviation, lrc.unsigned_reports == "accept")
        self.settings = settings
        self.proxies = Proxies(settings.trusted_proxies)
        self.counters = IntakeCounters(clock)
        self.routes: dict[str, dict[str, Route]] = {
            "/uplink": {"POST": uplink_route(store, tokens, self.counters, clock, claimed, heard)},
            "/health": {"GET": health_route(store)},
        }

    def route(self) -> Route:
        """Answers every request of the data plane: its peer is the sender, whatever proxies it came through."""
        pass_on = route_requests(self.routes)

        def answer(request: Request) -> Awaitable[Response]:
            request = self.proxies.named(request)
            if b"content-encoding" in request.headers:
                return self._refuse_encoded(request)
            return pass_on(request)

        return answer

    async def _refuse_encoded(self, request: Request) -> Response:
        message = "the body is sent as it is: a Content-Encoding is not understood here"
        self.counters.refused(Refusal("encoding", message, request.peer))
        return error_response(415, message, [(b"Accept-Encoding", b"identity")])


async def serve_intake(
    intake: Intake, *, connections: int = INTAKE, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve the data plane until cancelled; `task_status` gets the list of addresses really bound.

    Args:
        connections: how many may be open at once; see `Places`.

    Raises:
        CannotListen: the address cannot be bound, or the certificate cannot be used.

    Cancellation: see `serve_http`.
    """
    settings = intake.settings
    await serve_http(
        settings.listen,
        intake.route(),
        limits=replace(Limits(), body_bytes=settings.max_body),
        tls=_tls_context(settings),
        places=Places[Conversation](connections, intake.proxies.trusts),
        task_status=task_status,
    )


def health_route(store: ReportStore) -> Route:
    """The route of `GET /health`: 200 while reports can be stored, else 503."""

    async def tell_health(request: Request) -> Response:
        statistics = store.statistics()
        if statistics.storing:
            return json_response(200, {"status": "ok"})
        return error_response(503, statistics.last_error or "nothing can be stored")

    return tell_health


def _tls_context(settings: IntakeSettings) -> ssl.SSLContext | None:
    """A server's context from the PEM files of the settings, None when there are none."""
    if not settings.tls_certificate:
        return None

    def refuse_to_ask() -> str:
        raise ValueError(f"the key in {settings.tls_private_key} is encrypted; write it without a passphrase")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_private_key, password=refuse_to_ask)
    except (OSError, ValueError) as error:
        raise CannotListen(
            f"[intake] cannot serve HTTPS with {settings.tls_certificate} and {settings.tls_private_key}: {error}",
            hint="both are PEM files; the key belongs to the first certificate in the file, and tpxd may read both",
        ) from error
    return context
