"""An AMQP 0-9-1 client that never waits: bytes in, events and bytes out.

Theory of operation
    Logging in happens by itself, as `login` decides, and ends with `Opened`: channel `PUBLISHING` is open then, in
    confirm mode. Channel `CONSUMING` belongs to declarations and deliveries; who needs it opens it with `ask`, again
    after the broker closed it, as it does on every refused declaration. Each question has a number, which its answer
    carries; the answers of a channel come in the order of its questions.

    `publish` returns the tag that its confirmation will carry; tags only grow. The broker returns a message that it can
    route nowhere before it confirms it; our message id tells which one it was. Both come out as one `Settled`.

    Time is an argument: `next_deadline` says when to call `tick`. A heartbeat goes out when nothing was sent for half
    the agreed time; twice that time with nothing received is the end of the link.

What this does not do
    Sockets, clocks, tasks, reconnecting. Transactions, Basic.Get, more than one consumer.

Source: AMQP 0-9-1, sections 2.2, 4.2.7 (heartbeats) and 4.4; RabbitMQ, "Consumer Acknowledgements and Publisher
Confirms", "Blocked Connection Notifications", "Consumer Cancel Notification".
"""

from __future__ import annotations

from collections import deque

from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost, LocalMisuse, RemoteViolation
from tpxd.log import quoted
from tpxd.wire.amqp import codec, login
from tpxd.wire.amqp.codec import (
    Basic,
    Body,
    Channel,
    Confirm,
    Confirmation,
    Connection,
    Frame,
    Header,
    Heartbeat,
    Method,
)
from tpxd.wire.amqp.content import (
    Answer,
    Assembly,
    ChannelClosed,
    Closed,
    ConsumerCancelled,
    Content,
    Delivery,
    Event,
    FlowChanged,
    Opened,
    Unconfirmed,
)
from tpxd.wire.amqp.login import AmqpOptions, State
from tpxd.wire.flood import Allowance

PUBLISHING, CONSUMING = 1, 2
NEVER = float("inf")


