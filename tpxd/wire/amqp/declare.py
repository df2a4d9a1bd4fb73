"""What an AMQP session needs at the broker: an exchange, a queue, bindings between them, a consumer.

What exists is used as it is, so that an operator may have made it with other properties; what is missing is made.
AMQP cannot list bindings: who wants to remove one must know it.

Source: AMQP 0-9-1, classes exchange, queue and basic.
"""

from __future__ import annotations

from tpxd.errors import Refused
from tpxd.wire.amqp.codec import Basic, Exchange, Method, Queue
from tpxd.wire.amqp.content import ChannelClosed
from tpxd.wire.amqp.session import PREFETCH, AmqpSession

CONSUMER_TAG = "tpxd"
NOT_FOUND = 404


async def declare_exchange(session: AmqpSession, name: str) -> None:
    """Use the exchange as it is, or make it: durable, of type topic.

    Raises:
        Refused: the broker does not let us.
        LinkLost: the link ended, or no answer came in time.
    """
    await _declare(
        session,
        f"the exchange {name}",
        Exchange.Declare(exchange=name, passive=True),
        Exchange.Declare(exchange=name, exchange_type="topic", durable=True),
    )


async def declare_queue(session: AmqpSession, name: str) -> None:
    """Use the queue as it is, or make it: durable, and never deleted by itself.

    Raises:
        Refused, LinkLost: see `declare_exchange`.
    """
    await _declare(
        session, f"the queue {name}", Queue.Declare(queue=name, passive=True), Queue.Declare(queue=name, durable=True)
    )


async def bind(session: AmqpSession, queue: str, exchange: str, routing_key: str) -> None:
    """Let messages of the exchange into the queue; a binding that exists stays.

    Raises:
        Refused, LinkLost: see `declare_exchange`.
    """
    method = Queue.Bind(queue=queue, exchange=exchange, routing_key=routing_key)
    _must_be_granted(f"to bind {queue} to {exchange}", await session.ask(method))


async def unbind(session: AmqpSession, queue: str, exchange: str, routing_key: str) -> None:
    """Undo `bind`; nothing happens where there is no such binding.

    Raises:
        Refused, LinkLost: see `declare_exchange`.
    """
    method = Queue.Unbind(queue=queue, exchange=exchange, routing_key=routing_key)
    _must_be_granted(f"to unbind {queue} from {exchange}", await session.ask(method))


async def consume(session: AmqpSession, queue: str) -> None:
    """Let the broker deliver the messages of the queue, a few at a time, until they are acknowledged or rejected.

    Raises:
        Refused, LinkLost: see `declare_exchange`.
    """
    _must_be_granted("a prefetch count", await session.ask(Basic.Qos(prefetch_count=PREFETCH)))
    method = Basic.Consume(queue=queue, consumer_tag=CONSUMER_TAG)
    _must_be_granted(f"to let us consume {queue}", await session.ask(method))


async def _declare(session: AmqpSession, what: str, passive: Method, active: Method) -> None:
    answer = await session.ask(passive)
    if isinstance(answer, ChannelClosed) and answer.code == NOT_FOUND:
        answer = await session.ask(active)
    _must_be_granted(what, answer)


def _must_be_granted(what: str, answer: Method | ChannelClosed) -> None:
    if isinstance(answer, ChannelClosed):
        raise Refused(
            f"the broker refuses {what}: {answer.reason}",
            hint="check the rights of this user, and how the exchange and the queue were made",
        )
