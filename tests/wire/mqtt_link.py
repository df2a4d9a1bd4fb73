"""An MQTT session of ours in memory, at whose far end a scripted broker speaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from trio.testing import memory_stream_pair

from tests.wire.scripted_broker import ScriptedBroker
from tpxd.wire.mqtt.client import MqttOptions
from tpxd.wire.mqtt.session import Message

OPTIONS = MqttOptions("id", connect_timeout_s=5, answer_timeout_s=10, keep_alive_s=60)
Script = Callable[[ScriptedBroker], Awaitable[None]]


def link_to(script: Script, nursery: trio.Nursery) -> trio.abc.Stream:
    """The near end of a link whose far end runs `script`; the nursery waits until it is through."""
    near, far = memory_stream_pair()
    nursery.start_soon(script, ScriptedBroker(far))
    return near


def messages(*bodies: str, qos: int = 1) -> list[Message]:
    return [Message("t", body.encode(), 1 if qos else 0) for body in bodies]


async def only_accept(broker: ScriptedBroker) -> None:
    await broker.accept()
