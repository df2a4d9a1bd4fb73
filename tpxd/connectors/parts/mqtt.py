"""What the connectors that speak MQTT 3.1.1 share: topics by FPort, publishing for receipts, subscribing at opening."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
from pydantic import Field

from tpxd.config.fields import MqttPattern, Part
from tpxd.connector import Incoming, Outgoing, Receipts
from tpxd.connectors.parts.leftovers import LeftAtBroker
from tpxd.connectors.parts.topics import DownlinkPorts, UplinkTopics
from tpxd.wire.mqtt.client import MqttOptions, QoS
from tpxd.wire.mqtt.codec import topic_fault
from tpxd.wire.mqtt.session import Message, MqttSession, open_mqtt

# a resumed session may bring more messages before the SUBACK than wait unread: then somebody must begin to receive
SUBSCRIBED_S = 0.5

# AWS IoT, which the plain MQTT connector may speak to as well, takes no more in one SUBSCRIBE
FILTERS_AT_ONCE = 8


class PortTopics(Part):
    """Topics for one FPort, instead of the connection's own."""

    fPort: int = Field(
        ge=0, le=255, description="The FPort, 0 to 255, of uplinks, and of downlinks by this topic that bring none."
    )
    uplinkTopicPattern: MqttPattern | None = Field(None, description="The topic of these uplinks; default as the rest.")
    downlinkTopicPattern: MqttPattern | None = Field(None, description="One more topic to take downlinks from.")


def topic_refusal(topic: str, body: bytes) -> str | None:
    """Why no broker can take a message of this topic, or None."""
    fault = topic_fault(topic)
    return f"its topic {fault}" if fault else None


@dataclass(slots=True)
class MqttTransport:
    """An open session, and the topics that uplinks go to.

    Attributes:
        ports: the FPorts of downlinks without one.
        log: gets what no sender can be told.
        refusal: says why a topic or a body is not to be published, or None.
    """

    session: MqttSession
    topics: UplinkTopics
    ports: DownlinkPorts
    receipt_timeout_s: float
    log: logging.LoggerAdapter[logging.Logger]
    qos: QoS = 1
    retain: bool = False
    refusal: Callable[[str, bytes], str | None] = topic_refusal
    _told: int = 0

    async def send(self, batch: Sequence[Outgoing], receipts: Receipts) -> None:
        """Publish in order; an uplink that has no legal topic is rejected."""
        messages: list[Message] = []
        places: list[int] = []
        for index, item, topic in await self.topics.address(batch, receipts):
            if refusal := self.refusal(topic, item.body):
                receipts.rejected(index, refusal)
                continue
            messages.append(Message(topic, item.body, self.qos, self.retain))
            places.append(index)

        def acknowledged(number: int) -> None:
            receipts.delivered(places[number])

        await self.session.publish_all(messages, acknowledged, receipt_timeout_s=self.receipt_timeout_s)

    async def receive(self) -> Incoming:
        """Wait for the next message of the subscriptions."""
        message = await self.session.receive()
        if self.session.dropped > self._told:
            lost, self._told = self.session.dropped - self._told, self.session.dropped
            self.log.warning(
                "%d downlinks of QoS 0 came while too many waited, and are lost; send them with QoS 1", lost
            )
        port = self.ports.of(message.topic)
        return Incoming(message.topic, message.body, message.duplicate, message.retained, port, receipt=message)

    async def acknowledge(self, incoming: Incoming) -> None:
        """Send the PUBACK."""
        self.session.acknowledge(incoming.receipt)


@asynccontextmanager
async def open_subscribed(
    stream: trio.abc.Stream, options: MqttOptions, filters: Sequence[str], left: LeftAtBroker
) -> AsyncIterator[MqttSession]:
    """Open a session as `open_mqtt` does, and subscribe; a broker that takes its time does not hold uplinks back.

    Args:
        left: the filters of earlier openings; those of a resumed session that are not wanted any more are removed.

    Raises:
        Refused: the broker refuses a subscription.
    """
    async with open_mqtt(stream, options) as session, trio.open_nursery() as nursery:
        subscribed = trio.Event()
        nursery.start_soon(_subscribe, session, filters, left, subscribed)
        with trio.move_on_after(SUBSCRIBED_S):
            await subscribed.wait()
        yield session
        nursery.cancel_scope.cancel()


async def _subscribe(session: MqttSession, filters: Sequence[str], left: LeftAtBroker, subscribed: trio.Event) -> None:
    stale = [text for text in left.recall() if text not in filters] if session.session_present else []
    # known before they are made: a subscription that nobody remembers stays as long as the session
    await left.remember([*stale, *filters])
    for begin in range(0, len(stale), FILTERS_AT_ONCE):
        await session.unsubscribe(stale[begin : begin + FILTERS_AT_ONCE])
    for begin in range(0, len(filters), FILTERS_AT_ONCE):
        await session.subscribe(filters[begin : begin + FILTERS_AT_ONCE])
    await left.remember(filters)
    subscribed.set()
