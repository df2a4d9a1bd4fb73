"""Messages of an AMQP link, pure: the broker's are put together, ours wait for their confirmation.

Source: AMQP 0-9-1, section 4.2.6 (content); RabbitMQ, "Consumer Acknowledgements and Publisher Confirms".
"""

from __future__ import annotations

from dataclasses import dataclass

from tpxd.errors import AuthenticationFailed, LinkLost, RemoteViolation
from tpxd.wire.amqp.codec import Basic, Body, Confirmation, Header, Method, message_id
from tpxd.wire.amqp.login import words

NO_ROUTE = 312


@dataclass(frozen=True, slots=True)
class Content:
    """A whole message of the broker; `body` is empty when it was longer than is kept."""

    method: Basic.Deliver | Basic.Return
    header: Header
    body: bytes


class Assembly:
    """One message on its way in: its method, its header, and as many bodies as the header says."""

    def __init__(self, method: Basic.Deliver | Basic.Return, max_bytes: int) -> None:
        self._method = method
        self._max_bytes = max_bytes
        self._header: Header | None = None
        self._body = bytearray()
        self._missing = 0

    def add(self, frame: Header | Body) -> Content | None:
        """Take the next frame; returns the message when this was its last.

        Raises:
            RemoteViolation: it is not the frame that must come now, or brings more than the header said.
        """
        if isinstance(frame, Header):
            if self._header is not None:
                raise RemoteViolation("a second header of one message")
            self._header, self._missing = frame, frame.body_bytes
        elif self._header is None:
            raise RemoteViolation("the body of a message before its header")
        else:
            if not 0 < len(frame.data) <= self._missing:
                raise RemoteViolation(f"{len(frame.data)} bytes of a message that lacks {self._missing}")
            self._missing -= len(frame.data)
            if self._header.body_bytes <= self._max_bytes:
                self._body += frame.data
        return Content(self._method, self._header, bytes(self._body)) if not self._missing else None


class Unconfirmed:
    """What was published on a channel in confirm mode and has no confirmation yet."""

    def __init__(self) -> None:
        # ascending, since tags only grow
        self._id_by_tag: dict[int, str] = {}
        self._returned: dict[int, Refusal] = {}
        self._last_tag = 0

    def add(self, name: str) -> int:
        """A message with this id was sent; returns its tag."""
        self._last_tag += 1
        self._id_by_tag[self._last_tag] = name
        return self._last_tag

    def returned(self, content: Content) -> None:
        """The broker sends one back, before it confirms it.

        Raises:
            RemoteViolation: it is none of ours.
        """
        assert isinstance(content.method, Basic.Return)
        name, code = message_id(content.header), content.method.reply_code
        for tag, sent in self._id_by_tag.items():
            if sent == name and tag not in self._returned:
                self._returned[tag] = Refusal(words(code, content.method.reply_text), code == NO_ROUTE)
                return
        raise RemoteViolation(f"a message is returned that was not sent: {name}")

    def settle(self, confirmation: Confirmation) -> list[Settled]:
        """The broker confirms one message, or with `multiple` all up to one.

        Raises:
            RemoteViolation: no message waits for it.
        """
        tags = self._up_to(confirmation.tag or self._last_tag) if confirmation.multiple else [confirmation.tag]
        if not tags or confirmation.tag > self._last_tag:
            raise RemoteViolation(f"a confirmation of {confirmation.tag}, for which no message waits")
        for tag in tags:
            if self._id_by_tag.pop(tag, None) is None:
                raise RemoteViolation(f"a confirmation of {tag}, for which no message waits")
        settled = [Settled([tag], self._returned.pop(tag)) for tag in tags if tag in self._returned]
        if settled:
            refused = {item.tags[0] for item in settled}
            tags = [tag for tag in tags if tag not in refused]
        if tags:
            refusal = Refusal("the broker could not take it (Basic.Nack)", False) if confirmation.refused else None
            settled.append(Settled(tags, refusal))
        return settled

    def _up_to(self, last: int) -> list[int]:
        tags = []
        for tag in self._id_by_tag:
            if tag > last:
                break
            tags.append(tag)
        return tags


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
