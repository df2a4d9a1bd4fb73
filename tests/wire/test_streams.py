"""Opening streams on loopback: each phase can fail, and says so."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests import pki
from tests.mosquitto import free_port
from tpxd.errors import ConnectFailed, LinkLost
from tpxd.wire.streams import Endpoint, explain, one_error, open_stream
from tpxd.wire.tls import TlsContextCache

CONTEXTS = TlsContextCache()


class Names(trio.abc.HostnameResolver):
    """Resolves every name to loopback, or fails as told."""

    def __init__(self, error: int | None = None, *, hang: bool = False) -> None:
        self.error, self.hang = error, hang

    async def getaddrinfo(self, host: Any, port: Any, *_: int, **__: int) -> Any:
        if self.hang:
            await trio.sleep_forever()
        if self.error is not None:
            raise socket.gaierror(self.error, "as told")
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise AssertionError("nobody asks")


@asynccontextmanager
async def echo_server(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Sends back what it reads; yields its port."""

    async def serve(stream: trio.abc.Stream) -> None:
        if context is not None:
            stream = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            while data := await stream.receive_some():
                await stream.send_all(data)
        except trio.BrokenResourceError:
            # the client under test refused us, or was refused
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def refusing_server(context: ssl.SSLContext) -> AsyncIterator[int]:
    """Takes one client, whose handshake must fail, in a thread: trio's own server says no alert when it gives up."""

    def refuse(listener: socket.socket) -> None:
        stream, _ = listener.accept()
        with stream, pytest.raises(ssl.SSLError):
            context.wrap_socket(stream, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, refuse, listener)
            yield listener.getsockname()[1]


@pytest.fixture
def tls_server(tmp_path: Path) -> Any:
    """A function that makes the server's side of TLS for an identity."""

    def make(identity: pki.Identity, *, client_required: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*identity.write(tmp_path, "server"))
        if client_required:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=pki.ca().certificate)
        return context

    return make


def trusting(*, ca: pki.Identity | None = None, client: pki.Identity | None = None) -> ssl.SSLContext:
    return CONTEXTS(
        ca=(ca or pki.ca()).certificate,
        certificate=client.certificate if client else None,
        private_key=client.private_key if client else None,
    )


async def echo(stream: trio.abc.Stream, text: bytes) -> bytes:
    await stream.send_all(text)
    return bytes(await stream.receive_some())


async def failing(endpoint: Endpoint, timeout_s: float = 5) -> tuple[str, str]:
    """The message and the hint with which this endpoint cannot be opened."""
    with pytest.raises(ConnectFailed) as caught:
        await open_stream(endpoint, timeout_s)
    assert caught.value.hint, caught.value
    message = str(caught.value)
    assert message.startswith(f"{endpoint}: ")
    assert "\n" not in message
    return message, caught.value.hint


def test_an_endpoint_as_text() -> None:
    assert str(Endpoint("broker.example.net", 1883)) == "broker.example.net:1883"
    assert str(Endpoint("2001:db8::1", 1883)) == "[2001:db8::1]:1883"


# ---- name look-up and TCP


async def test_tcp() -> None:
    async with echo_server() as port:
        stream = await open_stream(Endpoint("127.0.0.1", port), 5)
        assert isinstance(stream, trio.SocketStream)
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert await echo(stream, b"hello") == b"hello"
        await stream.aclose()


async def test_refused() -> None:
    port = free_port()
    message, hint = await failing(Endpoint("127.0.0.1", port))
    assert message == f"127.0.0.1:{port}: connection refused (TCP)"
    assert hint == "is the server running there, and is the port right?"


@pytest.mark.parametrize(
    ("error", "reason"), [(socket.EAI_NONAME, "name not found"), (socket.EAI_AGAIN, "the name server does not answer")]
)
async def test_names(error: int, reason: str) -> None:
    trio.socket.set_custom_hostname_resolver(Names(error))
    message, _ = await failing(Endpoint("broker.example.net", 1883))
    assert message == f"broker.example.net:1883: {reason} (name look-up)"


async def test_a_name_that_cannot_be() -> None:
    message, _ = await failing(Endpoint("a" * 64 + ".example", 1883))
    assert "no valid host name (name look-up)" in message


