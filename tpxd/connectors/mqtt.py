"""MQTT 3.1.1 over TCP, TLS or WebSocket: uplinks are published, downlinks are subscribed to.

Wire:     one PUBLISH per uplink, QoS 1 unless told otherwise; delivered at its own PUBACK. With QoS 0, delivered means
          handed to the system.
Session:  persistent where downlinks are wanted, so that the broker keeps them while we are away; clean otherwise. Topic
          filters of an earlier version of the file are unsubscribed from.
Limits:   a topic has at most 65,535 bytes (MQTT 3.1.1, 4.7.3).
Source:   ThingPark X IoT Flow, "MQTT connector"; MQTT 3.1.1.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

import trio
from pydantic import AfterValidator, Field, model_validator

from tpxd.config.fields import MqttPattern
from tpxd.config.secret import plain
from tpxd.connector import Context, Transport, connector
from tpxd.connectors.parts.leftovers import LeftAtBroker
from tpxd.connectors.parts.link import LinkConfig, check_ports, without_null
from tpxd.connectors.parts.mqtt import MqttTransport, PortTopics, open_subscribed
from tpxd.connectors.parts.next_steps import naming_options
from tpxd.connectors.parts.topics import DownlinkPorts, TopicSources, UplinkTopics
from tpxd.wire.mqtt.client import MqttOptions
from tpxd.wire.mqtt.codec import MAX_TEXT_BYTES
from tpxd.wire.streams import Endpoint, WebSocket
from tpxd.wire.tls import TlsContexts
from tpxd.wire.websocket import open_link


def _path(value: str) -> str:
    if not re.fullmatch(r"/[!-~]{,999}", value) or "#" in value:
        raise ValueError('is no path; it begins with "/" and holds neither spaces nor "#", such as "/mqtt"')
    return value


class MqttConfig(TopicSources, LinkConfig):
    """`[configuration]` of `actility-mqtt-iot`."""

    default_ports: ClassVar[dict[str, int]] = {"TCP": 1883, "SSL": 8883, "WSS": 443}

    path: Annotated[str, AfterValidator(_path)] = Field(
        "/mqtt", description='The path of the WebSocket, with protocol = "WSS"; default "/mqtt".'
    )
    clientId: Annotated[str, AfterValidator(without_null)] | None = Field(
        None,
        min_length=1,
        max_length=1_000,
        description="The client id; two clients of one id drive each other out; default tpxd-INSTANCE-ID.",
    )
    uplinkTopicPattern: MqttPattern = Field(description="The topic that an uplink is published to.")
    downlinkTopicPattern: MqttPattern | None = Field(
        None, description="The topic to take downlinks from; default none."
    )
    downlinkStatusTopicPattern: MqttPattern | None = Field(
        None,
        description="The topic of DevEUI_downlink_Rejected and DevEUI_downlink_Sent reports, instead of "
        "uplinkTopicPattern; default none.",
    )
    topics: list[PortTopics] = Field(default_factory=list, description="Other topics for uplinks of some FPorts.")
    qos: Literal[0, 1] = Field(1, description="1 waits for the broker's receipt, 0 sends and forgets; default 1.")
    retain: bool = Field(False, description="true lets the broker keep the last uplink of each topic; default false.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_ports([entry.fPort for entry in self.topics])
        if len((plain(self.password) or "").encode()) > MAX_TEXT_BYTES:
            raise ValueError(f"password has more than {MAX_TEXT_BYTES} bytes")
        if "path" in self.model_fields_set and self.protocol != "WSS":
            raise ValueError('path needs protocol = "WSS"; the others have none')
        return self

    def endpoint(self, contexts: TlsContexts) -> Endpoint:
        """See `LinkConfig`; with WSS, the bytes travel in a WebSocket (MQTT 3.1.1, 6)."""
        endpoint = super().endpoint(contexts)
        return replace(endpoint, websocket=WebSocket(self.path, "mqtt")) if self.protocol == "WSS" else endpoint


@connector(
    "actility-mqtt-iot",
    MqttConfig,
    title="MQTT",
    description="Publishes uplinks to an MQTT 3.1.1 broker and takes downlinks from it",
)
@naming_options
@asynccontextmanager
async def open_mqtt_connection(config: MqttConfig, context: Context) -> AsyncIterator[Transport]:
    """Connect, introduce ourselves, subscribe where downlinks are wanted."""
    deadline = trio.current_time() + config.connectionTimeout / 1000
    async with open_link(config.endpoint(context.tls), context.dial, config.connectionTimeout / 1000) as stream:
        context.authenticating()
        filters = config.downlink_sources if context.downlinks else []
        options = MqttOptions(
            config.clientId or context.client_id,
            clean_session=not filters,
            username=config.username,
            password=plain(config.password),
            connect_timeout_s=max(deadline - trio.current_time(), 0.1),
            answer_timeout_s=config.actionTimeout / 1000,
        )
        left = LeftAtBroker(context, "filters", f"{config.hostName} {options.client_id}")
        async with open_subscribed(stream, options, filters, left) as session:
            yield MqttTransport(
                session,
                UplinkTopics(config),
                DownlinkPorts(config),
                config.actionTimeout / 1000,
                context.log,
                config.qos,
                config.retain,
            )
