"""`POST /uplink`: the LRC's tunnel interface, all report types, JSON or XML.

The order: may it be from the LRC, as far as its query says; is it a report at all (which parses it, once); is it what
the LRC signed; is it on disk. Only then 200.

Source: LRC tunnel interface (LRC to AS, uplink).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from tpxd.errors import ReportError, SpoolUnavailable, TokenError
from tpxd.intake.counters import Clock, IntakeCounters, Refusal
from tpxd.intake.routes import Route, error_response, query_value
from tpxd.intake.seen_tokens import SeenTokens
from tpxd.lorawan.reports import Report, parse_report
from tpxd.lorawan.token import TokenCheck
from tpxd.spool import NewReport, ReportStore
from tpxd.wire.http import Request, Response

STORED = Response(200)
ANOTHER_BODY = "this Token came before, with another body"
CHALLENGE = ((b"WWW-Authenticate", b'Token realm="LRC tunnel interface"'),)


Claimed = Callable[[Report], bool]
"""Whether some connection's flow takes the report."""

Heard = Callable[[Report], bool]
"""Learns of each report, once it is on disk; whether it is about a downlink that is known."""


def uplink_route(
    store: ReportStore,
    tokens: TokenCheck,
    counters: IntakeCounters,
    clock: Clock,
    claimed: Claimed,
    heard: Heard,
) -> Route:
    """The route of `POST /uplink`.

    Answers: 200 the report is on disk, now or since an earlier time; 400 it is no report; 401 Token, AS_ID or Time
    do not authenticate it; 503 with Retry-After while nothing can be stored.

    Cancellation: the report may be stored although its sender never gets the 200.
    """
    seen = SeenTokens(2 * tokens.max_time_deviation_s)  # a Time may lie as far ahead as behind

    async def take_uplink(request: Request) -> Response:
        content_type = request.headers.get(b"content-type")
        now_s = clock()
        report = None
        try:
            claim = tokens.check_query(request.query, now_s)
            report = parse_report(request.body, content_type.decode("latin-1") if content_type else None)
            token = tokens.check_report(claim, report)
            if token is not None and not seen.first_with(token, report.body, now_s):
                raise TokenError(ANOTHER_BODY, reason="token", as_id=query_value(request.query, "AS_ID"))
        except ReportError as error:
            counters.refused(Refusal("report", error.message, request.peer))
            return error_response(400, error.message)
        except TokenError as error:
            counters.refused(_unauthenticated(request, report, error, now_s))
            return error_response(401, error.message, CHALLENGE)
        lrn_infos = query_value(request.query, "LrnInfos") or ""
        try:
            appended = await store.append(NewReport(report.kind, report.lane, lrn_infos, report.body, report.document))
        except SpoolUnavailable as error:
            counters.refused(Refusal("spool", error.message, request.peer, report.kind, report.lane))
            return error_response(503, error.message, [(b"Retry-After", b"%d" % error.retry_after_s)])
        counters.accepted(duplicate=appended.duplicate)
        known = heard(report)
        if not appended.duplicate and not known and not claimed(report):
            counters.unclaimed_total += 1
        return STORED

    return take_uplink


def _unauthenticated(request: Request, report: Report | None, error: TokenError, now_s: float) -> Refusal:
    """What is counted; before the body was read, the query says which device it is about."""
    return Refusal(
        reason=error.reason,
        message=error.message,
        peer=request.peer,
        kind=report.kind if report is not None else "",
        lane=report.lane if report is not None else query_value(request.query, "LrnDevEui") or "",
        as_id=error.as_id,
        time_difference_s=_time_difference_s(query_value(request.query, "Time"), now_s),
    )


def _time_difference_s(text: str | None, now_s: float) -> float | None:
    """The sender's Time minus ours; None when it gave none that can be read. A zone may have lost its `+`."""
    if text is None:
        return None
    try:
        given = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        return None
    if given.tzinfo is None:
        given = given.replace(tzinfo=UTC)
    return round(given.timestamp() - now_s, 3)