async def test_time_is_up_in_each_phase(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint("broker.example.net", 8883, trusting())
    trio.socket.set_custom_hostname_resolver(Names(hang=True))
    assert (await failing(endpoint))[0].endswith("no answer within 5 s (name look-up)")

    trio.socket.set_custom_hostname_resolver(Names())

    async def silent(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", silent)
    assert (await failing(endpoint, 0.5))[0].endswith("no answer within 0.5 s (TCP)")

    near, far = memory_stream_pair()

    async def connected(*_: object) -> trio.abc.Stream:
        return near

    monkeypatch.setattr(trio, "open_tcp_stream", connected)
    begun = trio.current_time()
    assert (await failing(endpoint))[0].endswith("no answer within 5 s (TLS handshake)")
    assert trio.current_time() - begun == pytest.approx(5)
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"x")
    await far.aclose()


async def test_of_several_addresses_the_telling_one(monkeypatch: pytest.MonkeyPatch) -> None:
    unreachable = OSError(errno.ENETUNREACH, "Network is unreachable")
    refused = OSError(errno.ECONNREFUSED, "Connection refused")
    causes: list[BaseException] = [ExceptionGroup("attempts", [unreachable, refused]), unreachable]

    async def failing_to_connect(*_: object) -> None:
        raise OSError("all attempts failed") from causes.pop(0)

    monkeypatch.setattr(trio, "open_tcp_stream", failing_to_connect)
    assert (await failing(Endpoint("127.0.0.1", 1)))[0].endswith("connection refused (TCP)")
    assert (await failing(Endpoint("127.0.0.1", 1)))[0].endswith("network is unreachable (TCP)")


# ---- TLS


async def test_tls_with_a_private_ca(tls_server: Any) -> None:
    trio.socket.set_custom_hostname_resolver(Names())
    async with echo_server(tls_server(pki.server())) as port:
        for endpoint in (
            Endpoint("localhost", port, trusting()),
            Endpoint("127.0.0.1", port, trusting(), server_name="localhost"),
        ):
            stream = await open_stream(endpoint, 5)
            assert await echo(stream, b"hello") == b"hello"
            await stream.aclose()


async def test_tls_with_a_client_certificate(tls_server: Any) -> None:
    async with echo_server(tls_server(pki.server("127.0.0.1"), client_required=True)) as port:
        stream = await open_stream(Endpoint("127.0.0.1", port, trusting(client=pki.client())), 5)
        assert await echo(stream, b"hello") == b"hello"
        await stream.aclose()


async def test_a_missing_client_certificate_shows_at_the_first_read(tls_server: Any) -> None:
    async with refusing_server(tls_server(pki.server("127.0.0.1"), client_required=True)) as port:
        stream = await open_stream(Endpoint("127.0.0.1", port, trusting()), 5)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.receive_some()
        reason, hint = explain(caught.value)
        assert reason == "the server asks for a client certificate"
        assert hint == "set certificate and privateKey"
        await trio.aclose_forcefully(stream)


async def test_a_client_certificate_of_another_ca(tls_server: Any) -> None:
    stranger = pki.issue("stranger", pki.issue("Other CA", is_ca=True), client=True)
    async with refusing_server(tls_server(pki.server("127.0.0.1"), client_required=True)) as port:
        stream = await open_stream(Endpoint("127.0.0.1", port, trusting(client=stranger)), 5)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.receive_some()
        assert explain(caught.value)[0] == "the server does not trust the CA of our client certificate"
        await trio.aclose_forcefully(stream)


async def test_a_missing_client_certificate_in_tls_1_2(tls_server: Any) -> None:
    context = tls_server(pki.server("127.0.0.1"), client_required=True)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with refusing_server(context) as port:
        message, hint = await failing(Endpoint("127.0.0.1", port, trusting()))
        assert "(TLS handshake)" in message
        assert "certificate and privateKey" in hint


@pytest.mark.parametrize(
    ("identity", "ca", "reason", "hint"),
    [
        (
            pki.server("127.0.0.1"),
            pki.issue("Other CA", is_ca=True),
            "a CA that is not trusted",
            "trustedCaCertificate",
        ),
        (pki.issue("127.0.0.1"), pki.ca(), "self-signed and not trusted", "trustedCaCertificate"),
        (pki.issue("127.0.0.1", pki.ca(), expires=pki.NOW - timedelta(days=1)), pki.ca(), "has expired", "renew"),
        (pki.server("broker.example.net"), pki.ca(), "made out to another address", "name in the certificate"),
    ],
)
async def test_server_certificates(
    identity: pki.Identity, ca: pki.Identity, reason: str, hint: str, tls_server: Any
) -> None:
    async with echo_server(tls_server(identity)) as port:
        message, next_step = await failing(Endpoint("127.0.0.1", port, trusting(ca=ca)))
        assert "the server's certificate" in message
        assert reason in message
        assert message.endswith("(TLS handshake)")
        assert hint in next_step


async def test_the_name_is_checked(tls_server: Any) -> None:
    trio.socket.set_custom_hostname_resolver(Names())
    async with echo_server(tls_server(pki.server())) as port:
        message, _ = await failing(Endpoint("broker.example.net", port, trusting()))
        assert "made out to another name" in message
        assert "broker.example.net" in message


async def test_the_system_trusts_no_private_ca(tls_server: Any) -> None:
    async with echo_server(tls_server(pki.server("127.0.0.1"))) as port:
        message, hint = await failing(Endpoint("127.0.0.1", port, CONTEXTS()))
        assert "a CA that is not trusted" in message
        assert "trustedCaCertificate" in hint


async def test_a_self_signed_certificate_may_be_trusted_itself(tls_server: Any) -> None:
    identity = pki.issue("127.0.0.1")
    async with echo_server(tls_server(identity)) as port:
        stream = await open_stream(Endpoint("127.0.0.1", port, trusting(ca=identity)), 5)
        assert await echo(stream, b"hello") == b"hello"
        await stream.aclose()


async def test_no_tls_on_this_port() -> None:
    async with echo_server() as port:
        message, _ = await failing(Endpoint("127.0.0.1", port, trusting()))
        assert "(TLS handshake)" in message


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "asks for a client certificate"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "refused the handshake"),
        ("TLSV1_ALERT_UNKNOWN_CA", "does not trust the CA"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "client certificate has expired"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "no TLS 1.2"),
        ("WRONG_VERSION_NUMBER", "does not speak TLS"),
        ("SOMETHING_NEW", "TLS failed: something new"),
        (None, "no reason given"),
    ],
)
def test_alerts(reason: str | None, text: str) -> None:
    error = ssl.SSLError(1, "as told")
    error.reason = reason  # type: ignore[assignment]
    broken = trio.BrokenResourceError()
    broken.__cause__ = error
    assert text in explain(broken)[0]


