"""What an AMQP link has to say to whoever holds it."""

from __future__ import annotations

from dataclasses import dataclass

from tpxd.errors import AuthenticationFailed, LinkLost
from tpxd.wire.amqp_codec import Method


@dataclass(frozen=True, slots=True)
class Opened:
    """The login is through."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The broker's answer to a question."""

    question: int
    method: Method


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """The broker refused something and closed the channel; `questions` will not be answered any more."""

    channel: int
    code: int
    reason: str
    questions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the broker did not take a message; `unroutable` when the exchange routes it to no queue."""

    reason: str
    unroutable: bool


@dataclass(slots=True)
class Settled:
    """The broker has taken these messages over, or refused them. Not frozen: one comes with most uplinks."""

    tags: list[int]
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message from the broker; `body` is empty when its `body_bytes` are more than the options allow."""

    tag: int
    routing_key: str
    body: bytes
    body_bytes: int
    redelivered: bool


@dataclass(frozen=True, slots=True)
class ConsumerCancelled:
    """The broker delivers nothing any more, for instance because the queue was deleted."""


@dataclass(frozen=True, slots=True)
class FlowChanged:
    """`AmqpClient.blocked` changed."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The broker closed the connection, for this reason; the link must be given up."""

    error: AuthenticationFailed | LinkLost


Event = Closed | Opened | Answer | ChannelClosed | Settled | Delivery | ConsumerCancelled | FlowChanged
