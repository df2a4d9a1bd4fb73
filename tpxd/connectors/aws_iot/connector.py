"""Connector `actility-aws-iot`: uplinks to AWS IoT Core over MQTT 3.1.1, and devices into its registry.

Wire:     one PUBLISH of QoS 1 per uplink; delivered at its own PUBACK.
Login:    SSL with a client certificate, on port 8883, or on 443 where ALPN tells MQTT from HTTPS; or WSS with a URL
          that an access key signs, anew at each opening.
Devices:  become things of the registry before their first uplink goes; see `things`.
Session:  persistent where downlinks are wanted: AWS keeps them for an hour while we are away; clean otherwise.
Limits:   topics of 256 bytes and seven slashes, bodies of 128 KiB, 100 uplinks a second and 100 without receipt.
Errors:   AWS closes the link where a policy forbids something, and does not say why.
Source:   ThingPark X IoT Flow, "AWS IoT connector"; AWS IoT Core Developer Guide, "Device communication protocols";
          AWS General Reference, "AWS IoT Core endpoints and quotas".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import trio

from tpxd.connector import Context, Incoming, Outgoing, Receipts, Transport, connector
from tpxd.connectors.aws_iot.config import AwsIotConfig, topic_limit
from tpxd.connectors.aws_iot.registry import Registry, open_registry
from tpxd.connectors.aws_iot.things import ThingRules, Things
from tpxd.connectors.parts.leftovers import LeftAtBroker
from tpxd.connectors.parts.mqtt import MqttTransport, open_subscribed, topic_refusal
from tpxd.connectors.parts.next_steps import naming_options, options_named
from tpxd.connectors.parts.topics import DownlinkPorts, UplinkTopics
from tpxd.errors import LinkLost, Refused
from tpxd.lorawan.reports import DOWNLINK_REJECTED
from tpxd.wire.mqtt.client import MqttOptions
from tpxd.wire.mqtt.session import WHY_LOST, WHY_NO_CONNACK
from tpxd.wire.websocket import open_link

MAX_BODY_BYTES: Final = 128 * 1024
MAX_IN_FLIGHT: Final = 100
DEV_EUI_CHARACTERS: Final = 16
"""Other lanes are base stations, which are no things."""


def _refusal(topic: str, body: bytes) -> str | None:
    if len(body) > MAX_BODY_BYTES:
        return f"the uplink has {len(body)} bytes, and AWS IoT takes {MAX_BODY_BYTES}"
    fault = topic_limit(topic)
    return f"its topic {fault}" if fault else topic_refusal(topic, body)


@connector(
    "actility-aws-iot",
    AwsIotConfig,
    title="AWS IoT",
    description="Publishes uplinks to AWS IoT Core, registers their devices, and takes downlinks",
    max_in_flight=MAX_IN_FLIGHT,
)
@naming_options
@asynccontextmanager
async def open_aws_iot(config: AwsIotConfig, context: Context) -> AsyncIterator[Transport]:
    """Connect, introduce ourselves, subscribe where downlinks are wanted; the registry is asked when it is needed."""
    timeout_s = config.connectionTimeout / 1000
    deadline = trio.current_time() + timeout_s
    endpoint = config.data_endpoint(context.tls, datetime.now(UTC))
    async with open_link(endpoint, context.dial, timeout_s) as stream:
        context.authenticating()
        filters = config.downlink_sources if context.downlinks else []
        client_id = config.clientId or context.client_id
        login_hint = (
            "does the policy of the certificate or access key allow iot:Connect for the client id "
            f"{client_id}, and is the certificate active?"
        )
        options = MqttOptions(
            client_id,
            clean_session=not filters,
            connect_timeout_s=max(deadline - trio.current_time(), 0.1),
            answer_timeout_s=config.actionTimeout / 1000,
            window=MAX_IN_FLIGHT,
            login_hint=login_hint,
        )
        with _policies_named(options):
            left = LeftAtBroker(context, "filters", f"{endpoint} {client_id}")
            async with open_subscribed(stream, options, filters, left) as session:
                mqtt = MqttTransport(
                    session,
                    UplinkTopics(config),
                    DownlinkPorts(config),
                    config.actionTimeout / 1000,
                    context.log,
                    refusal=_refusal,
                )
                yield AwsIotTransport(mqtt, _things(config, context))


@contextmanager
def _policies_named(options: MqttOptions) -> Iterator[None]:
    """Say what AWS leaves unsaid: a policy that forbids something ends the link without a word."""
    try:
        yield
    except LinkLost as error:
        if error.hint == WHY_NO_CONNACK:
            error.hint = options.login_hint
        elif error.hint in (None, WHY_LOST) and not isinstance(error, Refused):
            error.hint = (
                "AWS IoT closes a link when the policy does not allow iot:Publish or iot:Subscribe for a topic, and "
                f"when another client takes the client id {options.client_id}"
            )
        raise


def _things(config: AwsIotConfig, context: Context) -> Things:
    rules = ThingRules(
        f"{config.accountPrefix} {config.registry_endpoint(context.tls)}",
        config.deviceType,
        config.createDevices,
        config.createDeviceTypes,
        config.certificateId,
    )

    @asynccontextmanager
    async def ask() -> AsyncIterator[Registry]:
        connect_s, answer_s = config.connectionTimeout / 1000, config.actionTimeout / 1000
        endpoint, signer = config.registry_endpoint(context.tls), config.signer("iot")
        with options_named():
            async with open_registry(
                endpoint, signer, context.dial, connect_timeout_s=connect_s, answer_timeout_s=answer_s
            ) as registry:
                yield registry

    return Things(rules, context, ask)


@dataclass(slots=True)
class AwsIotTransport:
    """An open session, and the devices that the registry has; see `connector.Transport`."""

    mqtt: MqttTransport
    things: Things

    async def send(self, batch: Sequence[Outgoing], receipts: Receipts) -> None:
        """Publish what known devices sent, then see to the registry and publish the rest, in order per device."""
        # that a downlink was refused shows no device: whoever mistyped a DevEUI wants none registered
        lanes = dict.fromkeys(item.uplink.lane for item in batch if item.uplink.kind != DOWNLINK_REJECTED)
        strangers = [lane for lane in lanes if len(lane) == DEV_EUI_CHARACTERS and not self.things.known(lane)]
        if not strangers:
            await self.mqtt.send(batch, receipts)
            return
        later = set(strangers)
        await self._send_some(batch, receipts, lambda lane: lane not in later)
        introduction = await self.things.introduce(strangers)
        for index, item in enumerate(batch):
            if item.uplink.lane in introduction.absent:
                receipts.filtered(index, "its device is not in the registry of AWS IoT, and createDevices = false")
        later -= introduction.absent | introduction.held
        await self._send_some(batch, receipts, lambda lane: lane in later)
        if introduction.held:
            assert introduction.error is not None
            raise introduction.error

    async def _send_some(self, batch: Sequence[Outgoing], receipts: Receipts, wanted: Callable[[str], bool]) -> None:
        places = [index for index, item in enumerate(batch) if wanted(item.uplink.lane)]
        if places:
            await self.mqtt.send([batch[index] for index in places], _Part(receipts, places))

    async def receive(self) -> Incoming:
        """Wait for the next message of the subscriptions."""
        return await self.mqtt.receive()

    async def acknowledge(self, incoming: Incoming) -> None:
        """Send the PUBACK."""
        await self.mqtt.acknowledge(incoming)


@dataclass(slots=True)
class _Part:
    """The receipts of a part of a batch, whose uplinks stand at these places."""

    receipts: Receipts
    places: Sequence[int]

    def delivered(self, index: int) -> None:
        self.receipts.delivered(self.places[index])

    def rejected(self, index: int, reason: str, hint: str | None = None) -> None:
        self.receipts.rejected(self.places[index], reason, hint)

    def filtered(self, index: int, reason: str) -> None:
        self.receipts.filtered(self.places[index], reason)