def test_ends_without_a_reason() -> None:
    assert explain(trio.BrokenResourceError()) == ("the far end closed the connection", None)
    assert explain(ssl.SSLEOFError(8, "EOF"))[0] == "the far end closed the connection"
    assert explain(OSError(errno.ECONNRESET, "x"))[0] == "connection reset by peer"


# ---- one error out of a nursery


LOST, ALSO_LOST, BUG = LinkLost("lost"), LinkLost("also lost"), KeyError("bug")


@pytest.mark.parametrize(
    ("errors", "expected"),
    [([LOST], LOST), ([LOST, ALSO_LOST], LOST), ([BUG], BUG), ([LOST, BUG], BUG)],
)
def test_one_error(errors: list[Exception], expected: Exception) -> None:
    with pytest.raises(type(expected)) as caught, one_error():
        raise ExceptionGroup("nursery", [ExceptionGroup("inner", errors)])
    assert caught.value is expected


def test_several_bugs_stay_together() -> None:
    with pytest.raises(ExceptionGroup) as caught, one_error():
        raise ExceptionGroup("nursery", [BUG, LOST, ValueError("another")])
    assert len(caught.value.exceptions) == 3


async def test_being_cancelled_outweighs_a_lost_link() -> None:
    async def lose() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LOST

    with trio.CancelScope() as scope, one_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose)
            nursery.start_soon(trio.sleep_forever)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
