"""What is fuzzed: each parser, with what must hold whatever it is given.

A target takes any bytes and returns; whatever it raises is a finding.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_network
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
import trio

from tests.control.doubles import ScriptedDaemon
from tests.wire.amqp_client import connected as amqp_connected
from tests.wire.amqp_client import consuming, publish
from tpxd.config.toml import parse_toml
from tpxd.control.guard import Asked, refusal
from tpxd.control.routes import control_app
from tpxd.errors import ConfigError, PatternError, RemoteViolation, ReportError, TokenError, TransportError
from tpxd.intake.proxies import Proxies
from tpxd.lorawan.downlinks import DownlinkError, NotJson, parse_downlink
from tpxd.lorawan.durations import parse_duration, parse_size
from tpxd.lorawan.patterns import Target, compile_pattern
from tpxd.lorawan.reports import Report, parse_report
from tpxd.lorawan.token import TokenCheck
from tpxd.lorawan.uplink import Uplink
from tpxd.wire.amqp.client import AmqpClient
from tpxd.wire.http import Limits, Request
from tpxd.wire.http.answer import AnswerParser
from tpxd.wire.http.parser import RequestParser
from tpxd.wire.mqtt.client import MqttClient, MqttOptions

LONGEST_MESSAGE: Final = 400
AS_ID: Final = "TWA_100009421.77.AS"
NOW_S: Final = 1_741_076_122.0
CHECK: Final = TokenCheck({AS_ID: "7d1e9a40c3b85f2206e4d7913ab6f85c"}, 60.0)
LENIENT: Final = TokenCheck({AS_ID: "7d1e9a40c3b85f2206e4d7913ab6f85c"}, 60.0, accept_unsigned=True)
BODY: Final = b"""{"DevEUI_uplink":{"Time":"2025-03-04T09:15:21.902+01:00","DevEUI":"70B3D5E75E00A1C4","FPort":5,
"FCntUp":4211,"payload_hex":"016700f1026855","CustomerID":"100009421","CustomerData":{"name":"Fridge 12","tags":["a"]},
"Lrrs":{"Lrr":[{"Lrrid":"1000A7F2","LrrRSSI":-93.0}]}}}"""
UPLINK: Final = Uplink(1, 1_741_076_122_000, "DevEUI_uplink", "70B3D5E75E00A1C4", "", BODY)
REPORT: Final = parse_report(BODY)
TOKEN: Final = "a token of thirty-two characters"


def short_line(text: str) -> None:
    """A message for people: one line, and not longer than what it quotes may be."""
    assert text.isprintable(), text
    assert len(text) <= LONGEST_MESSAGE, text


def http_request(data: bytes) -> None:
    """A stream gives the same requests and the same refusal however the network splits it."""
    limits = Limits(target_bytes=64, head_bytes=256, header_count=8, body_bytes=128, framing_bytes=64)
    whole, split = RequestParser(limits, "192.0.2.7"), RequestParser(limits, "192.0.2.7")
    requests = whole.receive(data)
    step = 1 + len(data) % 7
    pieces = [each for at in range(0, len(data), step) for each in split.receive(data[at : at + step])]
    assert [_seen(each) for each in requests] == [_seen(each) for each in pieces]
    assert (whole.ended, whole.mid_request) == (split.ended, split.mid_request)
    assert (whole.refusal is None) == (split.refusal is None)
    if whole.refusal is not None and split.refusal is not None:
        assert whole.refusal.status == split.refusal.status
        short_line(whole.refusal.body.decode().rstrip("\n"))
    for request in requests:
        assert len(request.body) <= limits.body_bytes
        assert request.path.startswith("/") or request.path == "*" or request.method == "CONNECT", request.path


def _seen(request: Request) -> tuple[Any, ...]:
    return request.method, request.path, request.query, dict(request.headers), request.body, request.keep_alive


def http_answer(data: bytes) -> None:
    """Far ends answer whatever they like."""
    parser = AnswerParser()
    with suppress(RemoteViolation):
        step = 1 + len(data) % 11
        for at in range(0, len(data), step):
            if parser.receive_data(data[at : at + step]) is not None:
                break
        answer = parser.receive_eof()
        assert answer is None or 100 <= answer.status <= 999


def json_report(data: bytes) -> None:
    """A report whose body says what its document says, or one line that says why not."""
    _report(data, "application/json")


def xml_report(data: bytes) -> None:
    """The same of XML."""
    _report(data, "text/xml")


def _report(data: bytes, content_type: str) -> None:
    try:
        report = parse_report(data, content_type)
    except ReportError as error:
        return short_line(error.message)
    assert orjson.loads(report.body) == report.document
    assert 8 <= len(report.lane) <= 16
    for check in (CHECK, LENIENT):
        with suppress(TokenError):
            check.check_report(check.check_query(f"AS_ID={AS_ID}&Time=2025-03-04T08:15:22&Token=0", NOW_S), report)
    return None


def token_query(data: bytes) -> None:
    """Nothing passes that nobody signed, and what is decoded is what everyone decodes."""
    query = data.decode("latin-1")
    for check in (CHECK, LENIENT):
        try:
            claim = check.check_query(query, NOW_S)
            assert claim is not None
            pairs = [(name, value) for name, value in claim.pairs if name != "Time"]
            expected = parse_qsl(query, keep_blank_values=True, separator="&", encoding="utf-8")
            if "" not in query.split("&"):
                assert pairs == [(name, value) for name, value in expected if name != "Time"]
            token = check.check_report(claim, Report(REPORT.kind, REPORT.lane, REPORT.body, REPORT.document))
            assert len(token or "") == 64
        except TokenError as error:
            short_line(error.message)


def toml(data: bytes) -> None:
    """A document, or problems with their places; and where each key stands is known."""
    try:
        source = parse_toml(data, "plant.toml")
    except ConfigError as error:
        for problem in error.problems:
            assert problem.line <= data.count(b"\n") + data.count(b"\r") + 1
            short_line(problem.message)
        return
    for key in source.document:
        problem = source.problem(key, "is wrong", (key,), at_key=True)
        assert problem.line >= 1
        assert problem.column >= 1


def pattern(data: bytes) -> None:
    """A pattern that renders something that may be sent, or what is wrong with it."""
    text = data.decode("utf-8", "replace")
    for target in Target:
        try:
            compiled = compile_pattern(text, target)
            rendered = compiled.render(UPLINK)
        except PatternError:
            continue
        assert "\n" not in rendered.text
        assert "\r" not in rendered.text
        if target is Target.MQTT_TOPIC:
            assert not set("+#\0") & set(rendered.text)
            assert compiled.fits(rendered.text)


def downlink(data: bytes) -> None:
    """A command with what an LRC takes, other JSON, or why not."""
    try:
        parse_downlink(data, default_port=None, now_s=NOW_S)
    except (NotJson, DownlinkError) as error:
        short_line(str(error))


def duration(data: bytes) -> None:
    """A number that is one, or why not."""
    text = data.decode("utf-8", "replace")
    for parse in (parse_duration, parse_size):
        with suppress(ValueError):
            assert math.isfinite(parse(text))


def forwarded(data: bytes) -> None:
    """Whatever proxies tell, somebody is the peer, and a stranger's header names nobody but through a proxy."""
    headers = {b"x-forwarded-for": data, b"forwarded": data[::-1]}
    request = Request("POST", "/uplink", "", headers, b"", "10.0.0.1")
    assert Proxies([ip_network("10.0.0.0/8")]).named(request).peer
    assert Proxies([]).named(request) is request


