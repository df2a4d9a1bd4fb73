"""AMQP 0-9-1 over TCP or TLS: uplinks are published to an exchange, downlinks come from a queue.

Wire:     one persistent, mandatory Basic.Publish per uplink; delivered at its own publisher confirm. The message id
          INSTANCE-MILLISECONDS-SEQUENCE is the same when an uplink is sent again, so that consumers can recognise it.
Broker:   the exchange and the queue are used as they are, and made where they are missing: a durable topic exchange, a
          durable queue bound to it with each downlink pattern. Bindings of an earlier version of the file are removed.
Limits:   a routing key has at most 255 bytes; a downlink has at most 1 MiB, a longer one is rejected.
Source:   ThingPark X IoT Flow, "AMQP connector"; AMQP 0-9-1; RabbitMQ, "Publisher Confirms".
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import trio
from pydantic import AfterValidator, Field, model_validator

from tpxd.config.fields import AmqpPattern, Part
from tpxd.config.secret import plain
from tpxd.connector import Context, Incoming, Outgoing, Receipts, Transport, connector
from tpxd.connectors.parts.leftovers import LeftAtBroker
from tpxd.connectors.parts.link import LinkConfig, check_ports
from tpxd.connectors.parts.next_steps import naming_options
from tpxd.connectors.parts.topics import DownlinkPorts, TopicSources, UplinkTopics
from tpxd.errors import ConnectFailed, Refused, TransportError
from tpxd.wire.amqp.codec import MAX_SHORT_TEXT_BYTES, name_fault
from tpxd.wire.amqp.content import Delivery, Refusal
from tpxd.wire.amqp.declare import bind, consume, declare_exchange, declare_queue, unbind
from tpxd.wire.amqp.login import AmqpOptions
from tpxd.wire.amqp.session import AmqpSession, Message, open_amqp

ROUTED_KEYS = 50_000
"""So many routing keys are known to lead to a queue; beyond it they are learnt anew."""

ROUTED_AGAIN_S = 60.0
"""So long after the last unroutable uplink that was let go, this is called overcome."""


def _name(value: str) -> str:
    if fault := name_fault(value):
        raise ValueError(f"is no name that a broker accepts: it {fault}")
    return value


def _virtual_host(value: str) -> str:
    if len(value.encode()) > MAX_SHORT_TEXT_BYTES:
        raise ValueError(f"has more than the {MAX_SHORT_TEXT_BYTES} bytes that AMQP allows")
    return value


Name = Annotated[str, AfterValidator(_name)]


class PortTopics(Part):
    """Routing keys for one FPort, instead of the connection's own."""

    fPort: int = Field(
        ge=0, le=255, description="The FPort, 0 to 255, of uplinks, and of downlinks by this key that bring none."
    )
    uplinkTopicPattern: AmqpPattern | None = Field(None, description="The key of these uplinks; default as the rest.")
    downlinkTopicPattern: AmqpPattern | None = Field(None, description="One more key to take downlinks from.")


