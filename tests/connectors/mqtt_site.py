"""The MQTT connector in tests: its settings, a broker that follows a script, and an application at a real one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from tests.connectors.opening import Site
from tests.wire.scripted_broker import CONNACK, RESUMED, ScriptedBroker, filters_of, suback, unsuback
from tpxd.connectors.mqtt import MqttConfig
from tpxd.wire.mqtt.client import MqttOptions
from tpxd.wire.mqtt.session import Message, open_mqtt
from tpxd.wire.streams import Endpoint, open_stream


def config(**values: Any) -> MqttConfig:
    """The least that a file must say, with these values besides or instead."""
    settings = {"hostName": "broker.example.net:1883", "protocol": "TCP", "uplinkTopicPattern": "plant/{DevEUI}/up"}
    return MqttConfig.model_validate(settings | values)


def mqtt_site(nursery: trio.Nursery, script: Callable[[ScriptedBroker], Awaitable[None]]) -> Site[ScriptedBroker]:
    """A broker that follows the script."""
    return Site(nursery, ScriptedBroker, script)


class ObligingBroker:
    """Lets a client in and answers what it asks for, which it keeps."""

    def __init__(self, connack: bytes = RESUMED) -> None:
        self.connack = connack
        self.clean: bool | None = None
        self.asked: list[tuple[str, list[str]]] = []

    async def serve(self, broker: ScriptedBroker) -> None:
        """Speak on one link until the client says goodbye."""
        connect = await broker.expect("CONNECT")
        self.clean = bool(connect.rest[7] & 2)
        await broker.send(CONNACK if self.clean else self.connack)
        while (packet := await broker.next()).name != "DISCONNECT":
            names = filters_of(packet)
            self.asked.append((packet.name, names))
            answer = suback(packet.packet_id, *[1] * len(names))
            await broker.send(answer if packet.name == "SUBSCRIBE" else unsuback(packet.packet_id))


async def say(port: int, *messages: tuple[str, bytes], retain: bool = False) -> None:
    """An application at a real broker publishes downlinks."""
    stream = await open_stream(Endpoint("127.0.0.1", port), 5)
    async with open_mqtt(stream, MqttOptions("application")) as session:
        sent = [Message(topic, body, retain=retain) for topic, body in messages]
        await session.publish_all(sent, lambda index: None, receipt_timeout_s=10)