OPTIONS: Final = MqttOptions("id", clean_session=False)


def mqtt(data: bytes) -> None:
    """A broker that speaks nonsense ends its link, whenever it begins to."""
    for greeting in (b"", b"\x20\x02\x00\x00"):
        client = MqttClient(OPTIONS, 0.0)
        with suppress(RemoteViolation, TransportError):
            client.receive_data(greeting, 0.0)
            if greeting:
                client.publish("t", b"a")
                client.subscribe(["a/#"])
            step = 1 + len(data) % 5
            for at in range(0, len(data), step):
                client.receive_data(data[at : at + step], 0.0)
        assert len(client.outgoing(0.0)) < 4_096 + 4 * len(data)


def amqp(data: bytes) -> None:
    """The same of AMQP."""
    for client in (_fresh_amqp(), amqp_connected(), consuming()):
        with suppress(RemoteViolation, TransportError):
            step = 1 + len(data) % 5
            for at in range(0, len(data), step):
                client.receive_data(data[at : at + step], 0.0)
        assert len(client.outgoing(0.0)) < 4_096 + 64 * len(data)


def amqp_publishing(data: bytes) -> None:
    """Confirmations and returns of a broker, for messages that are under way."""
    client = amqp_connected()
    publish(client, *(f"m{n}" for n in range(20)))
    with suppress(RemoteViolation, TransportError):
        client.receive_data(data, 0.0)
    assert len(client.outgoing(0.0)) < 16_384 + 64 * len(data)


def _fresh_amqp() -> AmqpClient:
    from tests.wire.amqp_client import OPTIONS as AMQP_OPTIONS

    return AmqpClient(AMQP_OPTIONS, 0.0)


def control_request(data: bytes) -> None:
    """The first line is method and path, then headers, then the body: nothing is changed without the token."""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, target = first.decode("latin-1").partition(" ")
    path, _, query = target.partition("?")
    headers = [(name.lower(), value) for name, _, value in (line.partition(b":") for line in lines)]
    asked = Asked(method, "/" + path.lstrip("/"), headers, "192.0.2.7")
    refused = refusal(asked, TOKEN)
    assert refused is not None or method in ("GET", "HEAD") or TOKEN in "".join(asked.values(b"authorization"))
    assert refusal(asked, "") is not None or method in ("GET", "HEAD")
    statuses = trio.run(_ask, asked, query.encode("latin-1"), body)
    assert len(statuses) == 1
    assert statuses[0] != 500


@functools.cache
def _app() -> Any:
    return control_app(ScriptedDaemon(), "")


async def _ask(asked: Asked, query: bytes, body: bytes) -> list[int]:
    """What the application answers to this machine's own programs."""
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": asked.method,
        "path": asked.path,
    }
    scope |= {"raw_path": asked.path.encode("latin-1"), "query_string": query, "headers": list(asked.headers)}
    scope |= {"client": None, "server": None, "root_path": ""}
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        elif message["type"] == "http.response.body":
            assert len(message.get("body", b"")) < 2_000 or statuses == [200]

    await _app()(scope, receive, send)
    return statuses


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    target.__name__: target
    for target in (
        http_request, http_answer, json_report, xml_report, token_query, toml, pattern, downlink, duration, forwarded,
        mqtt, amqp, amqp_publishing, control_request,
    )
}  # fmt: skip
