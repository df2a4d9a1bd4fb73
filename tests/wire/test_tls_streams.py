"""Opening TLS streams on loopback: each way in which certificates do not fit is told."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.peers import pki
from tests.wire.loopback import CONTEXTS, Names, echo, echo_server, failing, trusting
from tpxd.wire.next_steps import NextStep
from tpxd.wire.streams import Endpoint, explain, open_stream


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
        assert hint == NextStep.CLIENT_CERTIFICATE
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
        assert "client certificate" in hint


@pytest.mark.parametrize(
    ("identity", "ca", "reason", "hint"),
    [
        (
            pki.server("127.0.0.1"),
            pki.issue("Other CA", is_ca=True),
            "was not issued by the CA that is set",
            "trust the CA",
        ),
        (pki.issue("127.0.0.1"), pki.ca(), "was not issued by the CA that is set", "trust the CA"),
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
        assert "trust " in hint


async def test_the_system_trusts_no_certificate_that_signed_itself(tls_server: Any) -> None:
    async with echo_server(tls_server(pki.issue("127.0.0.1"))) as port:
        message, hint = await failing(Endpoint("127.0.0.1", port, CONTEXTS()))
        assert "is self-signed and not trusted" in message
        assert "trust " in hint


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
