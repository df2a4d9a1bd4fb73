"""An AMQP session of ours in memory, at whose far end a scripted broker speaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from trio.testing import memory_stream_pair

from tests.wire.scripted_rabbit import ScriptedRabbit
from tpxd.wire.amqp.content import Refusal
from tpxd.wire.amqp.login import AmqpOptions
from tpxd.wire.amqp.session import AmqpSession, Message

OPTIONS = AmqpOptions("tpxd-1", username="tpx", password="p", connect_timeout_s=5, answer_timeout_s=10)
Script = Callable[[ScriptedRabbit], Awaitable[None]]


def link_to(script: Script, nursery: trio.Nursery) -> trio.abc.Stream:
    """The near end of a link whose far end runs `script`; the nursery waits until it is through."""
    near, far = memory_stream_pair()
    nursery.start_soon(script, ScriptedRabbit(far))
    return near


def messages(*bodies: str) -> list[Message]:
    return [Message("x", "k", body.encode(), f"1-{body}", 1) for body in bodies]


class Fates:
    """Keeps what was reported."""

    def __init__(self) -> None:
        self.delivered: list[int] = []
        self.refused: dict[int, Refusal] = {}

    async def publish(self, session: AmqpSession, *bodies: str, receipt_timeout_s: float = 7) -> None:
        await session.publish_all(
            messages(*bodies), self.delivered.append, self.refused.__setitem__, receipt_timeout_s=receipt_timeout_s
        )


async def accept_and_say_goodbye(broker: ScriptedRabbit) -> None:
    await broker.accept()
    await broker.goodbye()
