"""What the sessions of both broker protocols owe to their link: how it ends, and that its stream is closed."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.wire.scripted_broker import ScriptedBroker
from tests.wire.scripted_rabbit import ScriptedRabbit
from tpxd.errors import ConnectFailed, LinkLost
from tpxd.wire.amqp.login import AmqpOptions
from tpxd.wire.amqp.session import AmqpSession, open_amqp
from tpxd.wire.amqp.session import Message as AmqpMessage
from tpxd.wire.mqtt.client import MqttOptions
from tpxd.wire.mqtt.session import Message as MqttMessage
from tpxd.wire.mqtt.session import MqttSession, open_mqtt
from tpxd.wire.next_steps import NextStep


class Protocol(ABC):
    """Both ends of a link."""

    @abstractmethod
    def open(self, stream: trio.abc.Stream) -> AbstractAsyncContextManager[Any]:
        """Our end."""

    @abstractmethod
    async def publish(self, session: Any, *, receipt_timeout_s: float) -> None:
        """Send one message and wait for its receipt."""

    @abstractmethod
    async def accept(self, stream: trio.abc.Stream) -> None:
        """The broker lets the client in."""

    @abstractmethod
    async def accept_and_part(self, stream: trio.abc.Stream) -> None:
        """The broker lets the client in, and waits for its goodbye."""


class Mqtt(Protocol):
    def open(self, stream: trio.abc.Stream) -> AbstractAsyncContextManager[MqttSession]:
        return open_mqtt(stream, MqttOptions("tpxd-1"))

    async def publish(self, session: MqttSession, *, receipt_timeout_s: float) -> None:
        await session.publish_all([MqttMessage("t", b"x")], lambda _: None, receipt_timeout_s=receipt_timeout_s)

    async def accept(self, stream: trio.abc.Stream) -> None:
        await ScriptedBroker(stream).accept()

    async def accept_and_part(self, stream: trio.abc.Stream) -> None:
        broker = ScriptedBroker(stream)
        await broker.accept()
        await broker.expect("DISCONNECT")
        await broker.ended()


class Amqp(Protocol):
    def open(self, stream: trio.abc.Stream) -> AbstractAsyncContextManager[AmqpSession]:
        return open_amqp(stream, AmqpOptions("tpxd-1", username="tpx", password="p"))

    async def publish(self, session: AmqpSession, *, receipt_timeout_s: float) -> None:
        message = AmqpMessage("x", "k", b"x", "1-x", 1)
        await session.publish_all([message], lambda _: None, lambda *_: None, receipt_timeout_s=receipt_timeout_s)

    async def accept(self, stream: trio.abc.Stream) -> None:
        await ScriptedRabbit(stream).accept()

    async def accept_and_part(self, stream: trio.abc.Stream) -> None:
        broker = ScriptedRabbit(stream)
        await broker.accept()
        await broker.goodbye()


pytestmark = pytest.mark.parametrize("protocol", [Mqtt(), Amqp()], ids=["mqtt", "amqp"])


async def test_goodbye_also_when_cancelled(protocol: Protocol) -> None:
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(protocol.accept_and_part, far)
        with trio.CancelScope() as scope:
            async with protocol.open(near):
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught


async def test_what_the_body_raises_leaves_as_it_is(protocol: Protocol) -> None:
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(protocol.accept_and_part, far)
        with pytest.raises(KeyError, match="bug"):
            async with protocol.open(near):
                raise KeyError("bug")


async def test_a_broker_that_reads_nothing_any_more(protocol: Protocol, autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()

    async def body() -> None:
        async with protocol.open(near) as session:
            near.send_stream.send_all_hook = trio.sleep_forever
            await protocol.publish(session, receipt_timeout_s=7)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(protocol.accept, far)
        with pytest.raises(LinkLost, match=r"(acknowledged|confirmed) nothing for 7 s"):
            await body()


async def test_the_reader_tells_why_the_writer_failed(protocol: Protocol, autojump_clock: MockClock) -> None:
    """TLS 1.3: the server's word about our certificate comes after the handshake, and writing may fail first."""
    near, far = memory_stream_pair()

    async def broken() -> None:
        raise trio.BrokenResourceError

    async def refused() -> None:
        await trio.sleep(0.1)
        alert = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required")
        alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
        raise trio.BrokenResourceError from alert

    near.send_stream.send_all_hook = broken
    near.receive_stream.receive_some_hook = refused
    with pytest.raises(ConnectFailed, match="the server asks for a client certificate") as caught:
        async with protocol.open(near):
            pytest.fail("opened")
    assert caught.value.hint == NextStep.CLIENT_CERTIFICATE
    await far.aclose()


async def test_the_stream_is_closed_in_any_case(protocol: Protocol) -> None:
    near, far = memory_stream_pair()
    await far.aclose()
    with pytest.raises(ConnectFailed):
        async with protocol.open(near):
            pytest.fail("opened")
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"x")


async def test_no_goodbye_follows_half_a_packet(protocol: Protocol, autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    begun = 0

    async def stuck() -> None:
        nonlocal begun
        begun += 1
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(protocol.accept, far)
        with trio.move_on_after(1):
            async with protocol.open(near) as session:
                near.send_stream.send_all_hook = stuck
                await protocol.publish(session, receipt_timeout_s=7)
    assert begun == 1
