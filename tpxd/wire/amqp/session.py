"""An AMQP session over a byte stream: the tasks around `amqp.AmqpClient`, which makes all decisions.

A `BrokerLink` reads, writes and keeps the link alive.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from tpxd.errors import ConnectFailed, LinkLost, RemoteViolation
from tpxd.wire.amqp.client import CONSUMING, AmqpClient
from tpxd.wire.amqp.codec import Basic, Channel, Method
from tpxd.wire.amqp.content import (
    Answer,
    ChannelClosed,
    Closed,
    ConsumerCancelled,
    Delivery,
    Event,
    FlowChanged,
    Opened,
    Refusal,
    Settled,
)
from tpxd.wire.amqp.login import AmqpOptions, State
from tpxd.wire.broker_link import MESSAGE_BYTES, READ_BYTES, BrokerLink
from tpxd.wire.next_steps import NextStep

# messages that the broker may send before we acknowledge the first of them
PREFETCH = 32

# by reply code
_CHANNEL_HINTS = {
    403: "this user must have the right to write to the exchange, by this routing key, and to read from the queue",
    404: "was the exchange or the queue deleted? what is missing is made when the connection opens again",
}


@dataclass(slots=True)
class Message:
    """One message to publish, see `AmqpClient.publish`. Not frozen: one is made per uplink."""

    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    timestamp_s: int


@dataclass(slots=True, eq=False)
class _Flight:
    """The messages of one `publish_all` that are under way."""

    delivered: Callable[[int], None]
    refused: Callable[[int, Refusal], None]
    last_receipt: float
    under_way: int = 0
    abandoned: bool = False

    def settle(self, index: int, refusal: Refusal | None, now: float) -> None:
        if self.abandoned:
            return
        self.under_way -= 1
        self.last_receipt = now
        if refusal is None:
            self.delivered(index)
        else:
            self.refused(index, refusal)


@dataclass(slots=True, eq=False)
class _Question:
    """A question under way; its answer, or what the broker said when it closed the channel on it."""

    answered: trio.Event = field(default_factory=trio.Event)
    answer: Method | ChannelClosed | None = None


class AmqpSession:
    """What the body of `open_amqp` speaks through.

    Several tasks may publish at once; one task may `ask`. Once the broker delivers, a refusal ends the link, since it
    ends the deliveries too.
    """

    def __init__(self, stream: trio.abc.Stream, options: AmqpOptions) -> None:
        self._stream = stream
        self._options = options
        self._core = AmqpClient(options, trio.current_time())
        self._opened = trio.Event()
        self._link = BrokerLink(
            stream,
            self._core,
            self._dispatch,
            self._core.ended,
            messages=Delivery,
            unread_bytes=PREFETCH * (options.max_incoming_bytes + MESSAGE_BYTES),
            no_room=_too_many,
        )
        self._flights: dict[int, tuple[_Flight, int]] = {}
        self._settled = trio.lowlevel.ParkingLot()
        self._questions: dict[int, _Question] = {}
        self._consuming = False

    # ---- messages

    async def publish_all(
        self,
        messages: Sequence[Message],
        delivered: Callable[[int], None],
        refused: Callable[[int, Refusal], None],
        *,
        receipt_timeout_s: float,
    ) -> None:
        """Publish in order and return when the broker has confirmed or refused each message.

        Args:
            delivered: called with a message's index when its own confirmation came. It must not block nor raise.
            refused: the same for one that the broker could not take, or routed nowhere.
            receipt_timeout_s: how long to wait while no confirmation at all comes, also while the broker wants none
                of our messages (Connection.Blocked).

        Raises:
            LinkLost: the link or its channel ended, or the confirmations stay away; what was not reported may or may
                not have arrived.

        Cancellation: what is queued is still sent, nothing is reported any more, the link stays usable.
        """
        flight = _Flight(delivered, refused, trio.current_time())
        queued = 0
        try:
            while queued < len(messages) or flight.under_way:
                room = 0 if self._core.blocked else self._options.window - len(self._flights)
                for message in messages[queued : queued + max(room, 0)]:
                    self._publish(message, flight, queued)
                    queued += 1
                self._link.wake()
                await self._next_receipt(flight, receipt_timeout_s)
        finally:
            flight.abandoned = True

    def _publish(self, message: Message, flight: _Flight, index: int) -> None:
        tag = self._core.publish(
            message.exchange, message.routing_key, message.body, message.message_id, message.timestamp_s
        )
        flight.under_way += 1
        self._flights[tag] = flight, index

    async def _next_receipt(self, flight: _Flight, timeout_s: float) -> None:
        with trio.move_on_at(flight.last_receipt + timeout_s):
            await self._settled.park()
            return
        if self._core.blocked:
            raise LinkLost(
                f"the broker takes no messages for {timeout_s:g} s: {self._core.blocked}",
                hint="free what it lacks, such as memory or disk; its log tells",
            )
        raise LinkLost(
            f"the broker confirmed nothing for {timeout_s:g} s",
            hint=NextStep.BROKER_TIME,
        )

    async def receive(self) -> Delivery:
        """Wait for the next message from the broker; each goes to one caller."""
        return await self._link.receive()

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that the message is ours now."""
        self._core.acknowledge(delivery.tag)
        self._link.wake()

    def reject(self, delivery: Delivery) -> None:
        """Tell the broker that nobody wants this message."""
        self._core.reject(delivery.tag)
        self._link.wake()

    async def ask(self, method: Method) -> Method | ChannelClosed:
        """Ask on the channel for declarations and deliveries, which is opened where it is not.

        Returns:
            the broker's answer; or, where it refused, its closing of the channel, after which it may be asked again.

        Raises:
            LinkLost: the link ended, or no answer came in time.

        Cancellation: the broker may or may not have done it.
        """
        if not self._core.is_open(CONSUMING):
            opened = await self._answer_to(Channel.Open())
            if isinstance(opened, ChannelClosed):
                return opened
        return await self._answer_to(method)

    async def _answer_to(self, method: Method) -> Method | ChannelClosed:
        question = self._questions[self._core.ask(method)] = _Question()
        self._link.wake()
        with trio.move_on_after(self._options.answer_timeout_s):
            await question.answered.wait()
        if question.answer is None:
            raise LinkLost(f"the broker did not answer {method.name} within {self._options.answer_timeout_s:g} s")
        return question.answer

    # ---- what the link asks for

    def _dispatch(self, event: Event, now: float) -> None:
        match event:
            case Settled():
                for tag in event.tags:
                    flight, index = self._flights.pop(tag)
                    flight.settle(index, event.refusal, now)
                self._settled.unpark_all()
            case FlowChanged():
                self._settled.unpark_all()
            case Answer():
                self._consuming |= isinstance(event.method, Basic.ConsumeOk)
                self._answered(event.question, event.method)
            case ChannelClosed():
                if self._consuming or not event.questions:
                    hint = _CHANNEL_HINTS.get(event.code)
                    raise LinkLost(f"the broker closed the channel: {event.reason}", hint=hint)
                for question in event.questions:
                    self._answered(question, event)
            case ConsumerCancelled():
                raise LinkLost("the broker cancelled the consumer", hint="was the queue of the commands deleted?")
            case Closed():
                raise event.error
            case Opened():
                self._opened.set()

    def _answered(self, number: int, answer: Method | ChannelClosed) -> None:
        question = self._questions.pop(number)
        question.answer = answer
        question.answered.set()

    async def _connected_in_time(self) -> None:
        with trio.move_on_after(self._options.connect_timeout_s):
            await self._opened.wait()
            return
        raise ConnectFailed(
            f"the broker did not let us in within {self._options.connect_timeout_s:.3g} s",
            hint="is this the port of an AMQP broker, and is it alive?",
        )

    async def _say_goodbye(self) -> None:
        """Connection.Close, or the answer to the broker's own."""
        if self._core.state is State.CONNECTED:
            self._core.disconnect()
        elif self._core.state is not State.CLOSED:
            return
        await self._link.send()
        await self._await_end()

    async def _await_end(self) -> None:
        while self._core.state is State.CLOSING and (data := await self._stream.receive_some(READ_BYTES)):
            self._core.receive_data(data, trio.current_time())


def _too_many(delivery: Delivery) -> None:
    raise RemoteViolation("more deliveries than may be without an answer")


@asynccontextmanager
async def open_amqp(stream: trio.abc.Stream, options: AmqpOptions) -> AsyncIterator[AmqpSession]:
    """Speak AMQP over the stream while the block lasts; the stream is closed in any case.

    Raises:
        ConnectFailed: no broker, or one that does not let us in; a refused client certificate also shows here.
        AuthenticationFailed: the broker refuses the credentials, or ends the connection on them.
        LinkLost: the link ended while the block ran; the block is cancelled and this leaves it.

    Cancellation: where the link allows it, Connection.Close is sent and its answer awaited, within
        `broker_link.GOODBYE_S`.
    """
    session = AmqpSession(stream, options)
    async with session._link.open(session._connected_in_time, session._say_goodbye):
        yield session
