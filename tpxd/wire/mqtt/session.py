"""An MQTT session over a byte stream: the tasks around `mqtt.MqttClient`, which makes all decisions.

A `BrokerLink` reads, writes and keeps the link alive.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from tpxd.errors import ConnectFailed, LinkLost, Refused
from tpxd.wire.broker_link import BrokerLink
from tpxd.wire.mqtt.client import MqttClient, MqttOptions, QoS, State
from tpxd.wire.mqtt.codec import ConnAck, Packet, PubAck, Publish, SubAck, UnsubAck
from tpxd.wire.next_steps import NextStep

UNREAD_BYTES = 4 << 20
"""How much of what the broker sent may wait to be received."""
WHY_NO_CONNACK = "does this port want TLS? does it accept this client id, user name and MQTT 3.1.1? its log may tell"
"""The hint where a link ends before its CONNACK, and nobody knows why."""
WHY_LOST = "does another client use this client id, or may this one not publish there? the broker's log may tell"
"""The hint where a link ends later, and nobody knows why: MQTT 3.1.1 has no words for it."""


@dataclass(slots=True)
class Message:
    """One message to publish; `topic` must have no `codec.topic_fault`. Not frozen: one is made per uplink."""

    topic: str
    body: bytes
    qos: QoS = 1
    retain: bool = False


@dataclass(slots=True, eq=False)
class _Flight:
    """The messages of one `publish_all` that are under way."""

    acknowledged: Callable[[int], None]
    under_way: int = 0
    landed: trio.Event = field(default_factory=trio.Event)
    last_receipt: float = 0.0
    abandoned: bool = False

    def receipt(self, index: int, now: float) -> None:
        if self.abandoned:
            return
        self.under_way -= 1
        self.last_receipt = now
        self.landed.set()
        self.acknowledged(index)


@dataclass(slots=True, eq=False)
class _Question:
    """A SUBSCRIBE or UNSUBSCRIBE under way."""

    answered: trio.Event = field(default_factory=trio.Event)
    codes: tuple[int, ...] = ()


class MqttSession:
    """What the body of `open_mqtt` speaks through. Every method may be called by several tasks at once.

    Attributes:
        session_present: the broker has kept our session.
        dropped: how many messages of QoS 0 came while too many waited, and are lost.
    """

    def __init__(self, stream: trio.abc.Stream, options: MqttOptions) -> None:
        self.session_present = False
        self.dropped = 0
        self._options = options
        self._core = MqttClient(options, trio.current_time())
        self._connected = trio.Event()
        self._link = BrokerLink(
            stream,
            self._core,
            self._dispatch,
            self._lost,
            messages=Publish,
            unread_bytes=UNREAD_BYTES,
            no_room=self._leave_out,
        )
        self._to_come_again = 0
        self._flights: dict[int, tuple[_Flight, int]] = {}
        self._questions: dict[int, _Question] = {}

    async def publish_all(
        self, messages: Sequence[Message], acknowledged: Callable[[int], None], *, receipt_timeout_s: float
    ) -> None:
        """Publish in order and return when each message has its receipt.

        Args:
            acknowledged: called with a message's index when its own PUBACK came, or, for QoS 0, when the system has
                taken it over. It must not block nor raise.
            receipt_timeout_s: how long to wait while something is under way and no receipt at all comes.

        Raises:
            LinkLost: the link ended, or the receipts stay away; what was not reported may or may not have arrived.

        Cancellation: what is queued is still sent, `acknowledged` is not called any more, the link stays usable.
        """
        flight = _Flight(acknowledged, last_receipt=trio.current_time())
        queued = 0
        try:
            while queued < len(messages) or flight.under_way:
                room = min(self._options.window - flight.under_way, self._core.free_ids)
                for message in messages[queued : queued + max(room, 0)]:
                    self._publish(message, flight, queued)
                    queued += 1
                self._link.wake()
                await self._next_receipt(flight, receipt_timeout_s)
        finally:
            flight.abandoned = True

    def _publish(self, message: Message, flight: _Flight, index: int) -> None:
        packet_id = self._core.publish(message.topic, message.body, qos=message.qos, retain=message.retain)
        flight.under_way += 1
        if packet_id is None:
            self._link.on_sent.append(partial(flight.receipt, index))
        else:
            self._flights[packet_id] = flight, index

    async def _next_receipt(self, flight: _Flight, timeout_s: float) -> None:
        flight.landed = trio.Event()
        with trio.move_on_at(flight.last_receipt + timeout_s):
            await flight.landed.wait()
            return
        raise LinkLost(
            f"the broker acknowledged nothing for {timeout_s:g} s",
            hint=NextStep.BROKER_TIME,
        )

    async def subscribe(self, filters: Sequence[str], qos: QoS = 1) -> None:
        """Subscribe to all filters and wait for the broker's word.

        Raises:
            Refused: the broker refuses one of them.
            LinkLost: the link ended, or no answer came in time.

        Cancellation: the broker may or may not have the subscriptions.
        """
        if not filters:
            return
        codes = await self._ask("SUBSCRIBE", self._core.subscribe(filters, qos))
        if len(codes) != len(filters):
            raise LinkLost(f"the broker broke the protocol: {len(codes)} answers to {len(filters)} subscriptions")
        for text, code in zip(filters, codes, strict=True):
            if code == 0x80:
                raise Refused(
                    f"the broker refuses the subscription to {text}",
                    hint=NextStep.SUBSCRIPTION,
                )

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """End subscriptions and wait for the broker's word.

        Raises:
            LinkLost: the link ended, or no answer came in time.
        """
        if filters:
            await self._ask("UNSUBSCRIBE", self._core.unsubscribe(filters))

    async def _ask(self, what: str, packet_id: int) -> tuple[int, ...]:
        question = self._questions[packet_id] = _Question()
        self._link.wake()
        with trio.move_on_after(self._options.answer_timeout_s):
            await question.answered.wait()
            return question.codes
        raise LinkLost(f"the broker did not answer a {what} within {self._options.answer_timeout_s:g} s")

    async def receive(self) -> Publish:
        """Wait for the next message from the broker; each goes to one caller.

        Raises:
            LinkLost: all that waited was received, and messages of QoS 1 had found no place: the broker keeps them, as
                they were not acknowledged, and sends them again over the next link.
        """
        if self._to_come_again and not self._link.has_unread:
            raise LinkLost(f"{self._to_come_again} messages found no place, and come again over a new link")
        return await self._link.receive()

    def acknowledge(self, message: Publish) -> None:
        """Tell the broker that the message is ours now; nothing happens for QoS 0."""
        if message.packet_id is not None:
            self._core.acknowledge(message.packet_id)
            self._link.wake()

    # ---- what the link asks for

    def _dispatch(self, packet: Packet, now: float) -> None:
        match packet:
            case PubAck():
                flight, index = self._flights.pop(packet.packet_id)
                flight.receipt(index, now)
            case SubAck() | UnsubAck():
                question = self._questions.pop(packet.packet_id)
                question.codes = packet.return_codes if isinstance(packet, SubAck) else ()
                question.answered.set()
            case ConnAck():
                self.session_present = packet.session_present
                self._connected.set()

    def _leave_out(self, message: Publish) -> None:
        if message.packet_id is None:
            self.dropped += 1
        else:
            self._to_come_again += 1

    def _lost(self, reason: str, hint: str | None) -> LinkLost:
        if self._connected.is_set():
            return LinkLost(f"connection lost: {reason}", hint=hint or WHY_LOST)
        return ConnectFailed(f"no CONNACK: {reason}", hint=hint or WHY_NO_CONNACK)

    async def _connected_in_time(self) -> None:
        with trio.move_on_after(self._options.connect_timeout_s):
            await self._connected.wait()
            return
        raise ConnectFailed(
            f"no CONNACK within {self._options.connect_timeout_s:.3g} s",
            hint="is this the port of an MQTT broker, and is it alive?",
        )

    async def _say_goodbye(self) -> None:
        if self._core.state is State.CONNECTED:
            self._core.disconnect()
            await self._link.send()


@asynccontextmanager
async def open_mqtt(stream: trio.abc.Stream, options: MqttOptions) -> AsyncIterator[MqttSession]:
    """Speak MQTT over the stream while the block lasts; the stream is closed in any case.

    Raises:
        ConnectFailed: no CONNACK, or one that refuses; a refused client certificate also shows here.
        AuthenticationFailed: CONNACK refuses the credentials.
        LinkLost: the link ended while the block ran; the block is cancelled and this leaves it.

    Cancellation: DISCONNECT is sent within `broker_link.GOODBYE_S` where the link allows it.
    """
    session = MqttSession(stream, options)
    async with session._link.open(session._connected_in_time, session._say_goodbye):
        yield session
