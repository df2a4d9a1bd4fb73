"""The AMQP connector in tests: its settings, and a broker that follows a script."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from pamqp.commands import Exchange

from tests.connectors.opening import Site
from tests.wire.scripted_rabbit import ScriptedRabbit
from tpxd.connectors.amqp import AmqpConfig

QUEUE = "tpxd.0badcafe.plant.downlink"


def config(**values: Any) -> AmqpConfig:
    """The least that a file must say, with these values besides or instead; None takes one away."""
    settings = {
        "hostName": "broker.example.net",
        "protocol": "TCP",
        "username": "tpx",
        "password": "p",
        "exchangeName": "IotFlowExchange",
        "uplinkTopicPattern": "plant.{DevEUI}.up",
    }
    return AmqpConfig.model_validate({key: value for key, value in (settings | values).items() if value is not None})


def amqp_site(nursery: trio.Nursery, script: Callable[[ScriptedRabbit], Awaitable[None]]) -> Site[ScriptedRabbit]:
    """A broker that follows the script."""
    return Site(nursery, ScriptedRabbit, script)


async def accept(broker: ScriptedRabbit) -> None:
    """Let the client in; the exchange is there."""
    await broker.accept()
    await broker.grant(Exchange.Declare, Exchange.DeclareOk())