class AmqpConfig(TopicSources, LinkConfig):
    """`[configuration]` of `actility-amqp-0.9.1-iot`."""

    default_ports: ClassVar[dict[str, int]] = {"TCP": 5672, "SSL": 5671}

    protocol: Literal["TCP", "SSL"] = Field(description="TCP sends everything in the clear, SSL is TLS.")
    virtualHost: Annotated[str, AfterValidator(_virtual_host)] = Field(
        "/", min_length=1, max_length=127, description='The virtual host; default "/".'
    )
    exchangeName: Name = Field(description="The exchange to publish to; made as a durable topic exchange when missing.")
    uplinkTopicPattern: AmqpPattern = Field(description="The routing key that an uplink is published with.")
    downlinkTopicPattern: AmqpPattern | None = Field(
        None, description="The routing key to take downlinks from; default none."
    )
    downlinkStatusTopicPattern: AmqpPattern | None = Field(
        None,
        description="The routing key of DevEUI_downlink_Rejected and DevEUI_downlink_Sent reports, instead of "
        "uplinkTopicPattern; default none.",
    )
    topics: list[PortTopics] = Field(default_factory=list, description="Other routing keys for uplinks of some FPorts.")
    downlinkQueue: Name | None = Field(
        None, description="The queue that keeps downlinks for us; default tpxd.INSTANCE.ID.downlink."
    )
    unroutable: Literal["hold", "count"] = Field(
        "hold",
        description="When the exchange routes an uplink to no queue: hold it and all others until it does, or count "
        "it as delivered, which health shows; default hold.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_ports([entry.fPort for entry in self.topics])
        if self.username is None and self.certificate is None:
            raise ValueError("username is missing; only a certificate, which needs SSL, can stand in its place")
        if "\0" in (plain(self.password) or ""):
            raise ValueError("password holds a null character, which ends it for the broker (RFC 4616)")
        return self


class _Addressed(NamedTuple):
    """An uplink of a batch, its place there, and the routing key that it goes by."""

    place: int
    item: Outgoing
    key: str

    @property
    def lane(self) -> str:
        """Whose order it is part of."""
        return self.item.uplink.lane


class _InOrder:
    """Reports receipts in each device's order: behind an uplink without one, none."""

    def __init__(self, published: Sequence[_Addressed], receipts: Receipts) -> None:
        self._published = published
        self._receipts = receipts
        self._delivered: dict[int, bool] = {}
        self._lanes: dict[str, deque[int]] = {}
        for number, one in enumerate(published):
            self._lanes.setdefault(one.lane, deque()).append(number)

    def settle(self, number: int, *, delivered: bool) -> None:
        """The broker decided about this one."""
        self._delivered[number] = delivered
        lane = self._lanes[self._published[number].lane]
        while lane and self._delivered.get(lane[0]):
            self._receipts.delivered(self._published[lane.popleft()].place)


@dataclass(slots=True)
class AmqpTransport:
    """An open session, and the routing keys that uplinks go by.

    Attributes:
        unroutable: how many uplinks the exchange routed to no queue and were counted as delivered.
    """

    session: AmqpSession
    config: AmqpConfig
    context: Context
    unroutable: int = 0
    _topics: UplinkTopics = field(init=False)
    _ports: DownlinkPorts = field(init=False)
    _routed: set[str] = field(init=False, default_factory=set)
    _routed_at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._topics = UplinkTopics(self.config)
        self._ports = DownlinkPorts(self.config)

    async def send(self, batch: Sequence[Outgoing], receipts: Receipts) -> None:
        """Publish in each device's order; an uplink that has no legal routing key is rejected.

        What the broker refuses holds back all that was not published yet, and what is behind it of its own device has
        no receipt whatever the broker says: it goes again, after it.

        Raises:
            Refused: the broker refused some.
        """
        waiting = [_Addressed(*one) for one in await self._topics.address(batch, receipts)]
        while waiting:
            now, waiting = self._next_round(waiting)
            await self._publish(now, receipts)

    def _next_round(self, waiting: Sequence[_Addressed]) -> tuple[list[_Addressed], list[_Addressed]]:
        """What may go now, and the rest: of each device up to the first routing key that is not known to lead anywhere,
        and of a new link the oldest uplink alone."""
        if not self._routed:
            return [*waiting[:1]], [*waiting[1:]]
        now, later, full = [], [], set()
        for one in waiting:
            if one.lane in full:
                later.append(one)
                continue
            now.append(one)
            if one.key not in self._routed:
                full.add(one.lane)
        return now, later

    async def _publish(self, now: Sequence[_Addressed], receipts: Receipts) -> None:
        held: list[tuple[str, Refusal]] = []
        lanes = _InOrder(now, receipts)

        def delivered(number: int) -> None:
            if len(self._routed) >= ROUTED_KEYS:
                self._routed.clear()
            self._routed.add(now[number].key)
            lanes.settle(number, delivered=True)

        def refused(number: int, refusal: Refusal) -> None:
            is_held = not refusal.unroutable or self.config.unroutable == "hold"
            if is_held:
                held.append((now[number].key, refusal))
                lanes.settle(number, delivered=False)
            else:
                self._count(now[number].key)
                delivered(number)

        messages = [self._message(one.key, one.item) for one in now]
        timeout_s = self.config.actionTimeout / 1000
        await self.session.publish_all(messages, delivered, refused, receipt_timeout_s=timeout_s)
        if trio.current_time() >= self._routed_at:
            self.context.troubled(None)
        if held:
            raise self._refused(*held[0])

    def _message(self, key: str, item: Outgoing) -> Message:
        uplink = item.uplink
        message_id = f"{self.context.instance}-{uplink.received_ms}-{uplink.seq}"
        return Message(self.config.exchangeName, key, item.body, message_id, uplink.received_ms // 1000)

    def _refused(self, key: str, refusal: Refusal) -> Refused:
        if refusal.unroutable:
            hint = 'bind a queue to it, or set unroutable = "count" to let such uplinks go'
            return Refused(self._routed_nowhere(key), hint=hint)
        return Refused(f"{refusal.reason}: {key}", hint="is a queue full, or a node of the broker down? its log tells")

    def _count(self, key: str) -> None:
        self.unroutable += 1
        self._routed_at = trio.current_time() + ROUTED_AGAIN_S
        text = f"{self._routed_nowhere(key)}; unroutable uplinks since the connection was opened: {self.unroutable}"
        self.context.troubled(TransportError(text, hint="bind a queue to it"))

    def _routed_nowhere(self, key: str) -> str:
        return f"the exchange {self.config.exchangeName} routes {key} to no queue"

    async def receive(self) -> Incoming:
        """Wait for the next message of the queue; one that is too long comes without its body."""
        message = await self.session.receive()
        if len(message.body) < message.body_bytes:
            self.context.log.warning("a downlink of %d bytes is too long and is rejected", message.body_bytes)
        port = self._ports.of(message.routing_key)
        return Incoming(message.routing_key, message.body, message.redelivered, f_port=port, receipt=message)

    async def acknowledge(self, incoming: Incoming) -> None:
        """Send the Basic.Ack; Basic.Reject for a message that is too long, which the broker may keep elsewhere."""
        message: Delivery = incoming.receipt
        if len(message.body) < message.body_bytes:
            self.session.reject(message)
        else:
            self.session.acknowledge(message)


@connector(
    "actility-amqp-0.9.1-iot",
    AmqpConfig,
    title="AMQP 0.9.1",
    description="Publishes uplinks to an exchange of an AMQP 0-9-1 broker and takes downlinks from a queue",
)
@naming_options
@asynccontextmanager
async def open_amqp_connection(config: AmqpConfig, context: Context) -> AsyncIterator[Transport]:
    """Connect, log in, declare what is missing, consume where downlinks are wanted."""
    timeout_s = config.connectionTimeout / 1000
    deadline = trio.current_time() + timeout_s
    stream = await context.dial(config.endpoint(context.tls), timeout_s)
    context.authenticating()
    options = AmqpOptions(
        context.client_id,
        config.virtualHost,
        username=config.username,
        password=plain(config.password),
        connect_timeout_s=max(deadline - trio.current_time(), 0.1),
        answer_timeout_s=config.actionTimeout / 1000,
    )
    async with open_amqp(stream, options) as session:
        with trio.move_on_at(deadline) as preparing:
            await _prepare(session, config, context)
        if preparing.cancelled_caught:
            raise ConnectFailed(
                f"the broker did not answer the declarations within {timeout_s:g} s",
                hint="is the broker overloaded, or connectionTimeout too short for this link?",
            )
        yield AmqpTransport(session, config, context)


class Binding(NamedTuple):
    """What lets messages of an exchange into a queue."""

    queue: str
    exchange: str
    routing_key: str


async def _prepare(session: AmqpSession, config: AmqpConfig, context: Context) -> None:
    await declare_exchange(session, config.exchangeName)
    queue = config.downlinkQueue or f"tpxd.{context.instance}.{context.connection_id}.downlink"
    wanted = [
        Binding(queue, config.exchangeName, key) for key in (config.downlink_sources if context.downlinks else [])
    ]
    if wanted:
        await declare_queue(session, queue)
    await _bind(session, wanted, context, LeftAtBroker(context, "bindings", f"{config.hostName} {config.virtualHost}"))
    if wanted:
        await consume(session, queue)


async def _bind(session: AmqpSession, wanted: list[Binding], context: Context, left: LeftAtBroker) -> None:
    """Make the bindings that are wanted, and remove those of earlier versions of the file."""
    stale = [binding for parts in left.recall() if (binding := Binding(*parts)) not in wanted]
    # known before they are made: a binding that nobody remembers stays for ever
    await left.remember([*stale, *wanted])
    for binding in wanted:
        await bind(session, *binding)
    for binding in stale:
        try:
            await unbind(session, *binding)
        except Refused as error:
            context.log.warning("a binding that is not wanted any more stays: %s", error)
    await left.remember(wanted)
