"""The broker's side of an AMQP link, spoken method by method by a test, with pamqp's own coder and decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import trio
from pamqp import frame
from pamqp.base import Frame as Method
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Confirm, Connection
from pamqp.header import ContentHeader, ProtocolHeader
from pamqp.heartbeat import Heartbeat

M = TypeVar("M")

GREETING = b"AMQP\0\0\x09\x01"


@dataclass(frozen=True, slots=True)
class Published:
    """One message that the client published."""

    exchange: str
    routing_key: str
    body: bytes
    mandatory: bool
    properties: Basic.Properties


def start(mechanisms: str = "PLAIN EXTERNAL", **values: int) -> Connection.Start:
    return Connection.Start(server_properties={"product": "Scripted"}, mechanisms=mechanisms, locales="en_US", **values)


def on(channel: int, *frames: frame.FrameTypes) -> bytes:
    """These frames on this channel, as bytes."""
    return b"".join(frame.marshal(value, channel) for value in frames)


def ack(tag: int, *, multiple: bool = False) -> bytes:
    return on(1, Basic.Ack(tag, multiple))


def nack(tag: int, *, multiple: bool = False) -> bytes:
    return on(1, Basic.Nack(tag, multiple, requeue=False))


def returned(message: Published, code: int = 312, text: str = "NO_ROUTE") -> bytes:
    """The message sent back, as the exchange routes it nowhere."""
    method = Basic.Return(code, text, message.exchange, message.routing_key)
    return on(1, method, ContentHeader(0, len(message.body), message.properties), ContentBody(message.body))


def deliver(tag: int, routing_key: str, body: bytes, *, redelivered: bool = False) -> bytes:
    """A message for the consumer, in one body or in none."""
    bodies = [ContentBody(body)] if body else []
    return on(2, Basic.Deliver("tpxd", tag, redelivered, "x", routing_key), ContentHeader(0, len(body)), *bodies)


def closed_channel(code: int, text: str, channel: int) -> bytes:
    return on(channel, Channel.Close(code, text, 0, 0))


class ScriptedRabbit:
    """Reads what the client sends, and says what the test says."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._buffer = b""

    async def next(self) -> tuple[int, frame.FrameTypes]:
        """The client's next frame and its channel."""
        while True:
            kind, _, size = frame.frame_parts(self._buffer)
            # a protocol header has 8 bytes; AMQ read as a kind and a channel gives 65
            whole = 8 if kind == 65 else 8 + (size or 0)
            if len(self._buffer) >= 8 and len(self._buffer) >= whole:
                used, channel, value = frame.unmarshal(self._buffer[:whole])
                assert used == whole
                self._buffer = self._buffer[whole:]
                return channel, value
            data = await self.stream.receive_some()
            assert data, "the client closed the link"
            self._buffer += data

    async def expect(self, kind: type[M], channel: int | None = None) -> M:
        """The client's next frame, which must be of this class; a heartbeat may come before any."""
        came_on, value = await self.next()
        while isinstance(value, Heartbeat) and kind is not Heartbeat:
            came_on, value = await self.next()
        assert isinstance(value, kind), value
        assert channel in (None, came_on)
        return value

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def say(self, channel: int, *frames: frame.FrameTypes) -> None:
        await self.send(on(channel, *frames))

    async def greet(self, greeting: Connection.Start | None = None) -> Connection.StartOk:
        """Take the protocol header, and say Start; returns the client's credentials."""
        await self.expect(ProtocolHeader)
        await self.say(0, greeting or start())
        return await self.expect(Connection.StartOk, 0)

    async def tune(self, channel_max: int = 2047, frame_max: int = 131_072, heartbeat: int = 60) -> Connection.TuneOk:
        """Offer limits; returns those that the client takes, after which it asks for its virtual host."""
        await self.say(0, Connection.Tune(channel_max, frame_max, heartbeat))
        return await self.expect(Connection.TuneOk, 0)

    async def accept(self, frame_max: int = 131_072, heartbeat: int = 60) -> Connection.StartOk:
        """Let the client in; returns its credentials."""
        credentials = await self.greet()
        await self.tune(frame_max=frame_max, heartbeat=heartbeat)
        await self.expect(Connection.Open, 0)
        await self.say(0, Connection.OpenOk())
        await self.expect(Channel.Open, 1)
        await self.expect(Confirm.Select, 1)
        await self.say(1, Channel.OpenOk(), Confirm.SelectOk())
        return credentials

    async def grant(self, kind: type[Method], answer: Method) -> Method:
        """Answer the client's next question on the second channel, which is opened before it where that is asked."""
        channel, question = await self.next()
        if isinstance(question, Channel.Open):
            await self.say(channel, Channel.OpenOk())
            channel, question = await self.next()
        assert isinstance(question, kind), question
        await self.say(channel, answer)
        return question

    async def expect_publish(self) -> Published:
        """The client's next message."""
        method = await self.expect(Basic.Publish, 1)
        header = await self.expect(ContentHeader, 1)
        body = await self._expect_body(header)
        return Published(method.exchange, method.routing_key, body, method.mandatory, header.properties)

    async def expect_content(self) -> bytes:
        """What follows a Basic.Publish: the body of the message."""
        return await self._expect_body(await self.expect(ContentHeader, 1))

    async def _expect_body(self, header: ContentHeader) -> bytes:
        body = b""
        while len(body) < header.body_size:
            body += (await self.expect(ContentBody, 1)).value
        return body

    async def goodbye(self) -> None:
        """Take the client's Connection.Close and let it go."""
        assert (await self.expect(Connection.Close, 0)).reply_code == 200
        await self.say(0, Connection.CloseOk())
        await self.ended()

    async def ended(self) -> None:
        """Wait until the client has closed, having said nothing more."""
        assert not self._buffer
        assert not await self.stream.receive_some()
