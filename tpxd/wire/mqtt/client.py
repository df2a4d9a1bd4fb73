"""An MQTT 3.1.1 client that never waits: bytes in, packets and bytes out.

Theory of operation
    Commands (`publish`, `subscribe`, `acknowledge`, …) append to one outgoing buffer and return the packet id, if any.
    `receive_data` takes whatever arrived and returns the packets that concern the caller, in order; what the broker
    may not say raises. `outgoing` drains what must be sent. Time is an argument: `next_deadline` says when to call
    `tick`, which pings, and notices that an answer is overdue.

    A packet id belongs to one command until its acknowledgement or the end of the link, also when nobody waits for it
    any more: used again too early, a late PUBACK would confirm another message.

    A ping is due when nothing was sent for the keep-alive time, as the protocol asks, and when nothing came: only an
    answer shows that a link that swallows messages of QoS 0 is alive.

What this does not do
    Sockets, clocks, tasks, reconnecting. QoS 2 in either direction. Sending again with DUP in a resumed session (4.4):
    whoever keeps the messages sends them as new ones, which at QoS 1 means the same to a broker. Wills.

Source: MQTT 3.1.1, sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal

from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost, LocalMisuse, RemoteViolation
from tpxd.wire.mqtt import codec
from tpxd.wire.mqtt.codec import ConnAck, Packet, PingResp, PubAck, Publish, SubAck, UnsubAck
from tpxd.wire.next_steps import NextStep

QoS = Literal[0, 1]
MAX_PACKET_ID = 0xFFFF


@dataclass(frozen=True, slots=True)
class MqttOptions:
    """How a session introduces itself, and its limits.

    Attributes:
        clean_session: False: the broker keeps subscriptions, and messages for them, while we are away.
        keep_alive_s: longest silence on the link before a ping.
        connect_timeout_s: from CONNECT to CONNACK.
        answer_timeout_s: from SUBSCRIBE, UNSUBSCRIBE or PINGREQ to its answer.
        window: unacknowledged messages under way at once.
        max_incoming_bytes: a longer message from the broker comes without its body; any other packet ends the link.
        login_hint: what to do when the broker refuses us.
    """

    client_id: str
    clean_session: bool = True
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    keep_alive_s: int = 60
    connect_timeout_s: float = 10.0
    answer_timeout_s: float = 10.0
    window: int = 1024
    max_incoming_bytes: int = codec.MAX_INCOMING_BYTES
    login_hint: str = "check user name, password, and what the broker allows this client id"


class State(Enum):
    """Where the link stands; it never goes back."""

    CONNECTING = auto()
    CONNECTED = auto()
    DISCONNECTED = auto()


class MqttClient:
    """One link, from CONNECT to DISCONNECT. CONNECT is in the outgoing buffer from the beginning.

    Raises:
        LocalMisuse: from every command while the state is not CONNECTED.
    """

    def __init__(self, options: MqttOptions, now: float) -> None:
        self.state = State.CONNECTING
        self._options = options
        self._incoming = bytearray()
        # bytes of a too long message that are still to come
        self._left_out = 0
        self._outgoing = bytearray(
            codec.encode_connect(
                options.client_id,
                clean_session=options.clean_session,
                keep_alive_s=options.keep_alive_s,
                username=options.username,
                password=options.password,
            )
        )
        # what each packet id under way must be answered with
        self._expected: dict[int, type[PubAck | SubAck | UnsubAck]] = {}
        self._last_id = 0
        # identifiers of the broker's messages that nobody has acknowledged
        self._unacknowledged: set[int] = set()
        self._last_sent = self._last_received = now
        self._ping_sent: float | None = None

    # ---- bytes

    @property
    def has_outgoing(self) -> bool:
        """Whether `outgoing` has something to send."""
        return bool(self._outgoing)

    def outgoing(self, now: float) -> bytes:
        """Take everything that must be sent, whole packets only."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        self._last_sent = now
        return data

    def receive_data(self, data: bytes | bytearray, now: float) -> list[Packet]:
        """Take what arrived, cut anywhere, and return the complete packets that concern the caller.

        Raises:
            RemoteViolation: the broker broke the protocol.
            AuthenticationFailed, ConnectFailed: CONNACK says no.
            After any of these the link must be given up, and nothing of `data` counts as acknowledged.
        """
        self._last_received = now
        self._incoming += data
        if self._left_out:
            gone = min(self._left_out, len(self._incoming))
            del self._incoming[:gone]
            self._left_out -= gone
        packets = []
        found, missing = codec.split(self._incoming, self._options.max_incoming_bytes)
        self._left_out += missing
        for first, rest in found:
            packet = codec.decode(first, rest)
            if self._accept(packet):
                packets.append(packet)
        return packets

    def _accept(self, packet: Packet) -> bool:
        """Apply one packet to the state; True when the caller should see it."""
        if isinstance(packet, ConnAck):
            self._accept_connack(packet)
            return True
        if self.state is State.CONNECTING:
            raise RemoteViolation(f"{type(packet).__name__} before CONNACK")
        if isinstance(packet, PingResp):
            if self._ping_sent is None:
                raise RemoteViolation("PINGRESP answers nothing that was sent")
            self._ping_sent = None
            return False
        if isinstance(packet, Publish):
            if packet.packet_id is not None:
                self._unacknowledged.add(packet.packet_id)
            return True
        if self._expected.pop(packet.packet_id, None) is not type(packet):
            raise RemoteViolation(f"{type(packet).__name__} {packet.packet_id} acknowledges nothing that was sent")
        return True

    def _accept_connack(self, connack: ConnAck) -> None:
        if self.state is not State.CONNECTING:
            raise RemoteViolation("a second CONNACK")
        if connack.return_code in (4, 5):
            reason = "user name or password" if connack.return_code == 4 else "this client, which is not authorized"
            raise AuthenticationFailed(
                f"the broker refuses {reason} (CONNACK {connack.return_code})",
                hint=self._options.login_hint,
            )
        if connack.return_code:
            reason, hint = _REFUSALS.get(connack.return_code, ("without a known reason", "its log may tell"))
            raise ConnectFailed(
                f"the broker refuses the connection: {reason} (CONNACK {connack.return_code})", hint=hint
            )
        if connack.session_present and self._options.clean_session:
            raise RemoteViolation("CONNACK tells of a session although a clean one was asked for")
        self.state = State.CONNECTED

    # ---- commands

    def publish(self, topic: str, body: bytes, *, qos: QoS = 1, retain: bool = False) -> int | None:
        """Queue a message; returns the id that its PUBACK will carry, or None for QoS 0.

        Raises:
            LocalMisuse: all packet ids are in use: see `free_ids`.
        """
        self._must_be_connected()
        packet_id = self._reserve_id(PubAck) if qos else None
        self._outgoing += codec.encode_publish(topic, body, packet_id, retain)
        return packet_id

    def subscribe(self, filters: Sequence[str], qos: QoS = 1) -> int:
        """Ask for messages; returns the id that the SUBACK will carry."""
        self._must_be_connected()
        packet_id = self._reserve_id(SubAck)
        self._outgoing += codec.encode_subscribe(packet_id, [(text, qos) for text in filters])
        return packet_id

    def unsubscribe(self, filters: Sequence[str]) -> int:
        """End subscriptions; returns the id that the UNSUBACK will carry."""
        self._must_be_connected()
        packet_id = self._reserve_id(UnsubAck)
        self._outgoing += codec.encode_unsubscribe(packet_id, filters)
        return packet_id

    def acknowledge(self, packet_id: int) -> None:
        """Tell the broker that its message is ours now; does nothing when it was told before."""
        self._must_be_connected()
        if packet_id in self._unacknowledged:
            self._unacknowledged.remove(packet_id)
            self._outgoing += codec.encode_puback(packet_id)

    def disconnect(self) -> None:
        """Queue the last packet of this link."""
        self._must_be_connected()
        self.state = State.DISCONNECTED
        self._outgoing += codec.DISCONNECT

    @property
    def free_ids(self) -> int:
        """How many commands with a packet id may still be given before an acknowledgement comes."""
        return MAX_PACKET_ID - len(self._expected)

    def _must_be_connected(self) -> None:
        if self.state is not State.CONNECTED:
            raise LocalMisuse(f"no command is possible while {self.state.name}")

    def _reserve_id(self, answer: type[PubAck | SubAck | UnsubAck]) -> int:
        if not self.free_ids:
            raise LocalMisuse("all packet identifiers are in use")
        packet_id = self._last_id
        while True:
            packet_id = packet_id % MAX_PACKET_ID + 1
            if packet_id not in self._expected:
                break
        self._last_id = packet_id
        self._expected[packet_id] = answer
        return packet_id

    # ---- time

    def next_deadline(self) -> float:
        """When to call `tick`; later activity only moves it later."""
        if self._ping_sent is not None:
            # on a slow link the ping waits behind a batch; whatever comes shows that the broker lives
            return max(self._ping_sent, self._last_received) + self._options.answer_timeout_s
        return min(self._last_sent, self._last_received) + self._options.keep_alive_s

    def tick(self, now: float) -> None:
        """Ping when it is due; does nothing before `next_deadline`.

        Raises:
            LinkLost: the answer to a ping is overdue.
        """
        if self.state is not State.CONNECTED or now < self.next_deadline():
            return
        if self._ping_sent is not None:
            raise LinkLost(
                f"the broker did not answer a ping within {self._options.answer_timeout_s:g} s",
                hint="is the network up, and the broker alive?",
            )
        self._ping_sent = now
        self._outgoing += codec.PINGREQ


# 4 and 5 are refused credentials
_REFUSALS = {
    1: ("it does not speak MQTT 3.1.1", "the broker must allow protocol version 4"),
    2: ("it does not accept the client id", NextStep.CLIENT_ID),
    3: ("it is not available", "the broker is up but does not serve yet"),
}