class AmqpClient:
    """One link. The protocol header is in the outgoing buffer from the beginning.

    Raises:
        LocalMisuse: from every command while the state is not CONNECTED or its channel was never opened.
        LinkLost: from every command after the broker closed the connection or the channel.
    """

    def __init__(self, options: AmqpOptions, now: float) -> None:
        self.state = State.STARTING
        # by channel, 0 for the connection
        self._silenced: dict[int, str] = {}
        self._options = options
        self._incoming = bytearray()
        self._outgoing = bytearray(codec.PROTOCOL_HEADER)
        self._max_frame_bytes = codec.MIN_FRAME_BYTES
        self._heartbeat_s = 0
        self._last_sent = self._last_received = now
        # questions that wait for their answer, by channel, which is there as long as it is open
        self._questions: dict[int, deque[tuple[int, Method]]] = {}
        self._last_question = 0
        # what the broker has closed and why, by channel, 0 for the connection
        self._closed: dict[int, str] = {}
        self._assemblies: dict[int, Assembly] = {}
        self._unconfirmed = Unconfirmed()
        self._unacknowledged: set[int] = set()
        self._heartbeats = Allowance()
        self._events: list[Event] = []

    # ---- bytes

    @property
    def has_outgoing(self) -> bool:
        """Whether `outgoing` has something to send."""
        return bool(self._outgoing)

    def outgoing(self, now: float) -> bytes:
        """Take everything that must be sent, whole frames only."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        self._last_sent = now
        return data

    def receive_data(self, data: bytes | bytearray, now: float) -> list[Event]:
        """Take what arrived, cut anywhere, and return what it means, in order.

        Raises:
            RemoteViolation: the broker broke the protocol.
            AuthenticationFailed, ConnectFailed: the two cannot agree on a login.
            After any of these the link must be given up, and nothing of `data` counts as confirmed.
        """
        self._last_received = now
        self._incoming += data
        if self.state is State.STARTING:
            login.refuse_other_protocols(self._incoming)
        for kind, channel, payload in codec.split(self._incoming, self._max_frame_bytes):
            frame = codec.decode(kind, channel, payload)
            if self.state in (State.CLOSING, State.CLOSED):
                self._accept_while_closing(channel, frame)
            else:
                self._accept(channel, frame)
        events, self._events = self._events, []
        return events

    def ended(self, reason: str, hint: str | None) -> AuthenticationFailed | LinkLost:
        """The error that the end of the stream means at this point."""
        return login.ended(self.state, reason, hint)

    def _accept(self, channel: int, frame: Frame) -> None:
        if isinstance(frame, Heartbeat):
            self._heartbeats.spend(self._last_received, "heartbeats")
            return
        if channel and channel not in self._questions:
            raise RemoteViolation(f"something on channel {channel}, which is not open")
        if isinstance(frame, Header | Body):
            self._add_content(channel, frame)
        elif channel in self._assemblies:
            raise RemoteViolation("a method where the rest of a message must be")
        elif isinstance(frame, Confirmation):
            if channel != PUBLISHING:
                raise RemoteViolation(f"a confirmation on channel {channel}, on which nothing is published")
            self._events += self._unconfirmed.settle(frame)
        elif channel:
            self._accept_on_channel(channel, frame)
        else:
            self._accept_on_connection(frame)

    # ---- the connection

    def _accept_on_connection(self, method: Method) -> None:
        match self.state, method:
            case _, Connection.Close():
                self._closed_by_broker(method)
            case State.STARTING, Connection.Start():
                self._send(0, login.introduce(method, self._options))
                self.state = State.AUTHENTICATING
            case State.AUTHENTICATING, Connection.Tune():
                agreed = login.agree(method, self._options)
                self._max_frame_bytes, self._heartbeat_s = agreed.frame_max, agreed.heartbeat
                self._send(0, agreed)
                self._send(0, Connection.Open(virtual_host=self._options.virtual_host))
                self.state = State.OPENING
            case State.OPENING, Connection.OpenOk() if not self._questions:
                self._questions[PUBLISHING] = deque()
                self._ask(PUBLISHING, Channel.Open())
                self._ask(PUBLISHING, Confirm.Select())
            case State.CONNECTED, Connection.Blocked():
                self._silence(0, quoted(method.reason) or "no reason given")
            case State.CONNECTED, Connection.Unblocked():
                self._silence(0, None)
            case _:
                raise RemoteViolation(f"{method.name} while {self.state.name}")

    def _closed_by_broker(self, close: Connection.Close) -> None:
        before, self.state = self.state, State.CLOSED
        self._send(0, Connection.CloseOk())
        error: AuthenticationFailed | LinkLost
        if before is State.CONNECTED:
            reason = login.words(close.reply_code, close.reply_text)
            error = LinkLost(f"the broker closed the connection: {reason}", hint="its log may tell more")
        else:
            error = login.refused(close.reply_code, close.reply_text, opening=before is State.OPENING)
        self._closed[0] = str(error)
        self._events.append(Closed(error))

    def _accept_while_closing(self, channel: int, frame: Frame) -> None:
        """Nothing counts any more but the end (2.2.4)."""
        if isinstance(frame, Connection.Close) and not channel:
            self._send(0, Connection.CloseOk())
        elif isinstance(frame, Connection.CloseOk) and not channel:
            self.state = State.CLOSED

    def _silence(self, channel: int, reason: str | None) -> None:
        if reason is None:
            self._silenced.pop(channel, None)
        else:
            self._silenced[channel] = reason
        self._events.append(FlowChanged())

    # ---- channels

    def _accept_on_channel(self, channel: int, method: Method) -> None:
        match method:
            case Channel.Close():
                self._close_channel(channel, method)
            case Channel.Flow():
                self._send(channel, Channel.FlowOk(active=method.active))
                self._silence(channel, None if method.active else "it asked for silence (Channel.Flow)")
            case Basic.Return() if channel == PUBLISHING:
                self._assemblies[channel] = Assembly(method, 0)
            case Basic.Deliver() if channel == CONSUMING:
                self._assemblies[channel] = Assembly(method, self._options.max_incoming_bytes)
            case Basic.Cancel() if channel == CONSUMING:
                if not method.nowait:
                    self._send(channel, Basic.CancelOk(consumer_tag=method.consumer_tag))
                self._events.append(ConsumerCancelled())
            case _:
                self._answer(channel, method)

    def _answer(self, channel: int, method: Method) -> None:
        questions = self._questions[channel]
        if not questions or method.name not in questions[0][1].valid_responses:
            raise RemoteViolation(f"{method.name} answers nothing that was asked")
        number, _ = questions.popleft()
        if self.state is not State.OPENING:
            self._events.append(Answer(number, method))
        elif isinstance(method, Confirm.SelectOk):
            self.state = State.CONNECTED
            self._events.append(Opened())

    def _close_channel(self, channel: int, close: Channel.Close) -> None:
        self._send(channel, Channel.CloseOk())
        reason = login.words(close.reply_code, close.reply_text)
        if self.state is State.OPENING:
            raise ConnectFailed(f"the broker opens no channel: {reason}")
        questions = tuple(number for number, _ in self._questions.pop(channel))
        self._closed[channel] = f"the broker closed the channel: {reason}"
        self._silenced.pop(channel, None)
        if channel == CONSUMING:
            self._unacknowledged.clear()
        self._events.append(ChannelClosed(channel, close.reply_code or 0, reason, questions))

    # ---- messages

    def _add_content(self, channel: int, frame: Header | Body) -> None:
        assembly = self._assemblies.get(channel)
        if assembly is None:
            raise RemoteViolation(f"a {type(frame).__name__.lower()} of a message that nobody announced")
        if content := assembly.add(frame):
            del self._assemblies[channel]
            if isinstance(content.method, Basic.Return):
                self._unconfirmed.returned(content)
            else:
                self._deliver(content.method, content)

    def _deliver(self, method: Basic.Deliver, content: Content) -> None:
        tag = method.delivery_tag
        if not tag or tag in self._unacknowledged:
            raise RemoteViolation(f"a delivery with the tag {tag}")
        self._unacknowledged.add(tag)
        self._events.append(
            Delivery(
                tag, method.routing_key or "", content.body, content.header.body_bytes, redelivered=method.redelivered
            )
        )

    # ---- commands

    @property
    def blocked(self) -> str | None:
        """Why the broker wants nothing published at the moment, or None."""
        return next(iter(self._silenced.values()), None)

    def publish(self, exchange: str, routing_key: str, body: bytes, message_id: str, timestamp_s: int) -> int:
        """Queue a persistent message that must be routed; returns the tag that its confirmation will carry.

        Args:
            message_id: stays with the message; consumers may recognise one that came twice.
        """
        self._must_be_open(PUBLISHING)
        self._outgoing += codec.encode_publish(
            PUBLISHING, exchange, routing_key, body, message_id, timestamp_s, self._max_frame_bytes
        )
        return self._unconfirmed.add(message_id)

    def ask(self, method: Method, channel: int = CONSUMING) -> int:
        """Queue a question; returns the number that its answer will carry. Channel.Open opens the channel."""
        if isinstance(method, Channel.Open) and channel not in self._questions:
            self._questions[channel] = deque()
            self._closed.pop(channel, None)
        self._must_be_open(channel)
        return self._ask(channel, method)

    def acknowledge(self, tag: int) -> None:
        """Tell the broker that its message is ours now; does nothing when it was told before."""
        if self._forget(tag):
            self._send(CONSUMING, Basic.Ack(delivery_tag=tag))

    def reject(self, tag: int) -> None:
        """Tell the broker that nobody wants this message; a dead-letter exchange of the queue may."""
        if self._forget(tag):
            self._send(CONSUMING, Basic.Reject(delivery_tag=tag, requeue=False))

    def disconnect(self) -> None:
        """Queue the last frame of this link; CLOSED follows when the broker agreed."""
        if self.state is not State.CONNECTED:
            raise LocalMisuse(f"no command is possible while {self.state.name}")
        self.state = State.CLOSING
        self._send(0, Connection.Close(reply_code=200, reply_text="goodbye", class_id=0, method_id=0))

    def is_open(self, channel: int) -> bool:
        """Whether commands are possible on this channel."""
        return self.state is State.CONNECTED and channel in self._questions

    def _must_be_open(self, channel: int) -> None:
        # the broker may have closed it while the caller was on its way here
        if reason := self._closed.get(0) or self._closed.get(channel):
            raise LinkLost(reason)
        if not self.is_open(channel):
            raise LocalMisuse(f"no command is possible on channel {channel} while {self.state.name}")

    def _ask(self, channel: int, method: Method) -> int:
        self._last_question += 1
        self._questions[channel].append((self._last_question, method))
        self._send(channel, method)
        return self._last_question

    def _forget(self, tag: int) -> bool:
        self._must_be_open(CONSUMING)
        known = tag in self._unacknowledged
        self._unacknowledged.discard(tag)
        return known

    def _send(self, channel: int, method: Method) -> None:
        self._outgoing += codec.encode(method, channel)

    # ---- time

    def next_deadline(self) -> float:
        """When to call `tick`; later activity only moves it later."""
        if not self._heartbeat_s:
            return NEVER
        return min(self._last_sent + self._heartbeat_s / 2, self._last_received + 2 * self._heartbeat_s)

    def tick(self, now: float) -> None:
        """Send a heartbeat when it is due; does nothing before `next_deadline`.

        Raises:
            LinkLost: the broker was silent for two heartbeats.
        """
        if self.state is not State.CONNECTED or now < self.next_deadline():
            return
        if now >= self._last_received + 2 * self._heartbeat_s:
            raise LinkLost(
                f"the broker was silent for {2 * self._heartbeat_s} s, the time of two heartbeats",
                hint="is the network up, and the broker alive?",
            )
        # not left to `outgoing`, which nobody calls while the far end reads nothing
        self._last_sent = now
        self._outgoing += codec.HEARTBEAT
