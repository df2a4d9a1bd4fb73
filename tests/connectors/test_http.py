"""The HTTP connector: what it posts, in which order, and what answers do to a batch."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.connectors.http_site import URL, Sending, Server, config, sending
from tests.connectors.opening import CLIENT, context
from tests.connectors.traffic import LANES, Receipts, batch_of, outgoing
from tests.peers import pki
from tpxd import __version__
from tpxd.connectors.http.connector import open_http
from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost, Refused, Throttled, TransportError
from tpxd.wire.http import Request, Response, serve_http
from tpxd.wire.streams import Endpoint, open_stream


@pytest.fixture
def server(nursery: trio.Nursery) -> Server:
    return Server(nursery)


async def test_one_request_byte_by_byte(server: Server, nursery: trio.Nursery) -> None:
    url = "http://as.example.net:8080/lora/in?site=n%20orth"
    headers = {"Authorization": "Bearer t", "X-Thing": "{DevEUI}", "X-Line": "L4", "X-Fixed": "{'50 %'} ü"}
    async with sending(server, [outgoing(5)], nursery, destinationURL=url, headers=headers) as one:
        await server.answer(0, "204 No Content")
        assert one.receipts.delivered_ == [0]
    assert server.dialled == [(Endpoint("as.example.net", 8080), 5.0)]
    assert server.requests == [
        b"POST /lora/in?site=n%20orth HTTP/1.1\r\n"
        b"Host: as.example.net:8080\r\n"
        b"Content-Type: application/json\r\n"
        b"Accept: */*\r\n"
        b"User-Agent: tpxd/" + __version__.encode() + b"\r\n"
        b"Authorization: Bearer t\r\n"
        b"X-Line: L4\r\n"
        b"X-Fixed: 50 % \xfc\r\n"
        b"X-Thing: 70B3D5E75E00A1C4\r\n"
        b"Content-Length: 7\r\n"
        b"\r\n"
        b'{"n":5}'
    ]


async def test_a_file_may_set_the_headers_that_have_a_default(server: Server, nursery: trio.Nursery) -> None:
    headers = {"content-type": "application/vnd.lora+json", "USER-AGENT": "{DevEUI}"}
    async with sending(server, [outgoing(5)], nursery, headers=headers) as one:
        await server.answer(0, "200 OK")
        assert one.ended.is_set()
    head = server.requests[0].partition(b"\r\n\r\n")[0].lower()
    assert head.count(b"content-type:") == head.count(b"user-agent:") == 1
    assert b"content-type: application/vnd.lora+json" in head
    assert b"user-agent: 70b3d5e75e00a1c4" in head


async def test_an_uplink_notes_the_names_of_its_headers_and_none_of_their_values(
    server: Server, nursery: trio.Nursery
) -> None:
    batch = [outgoing(5)]
    secret = "eyJhbGciOiJIUzI1NiJ9"  # where the name belongs
    headers = {"Authorization": "Bearer s3cr3t", "X-Device": "{DevEUI}", secret: "x", "x-Ab3dE": "x", "hunter": "x"}
    async with sending(server, batch, nursery, headers=headers):
        await server.answer(0, "200 OK")
    assert batch[0].place == "headers Host, Content-Type, Accept, User-Agent, Authorization, …, …, …, X-Device"


@pytest.mark.parametrize(
    ("url", "endpoint", "host"),
    [
        ("http://as.example.net", Endpoint("as.example.net", 80), b"as.example.net"),
        ("http://[2001:db8::1]:81/", Endpoint("2001:db8::1", 81), b"[2001:db8::1]:81"),
        ("http://bücher.example/", Endpoint("xn--bcher-kva.example", 80), b"xn--bcher-kva.example"),
    ],
)
async def test_where_it_connects_to(
    server: Server, nursery: trio.Nursery, url: str, endpoint: Endpoint, host: bytes
) -> None:
    async with sending(server, [outgoing(5)], nursery, destinationURL=url, connectionTimeout=700):
        await server.answer(0, "200 OK")
    assert server.dialled == [(endpoint, 0.7)]
    assert server.requests[0].startswith(b"POST / HTTP/1.1\r\nHost: " + host + b"\r\n")


async def test_devices_go_side_by_side_and_each_in_order(server: Server, nursery: trio.Nursery) -> None:
    async with sending(server, batch_of(6), nursery) as one:
        assert sorted(server.bodies()) == [b'{"n":0}', b'{"n":1}', b'{"n":2}']
        first = {body: number for number, body in enumerate(server.bodies())}
        await server.answer(first[b'{"n":1}'], "200 OK")
        assert server.bodies()[3:] == [b'{"n":4}']
        assert one.receipts.delivered_ == [1]
        for number in (3, first[b'{"n":0}'], first[b'{"n":2}']):
            await server.answer(number, "200 OK")
        assert one.receipts.delivered_ == [1, 4, 0, 2]
        for number in (4, 5):
            await server.answer(number, "200 OK")
        assert one.ended.is_set()
        assert one.receipts.delivered_ == [1, 4, 0, 2, 3, 5]
        assert len(server.dialled) == 3


@pytest.mark.parametrize("parallel", [1, 2])
async def test_no_more_devices_than_allowed_go_side_by_side(
    server: Server, nursery: trio.Nursery, parallel: int
) -> None:
    async with sending(server, batch_of(6), nursery, maxParallel=parallel) as one:
        while not one.ended.is_set():
            assert len(server.under_way) <= parallel
            await server.answer(max(server.under_way), "200 OK")
        assert sorted(one.receipts.delivered_) == list(range(6))
        assert len(server.dialled) == parallel


async def test_with_one_at_a_time_the_oldest_lane_goes_first(server: Server, nursery: trio.Nursery) -> None:
    async with sending(server, batch_of(6), nursery, maxParallel=1) as one:
        for number in range(6):
            await server.answer(number, "200 OK")
        assert one.receipts.delivered_ == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    ("status", "expected"),
    [("401 Unauthorized", AuthenticationFailed), ("429 Too Many Requests", Throttled), ("502 Bad Gateway", Refused)],
)
async def test_one_lane_fails_and_what_is_under_way_may_finish(
    server: Server, nursery: trio.Nursery, status: str, expected: type[TransportError]
) -> None:
    async with sending(server, batch_of(6), nursery) as one:
        number = {body: number for number, body in enumerate(server.bodies())}
        await server.answer(number[b'{"n":1}'], status)
        assert not one.ended.is_set()
        await server.answer(number[b'{"n":0}'], "200 OK")
        await server.answer(number[b'{"n":2}'], "404 Not Found")
        assert one.ended.is_set()
        assert type(one.error) is expected
        assert str(one.error).startswith(f"{URL}: {status}")
        assert one.receipts.delivered_ == [0]
        assert one.receipts.rejected_ == {2: "404 Not Found"}
        assert len(server.requests) == 3


async def test_what_is_under_way_may_finish_for_no_longer_than_the_action_timeout(
    server: Server, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with sending(server, batch_of(3), nursery, actionTimeout=2_000) as one:
        await server.answer(0, "503 Service Unavailable", "Retry-After: 9")
        begun = trio.current_time()
        await one.ended.wait()
        assert trio.current_time() - begun == pytest.approx(2.0, abs=0.1)
        assert isinstance(one.error, Throttled)
        assert one.error.retry_after_s == 9


async def test_no_answer_in_time_is_a_lost_link(
    server: Server, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with sending(server, batch_of(1), nursery, actionTimeout=2_000) as one:
        await trio.sleep(2.1)
        assert isinstance(one.error, LinkLost)
        assert str(one.error) == "no answer within 2000 ms"


async def test_a_refused_uplink_is_a_dead_letter_with_the_servers_words(server: Server, nursery: trio.Nursery) -> None:
    async with sending(server, batch_of(2, lanes=1), nursery) as one:
        await server.answer(0, "404 Not Found", body="no such\r\nthing")
        await server.answer(1, "200 OK")
        assert one.receipts.rejected_ == {0: "404 Not Found: no such thing"}
        assert one.receipts.delivered_ == [1]
        assert one.error is None


async def test_in_strict_mode_a_refused_uplink_holds_those_behind_it(server: Server, nursery: trio.Nursery) -> None:
    async with sending(server, batch_of(2, lanes=1), nursery, strictMode=True) as one:
        await server.answer(0, "404 Not Found")
        assert isinstance(one.error, Refused)
        assert "strictMode" in (one.error.hint or "")
        assert one.receipts.rejected_ == {}
        assert len(server.requests) == 1


async def test_403_means_credentials_until_something_was_taken(server: Server, nursery: trio.Nursery) -> None:
    async with sending(server, batch_of(1), nursery) as one:
        await server.answer(0, "403 Forbidden")
        assert isinstance(one.error, AuthenticationFailed)
        server.proven = True
        two = Sending(one._transport, batch_of(1))
        nursery.start_soon(two.run)
        await server.answer(1, "403 Forbidden")
        assert two.receipts.rejected_ == {0: "403 Forbidden"}


async def test_after_a_refusal_the_same_link_goes_on(server: Server, nursery: trio.Nursery) -> None:
    async with sending(server, batch_of(1), nursery) as one:
        await server.answer(0, "429 Too Many Requests", "Retry-After: 1")
        assert isinstance(one.error, Throttled)
        two = Sending(one._transport, batch_of(1))
        nursery.start_soon(two.run)
        await server.answer(1, "200 OK")
        assert two.receipts.delivered_ == [0]
        assert len(server.dialled) == 1


async def test_a_redirect_says_where_to(server: Server, nursery: trio.Nursery) -> None:
    async with sending(server, batch_of(1), nursery) as one:
        await server.answer(0, "301 Moved Permanently", "Location: https://as.example.net/lora/in?key=s3cr3t")
        assert one.receipts.rejected_ == {
            0: "301 Moved Permanently: redirected to https://as.example.net/lora/in; "
            "put the final URL into destinationURL"
        }


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        ("404 Not Found", "is the path of destinationURL right"),
        ("302 Found", "does destinationURL hold the final URL"),
        ("500 Internal Server Error", "the server's own log"),
        ("422 Unprocessable Content", "sendMetadata"),
    ],
)
async def test_what_is_given_up_says_what_to_look_at(
    answer: str, hint: str, server: Server, nursery: trio.Nursery
) -> None:
    batch = [outgoing(0), outgoing(1)]
    async with sending(server, batch_of(1), nursery) as one:
        await server.answer(0, answer)
        assert hint in (one.receipts.hints[0] or "")
    async with sending(server, batch, nursery, headers={"X-Thing": "{DevEui}"}) as one:
        assert one.receipts.hints == dict.fromkeys(range(2), "did you mean {DevEUI}?")


async def test_no_secret_shows_in_an_error(server: Server, nursery: trio.Nursery) -> None:
    headers = {"Authorization": "Bearer s3cr3t-t0ken", "X-Sign": "s3cr3t-salt/{DevEUI}"}
    url = URL + "?key=s3cr3t-key"
    async with sending(server, batch_of(1), nursery, destinationURL=url, headers=headers) as one:
        echo = "bad: ?key=s3cr3t-key, Bearer s3cr3t-t0ken, s3cr3t-salt/70B3D5E75E00A1C4"
        await server.answer(0, "401 Unauthorized", body=echo)
        assert str(one.error) == f"{URL}: 401 Unauthorized: bad: ?key=*****, Bearer *****, *****70B3D5E75E00A1C4"


async def test_no_secret_shows_when_a_server_repeats_the_target(server: Server, nursery: trio.Nursery) -> None:
    async with sending(server, batch_of(1), nursery, destinationURL=URL + "?sig=s3cr3t%2Fkey%3D&site=north") as one:
        await server.answer(0, "404 Not Found", body="no route for /lora/in?sig=s3cr3t%2Fkey%3D, sig s3cr3t/key=")
        assert one.receipts.rejected_ == {0: "404 Not Found: no route for /lora/in?sig=*****, sig *****"}


async def test_an_uplink_without_a_named_field_is_a_dead_letter_and_not_posted(
    server: Server, nursery: trio.Nursery
) -> None:
    batch = [outgoing(0), outgoing(1, CustomerData={"name": "Kühlraum"})]
    async with sending(server, batch, nursery, headers={"X-Name": "{CustomerData.name}"}) as one:
        await server.answer(0, "200 OK")
        assert list(one.receipts.rejected_) == [0]
        assert "CustomerData.name" in one.receipts.rejected_[0]
        assert one.receipts.delivered_ == [1]
    assert server.bodies() == [b'{"n":1}']
    assert b"X-Name: K\xfchlraum\r\n" in server.requests[0]


async def test_a_header_that_becomes_too_long_is_a_dead_letter_without_its_pattern(
    server: Server, nursery: trio.Nursery
) -> None:
    batch = [outgoing(0, Long="x" * 65_536)]
    async with sending(server, batch, nursery, headers={"X-Name": "s3cr3t{Long}"}) as one:
        assert one.receipts.rejected_ == {0: "the uplink makes a header too long"}
        assert one.ended.is_set()
    assert server.requests == []


async def test_a_tls_setting_that_does_not_load_any_more_is_told_at_opening(server: Server) -> None:
    def refuse(**texts: object) -> ssl.SSLContext:
        raise ValueError("the private key does not belong to the certificate")

    good = server.context
    broken = replace(good, tls=refuse)
    opening = open_http(config(destinationURL="https://as.example.net/"), broken)
    with pytest.raises(ConnectFailed, match="does not belong"):
        await opening.__aenter__()


async def test_https_with_a_client_certificate_against_a_real_server(nursery: trio.Nursery, tmp_path: Path) -> None:
    identity = pki.server("localhost")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=pki.ca().certificate)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(*identity.write(tmp_path, "server"))
    seen: list[Request] = []
    dialled: list[Endpoint] = []

    async def dial(endpoint: Endpoint, timeout_s: float) -> trio.abc.Stream:
        dialled.append(endpoint)
        return await open_stream(endpoint, timeout_s)

    async def respond(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        seen.append(request)
        return Response(204)

    (address,) = await nursery.start(
        lambda task_status: serve_http("127.0.0.1:0", respond, tls=tls, task_status=task_status)
    )
    here = context(dial=dial, proven=lambda: False)
    url = f"https://localhost:{address.rpartition(':')[2]}/in?a=b"
    receipts = Receipts()
    async with open_http(config(destinationURL=url, trustedCaCertificate=pki.ca().certificate, **CLIENT), here) as way:
        await way.send(batch_of(30), receipts)
    assert sorted(receipts.delivered_) == list(range(30))
    assert len(dialled) <= len(LANES)
    assert {(request.method, request.path, request.query) for request in seen} == {("POST", "/in", "a=b")}
    for lane in range(len(LANES)):
        of_lane = [request.body for request in seen if int(request.body[5:-1]) % len(LANES) == lane]
        assert of_lane == [b'{"n":%d}' % number for number in range(lane, 30, len(LANES))]
    nursery.cancel_scope.cancel()


async def test_compliance_adds_what_the_lrc_would(server: Server) -> None:
    key = "7d1e9a40c3b85f2206e4d7913ab6f85c"
    compliant = config(
        destinationURL="http://as.example.net/in?site=4",
        lrcCompliance=True,
        tunnelInterfaceAuthenticationKey=key,
        downlinkAsId="TWA_100009421.77.AS",
    )
    async with open_http(compliant, server.context) as way, trio.open_nursery() as nursery:
        nursery.start_soon(way.send, batch_of(1), Receipts())
        await wait_all_tasks_blocked()
        await server.answer(0, "200 OK")
    target = server.requests[0].split(b" ")[1].decode()
    assert target.startswith("/in?site=4&LrnDevEui=")
    assert [pair.partition("=")[0] for pair in target.partition("?")[2].split("&")][-1] == "Token"
