"""The far end of each connector, for the contract suite: it takes, refuses, hangs up or falls silent as told.

A new connector adds a peer here and a line in `PEERS`; without it the contract suite fails.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from typing import Any, ClassVar

import trio
from pamqp.commands import Basic, Channel, Connection, Exchange, Queue
from pamqp.heartbeat import Heartbeat
from trio.testing import memory_stream_pair

from tests.connectors.opening import context
from tests.connectors.outbox import Outbox
from tests.notebook import Notebook
from tests.peers import pki
from tests.wire import scripted_rabbit as amqp
from tests.wire.scripted_broker import CONNACK, PINGRESP, filters_of, parse, puback, publish, suback
from tests.wire.scripted_registry import KEY_ID, REGION, SECRET, ScriptedRegistry
from tests.wire.websocket_server import accept_websocket
from tpxd.config.connection_file import ConnectorConfig
from tpxd.connector import Context
from tpxd.connectors.amqp import AmqpConfig
from tpxd.connectors.aws_iot.config import AwsIotConfig
from tpxd.connectors.http.connector import HttpConfig
from tpxd.connectors.mqtt import MqttConfig
from tpxd.errors import ConnectFailed
from tpxd.wire.amqp.session import PREFETCH
from tpxd.wire.mqtt.codec import split
from tpxd.wire.streams import Endpoint


class Fate(Enum):
    """What the peer does with one uplink."""

    TAKE = auto()
    REFUSE = auto()
    HANG_UP = auto()
    STAY_SILENT = auto()


class Peer(ABC):
    """The far end of one connector.

    Attributes:
        config_model, settings: the least that a file must say, with a pattern that names DevEUI, and credentials.
        can_refuse: the protocol has an answer that refuses one message for good.
        can_downlink: downlinks come over its links.
        outbox: those downlinks.
        decide: the fate of an uplink, by its body.
        credentials_wrong: whoever comes is turned away.
        away: nobody can connect.
        taken: the bodies that got their receipt, in the order in which they came.
    """

    connector_id: ClassVar[str]
    config_model: ClassVar[type[ConnectorConfig]]
    settings: ClassVar[dict[str, Any]]
    can_refuse: ClassVar[bool] = False
    can_downlink: ClassVar[bool] = True
    window: ClassVar[int] = 0

    def __init__(self, nursery: trio.Nursery) -> None:
        self.decide: Callable[[bytes], Fate] = lambda body: Fate.TAKE
        self.credentials_wrong = False
        self.away = False
        self.taken: list[bytes] = []
        self.near_ends: list[trio.abc.Stream] = []
        self.outbox = Outbox(self.window)
        self.memory = Notebook()
        self._far_ends: list[trio.abc.Stream] = []
        self._nursery = nursery

    def config(self, **more: Any) -> ConnectorConfig:
        """The settings, and more."""
        return self.config_model.model_validate(self.settings | more)

    @abstractmethod
    async def serve(self, stream: trio.abc.Stream) -> None:
        """Speak on one link until the client closes it, or until it is to be hung up."""

    async def dial(self, endpoint: Endpoint, timeout_s: float) -> trio.abc.Stream:
        """See `connector.Dial`."""
        await trio.lowlevel.checkpoint()
        if self.away:
            raise ConnectFailed(f"{endpoint}: connection refused (TCP)")
        near, far = memory_stream_pair()
        self.near_ends.append(near)
        self._far_ends.append(far)
        self._nursery.start_soon(self._serve, far)
        return near

    async def _serve(self, stream: trio.abc.Stream) -> None:
        async with stream:
            # the client or `hang_up` may close the link while it is being spoken on
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self.serve(stream)

    async def hang_up(self) -> None:
        """Close all links."""
        for stream in self._far_ends:
            await trio.aclose_forcefully(stream)

    def context(self, *, downlinks: bool = True) -> Context:
        """What the connector is opened with."""
        return context(dial=self.dial, memory=self.memory, proven=lambda: False, downlinks=downlinks)


class HttpPeer(Peer):
    """A web server."""

    connector_id = "actility-http-iot"
    config_model: ClassVar[type[ConnectorConfig]] = HttpConfig
    settings: ClassVar[dict[str, Any]] = {
        "destinationURL": "http://as.example.net/in",
        "headers": {"Authorization": "Bearer fAke-t0ken", "X-Thing": "{DevEUI}"},
    }
    can_refuse = True
    can_downlink = False

    async def serve(self, stream: trio.abc.Stream) -> None:
        """See `Peer`."""
        unread = b""
        while data := await stream.receive_some():
            unread += data
            head, blank, rest = unread.partition(b"\r\n\r\n")
            size = int(head.rpartition(b"Content-Length: ")[2]) if blank else 0
            if not blank or len(rest) < size:
                continue
            body, unread = bytes(rest[:size]), rest[size:]
            if self.credentials_wrong:
                await self._answer(stream, b"401 Unauthorized")
                continue
            match self.decide(body):
                case Fate.TAKE:
                    self.taken.append(body)
                    await self._answer(stream, b"200 OK")
                case Fate.REFUSE:
                    await self._answer(stream, b"422 Unprocessable Content")
                case Fate.HANG_UP:
                    return

    async def _answer(self, stream: trio.abc.Stream, status: bytes) -> None:
        await stream.send_all(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)


class MqttPeer(Peer):
    """An MQTT 3.1.1 broker, which cannot refuse a message."""

    connector_id = "actility-mqtt-iot"
    config_model: ClassVar[type[ConnectorConfig]] = MqttConfig
    settings: ClassVar[dict[str, Any]] = {
        "hostName": "broker.example.net:1883",
        "protocol": "TCP",
        "username": "tpx",
        "password": "fAke",
        "uplinkTopicPattern": "plant/{DevEUI}/up",
    }
    # as many as AWS IoT; other brokers have fewer
    window = 100

    async def serve(self, stream: trio.abc.Stream) -> None:
        """See `Peer`."""
        lock = trio.Lock()

        async def say(data: bytes) -> None:
            async with lock:
                await stream.send_all(data)

        async def downlink(number: int, body: bytes, again: bool) -> None:
            packet = publish("plant/1/down", body, number)
            await say(bytes((packet[0] | again << 3,)) + packet[1:])

        unread = bytearray()
        while data := await stream.receive_some():
            unread += data
            for first, rest in split(unread)[0]:
                packet = parse(first, rest)
                match packet.name:
                    case "CONNECT":
                        # a clean session ends the one of before (MQTT 3.1.1, 3.1.2.4)
                        self.outbox.routed &= not packet.rest[7] & 2
                        await say(b"\x20\x02\x00\x05" if self.credentials_wrong else CONNACK)
                    case "PINGREQ":
                        await say(PINGRESP)
                    case "SUBSCRIBE":
                        assert filters_of(packet) == ["plant/+/down"]
                        self.outbox.routed = True
                        await say(suback(packet.packet_id, 1))
                        await self.outbox.listen(downlink)
                    case "PUBACK":
                        await self.outbox.acknowledge(packet.packet_id)
                    case "PUBLISH":
                        match self.decide(packet.rest):
                            case Fate.TAKE:
                                self.taken.append(packet.rest)
                                await say(puback(packet.packet_id))
                            case Fate.HANG_UP:
                                return


class WebSocketPeer(MqttPeer):
    """The same broker behind a WebSocket."""

    settings: ClassVar[dict[str, Any]] = MqttPeer.settings | {"hostName": "broker.example.net", "protocol": "WSS"}

    async def serve(self, stream: trio.abc.Stream) -> None:
        """See `Peer`."""
        await super().serve(await accept_websocket(stream))


class AwsIotPeer(MqttPeer):
    """AWS IoT: its registry stands beside the broker, and links to it come and go."""

    connector_id = "actility-aws-iot"
    config_model: ClassVar[type[ConnectorConfig]] = AwsIotConfig
    settings: ClassVar[dict[str, Any]] = {
        "region": REGION,
        "accountPrefix": "abc-ats",
        "accessKeyId": KEY_ID,
        "secretAccessKey": SECRET,
        "deviceType": "sensor",
        "uplinkTopicPattern": "plant/{DevEUI}/up",
        "certificate": pki.client().certificate,
        "privateKey": pki.client().private_key,
    }

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__(nursery)
        self.registry = ScriptedRegistry()

    async def dial(self, endpoint: Endpoint, timeout_s: float) -> trio.abc.Stream:
        """See `Peer`."""
        if self.away or endpoint.host != f"iot.{REGION}.amazonaws.com":
            return await super().dial(endpoint, timeout_s)
        await trio.lowlevel.checkpoint()
        near, far = memory_stream_pair()
        # its task ends with the link, so that one that stays open is found
        self._nursery.start_soon(self.registry.serve, far)
        return near


GRANTED: dict[type[Any], Any] = {
    Channel.Open: Channel.OpenOk(),
    Exchange.Declare: Exchange.DeclareOk(),
    Queue.Declare: Queue.DeclareOk("q", 0, 0),
    Queue.Bind: Queue.BindOk(),
    Queue.Unbind: Queue.UnbindOk(),
    Basic.Qos: Basic.QosOk(),
}
"""What a client asks for, and the answer."""


class AmqpPeer(Peer):
    """An AMQP 0-9-1 broker; its only refusal, Basic.Nack, holds an uplink and does not reject it."""

    connector_id = "actility-amqp-0.9.1-iot"
    config_model: ClassVar[type[ConnectorConfig]] = AmqpConfig
    settings: ClassVar[dict[str, Any]] = {
        "hostName": "broker.example.net",
        "protocol": "TCP",
        "username": "tpx",
        "password": "fAke",
        "exchangeName": "plant",
        "uplinkTopicPattern": "plant.{DevEUI}.up",
    }
    # what the client asks for
    window = PREFETCH

    async def serve(self, stream: trio.abc.Stream) -> None:
        """See `Peer`."""
        broker = amqp.ScriptedRabbit(stream)
        if self.credentials_wrong:
            await broker.greet()
            await broker.say(0, Connection.Close(403, "ACCESS_REFUSED - Login was refused", 0, 0))
            await broker.expect(Connection.CloseOk)
            return
        await broker.accept()
        lock = trio.Lock()

        async def say(data: bytes) -> None:
            async with lock:
                await broker.send(data)

        async def downlink(number: int, body: bytes, again: bool) -> None:
            await say(amqp.deliver(number, "plant.1.down", body, redelivered=again))

        tag = 0
        while True:
            match await broker.next():
                case _, Basic.Publish():
                    tag += 1
                    body = await broker.expect_content()
                    match self.decide(body):
                        case Fate.TAKE:
                            self.taken.append(body)
                            await say(amqp.ack(tag))
                        case Fate.REFUSE:
                            await say(amqp.nack(tag))
                        case Fate.HANG_UP:
                            return
                case _, Basic.Ack(delivery_tag=number):
                    await self.outbox.acknowledge(number)
                case channel, Basic.Consume():
                    await say(amqp.on(channel, Basic.ConsumeOk("tpxd")))
                    await self.outbox.listen(downlink)
                case channel, question if type(question) in GRANTED:
                    if isinstance(question, Queue.Bind | Queue.Unbind):
                        self.outbox.routed = isinstance(question, Queue.Bind)
                    await say(amqp.on(channel, GRANTED[type(question)]))
                case _, Heartbeat():
                    await say(amqp.on(0, Heartbeat()))
                case _, Connection.Close():
                    await say(amqp.on(0, Connection.CloseOk()))
                    return


FURTHER_PEERS: dict[str, type[Peer]] = {"actility-mqtt-iot over a WebSocket": WebSocketPeer}
"""Other ways to the connectors of `PEERS`."""

PEERS: dict[str, type[Peer]] = {peer.connector_id: peer for peer in (AmqpPeer, AwsIotPeer, HttpPeer, MqttPeer)}
