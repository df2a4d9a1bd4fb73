"""Downlinks over MQTT: what is subscribed to, what not any more, and what a broker keeps while we are away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.connectors.mqtt_site import ObligingBroker, config, mqtt_site, say
from tests.connectors.opening import context
from tests.connectors.traffic import LANES, Receipts, take
from tests.notebook import Notebook
from tests.peers.mosquitto import Mosquitto, running_mosquitto
from tests.wire.scripted_broker import (
    CONNACK,
    RESUMED,
    ScriptedBroker,
    publish,
    unsuback,
)
from tpxd.connector import Incoming, Outgoing
from tpxd.connectors.mqtt import MqttConfig, open_mqtt_connection
from tpxd.errors import LinkLost, Refused
from tpxd.lorawan.uplink import Uplink
from tpxd.wire.mqtt.client import MqttOptions
from tpxd.wire.mqtt.session import open_mqtt
from tpxd.wire.streams import Endpoint, open_stream

DOWN = config(downlinkTopicPattern="plant/{DevEUI}/down")


async def test_downlinks() -> None:
    async def script(broker: ScriptedBroker) -> None:
        connect = await broker.accept()
        assert connect.rest[7] == 0, "the session must be persistent"
        subscribe = await broker.expect("SUBSCRIBE")
        assert subscribe.rest == b"\0\x0cplant/+/down\1"
        await broker.send(b"\x90\x03" + subscribe.packet_id.to_bytes(2, "big") + b"\1")
        await broker.send(publish("plant/1/down", b"go", 9))
        assert (await broker.expect("PUBACK")).packet_id == 9

    async with trio.open_nursery() as nursery:
        site = mqtt_site(nursery, script)
        settings = config(downlinkTopicPattern="plant/{DevEUI}/down")
        async with open_mqtt_connection(settings, site.context) as transport:
            incoming = await transport.receive()
            assert incoming == Incoming("plant/1/down", b"go", receipt=incoming.receipt)
            await transport.acknowledge(incoming)


async def test_more_waiting_downlinks_than_fit_before_the_subscription_is_confirmed(autojump_clock: MockClock) -> None:
    """A resumed session pours out what it kept: opening must not wait for what comes behind it."""
    count = 512

    async def script(broker: ScriptedBroker) -> None:
        await broker.expect("CONNECT")
        await broker.send(b"\x20\x02\x01\x00" + b"".join(publish("d", b"x", n) for n in range(1, count + 1)))
        subscribe = await broker.expect("SUBSCRIBE")
        await broker.send(b"\x90\x03" + subscribe.packet_id.to_bytes(2, "big") + b"\1")

    settings = config(downlinkTopicPattern="d")
    async with (
        trio.open_nursery() as nursery,
        open_mqtt_connection(settings, mqtt_site(nursery, script).context) as transport,
    ):
        for _ in range(count):
            await transport.receive()


async def test_a_refused_subscription() -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        await broker.expect("SUBSCRIBE")
        await broker.send(b"\x90\x03\0\1\x80")

    async with trio.open_nursery() as nursery:
        with pytest.raises(Refused, match="subscription to d"):
            async with open_mqtt_connection(config(downlinkTopicPattern="d"), mqtt_site(nursery, script).context):
                await trio.sleep_forever()


# ---- filters that the file does not want any more


async def opened(memory: Notebook, settings: MqttConfig, connack: bytes = RESUMED, **parts: Any) -> ObligingBroker:
    """Open and close a connection; returns what its broker saw."""
    broker = ObligingBroker(connack)
    async with trio.open_nursery() as nursery:
        site = mqtt_site(nursery, broker.serve)
        async with open_mqtt_connection(settings, context(dial=site.dial, memory=memory, **parts)):
            await wait_all_tasks_blocked()
    return broker


def several(*patterns: str) -> MqttConfig:
    return config(topics=[{"fPort": port, "downlinkTopicPattern": text} for port, text in enumerate(patterns, 1)])


async def test_filters_follow_the_file() -> None:
    memory = Notebook()
    first = await opened(memory, several("a/{DevEUI}", "b", "c"), CONNACK)
    assert first.asked == [("SUBSCRIBE", ["a/+", "b", "c"])]
    second = await opened(memory, several("c", "d"))
    assert second.asked == [("UNSUBSCRIBE", ["a/+", "b"]), ("SUBSCRIBE", ["c", "d"])]
    assert (first.clean, second.clean) == (False, False)
    assert (await opened(memory, several("c", "d"))).asked == [("SUBSCRIBE", ["c", "d"])]


async def test_a_session_that_the_broker_forgot_has_nothing_to_remove() -> None:
    memory = Notebook()
    await opened(memory, several("a", "b"), CONNACK)
    assert (await opened(memory, several("b"), CONNACK)).asked == [("SUBSCRIBE", ["b"])]
    assert (await opened(memory, several("c"))).asked == [("UNSUBSCRIBE", ["b"]), ("SUBSCRIBE", ["c"])]


@pytest.mark.parametrize("quiet", [config(downlinkTopicPattern="a", downlinkEnabled=False), config()])
async def test_without_downlinks_the_whole_session_goes(quiet: MqttConfig) -> None:
    memory = Notebook()
    await opened(memory, several("a", "b"), CONNACK)
    broker = await opened(memory, quiet)
    assert (broker.clean, broker.asked) == (True, [])
    # the broker forgot with it
    assert set(memory.kept.values()) == {"{}"}


async def test_where_nobody_takes_downlinks_nothing_is_subscribed_to() -> None:
    broker = await opened(Notebook(), DOWN, downlinks=False)
    assert (broker.clean, broker.asked) == (True, [])


async def test_many_filters_go_in_eights() -> None:
    memory = Notebook()
    many, others = [f"a{n}" for n in range(18)], [f"b{n}" for n in range(9)]
    await opened(memory, several(*many), CONNACK)
    assert (await opened(memory, several(*others))).asked == [
        ("UNSUBSCRIBE", many[:8]),
        ("UNSUBSCRIBE", many[8:16]),
        ("UNSUBSCRIBE", many[16:]),
        ("SUBSCRIBE", others[:8]),
        ("SUBSCRIBE", others[8:]),
    ]


@pytest.mark.parametrize("answers", [0, 1])
async def test_what_a_lost_link_left_unfinished_is_known_at_the_next_opening(answers: int) -> None:
    memory = Notebook()
    await opened(memory, several("old"), CONNACK)

    async def fall_silent(broker: ScriptedBroker) -> None:
        await broker.expect("CONNECT")
        await broker.send(RESUMED)
        for _ in range(answers):
            await broker.send(unsuback((await broker.expect("UNSUBSCRIBE")).packet_id))
        await broker.next()
        await broker.stream.aclose()

    async with trio.open_nursery() as nursery:
        site = mqtt_site(nursery, fall_silent)
        with pytest.raises(LinkLost):
            async with open_mqtt_connection(several("new"), context(dial=site.dial, memory=memory)):
                await trio.sleep_forever()
    # whichever of the two the broker has by now, both are known
    third = await opened(memory, several("third"))
    assert third.asked == [("UNSUBSCRIBE", ["old", "new"]), ("SUBSCRIBE", ["third"])]


# ---- against Mosquitto


def bodies(taken: Sequence[Incoming]) -> list[tuple[str, bytes]]:
    return [(incoming.source, incoming.body) for incoming in taken]


def at(broker: Mosquitto, **values: Any) -> MqttConfig:
    return config(hostName=f"127.0.0.1:{broker.port}", **values)


@pytest.mark.broker
async def test_mosquitto_keeps_downlinks_while_we_are_away_and_until_they_are_acknowledged(tmp_path: Path) -> None:
    here = context(memory=Notebook())
    async with running_mosquitto(tmp_path) as broker:
        settings = at(broker, downlinkTopicPattern="plant/{DevEUI}/down")
        async with open_mqtt_connection(settings, here) as transport:
            await say(broker.port, ("plant/1/down", b"first"), ("plant/1/2/down", b"too deep"))
            unacknowledged = await transport.receive()
            assert (unacknowledged.body, unacknowledged.redelivered) == (b"first", False)
        await say(broker.port, ("plant/2/down", b"meanwhile"))
        async with open_mqtt_connection(settings, here) as transport:
            again, meanwhile = await take(transport, 2)
        assert (again.body, again.redelivered) == (b"first", True)
        assert (meanwhile.source, meanwhile.body, meanwhile.redelivered) == ("plant/2/down", b"meanwhile", False)
        async with open_mqtt_connection(settings, here) as transport:
            await take(transport, 0)


@pytest.mark.broker
async def test_mosquitto_sends_nothing_of_a_topic_that_was_edited_away(tmp_path: Path) -> None:
    here = context(memory=Notebook())
    async with running_mosquitto(tmp_path) as broker:
        async with open_mqtt_connection(at(broker, downlinkTopicPattern="old/{DevEUI}"), here) as transport:
            await say(broker.port, ("old/1", b"wanted"))
            assert bodies(await take(transport, 1)) == [("old/1", b"wanted")]
        async with open_mqtt_connection(at(broker, downlinkTopicPattern="new/{DevEUI}"), here) as transport:
            await take(transport, 0)
            await say(broker.port, ("old/1", b"unwanted"), ("new/1", b"wanted"))
            assert bodies(await take(transport, 1)) == [("new/1", b"wanted")]
        off = at(broker, downlinkTopicPattern="new/{DevEUI}", downlinkEnabled=False)
        async with open_mqtt_connection(off, here) as transport:
            await say(broker.port, ("new/1", b"unwanted"))
            await take(transport, 0)
        await say(broker.port, ("new/1", b"unwanted"))
        async with open_mqtt_connection(at(broker, downlinkTopicPattern="new/{DevEUI}"), here) as transport:
            await say(broker.port, ("new/1", b"wanted"))
            assert bodies(await take(transport, 1)) == [("new/1", b"wanted")]


@pytest.mark.broker
async def test_mosquitto_marks_what_it_retained(tmp_path: Path) -> None:
    here = context(memory=Notebook())
    async with running_mosquitto(tmp_path) as broker:
        await say(broker.port, ("d", b"kept"), retain=True)
        for _ in range(2):
            async with open_mqtt_connection(at(broker, downlinkTopicPattern="d"), here) as transport:
                (kept,) = await take(transport, 1)
                assert (kept.body, kept.retained) == (b"kept", True)
                await say(broker.port, ("d", b"now"))
                (now,) = await take(transport, 1)
                assert (now.body, now.retained) == (b"now", False)


@pytest.mark.broker
async def test_mosquitto_gets_reports_about_downlinks_at_a_topic_of_their_own(tmp_path: Path) -> None:
    kinds = ("DevEUI_uplink", "DevEUI_downlink_Sent", "DevEUI_downlink_Rejected")
    batch = []
    for seq, kind in enumerate(kinds, 1):
        body = orjson.dumps({kind: {"DevEUI": LANES[0]}})
        batch.append(Outgoing(Uplink(seq, 0, kind, LANES[0], "", body), body))
    async with running_mosquitto(tmp_path) as broker:
        stream = await open_stream(Endpoint("127.0.0.1", broker.port), 5)
        settings = at(broker, downlinkStatusTopicPattern="plant/{DevEUI}/down/status")
        async with (
            open_mqtt(stream, MqttOptions("application")) as application,
            open_mqtt_connection(settings, context()) as transport,
        ):
            await application.subscribe(["plant/#"])
            await transport.send(batch, Receipts())
            with trio.fail_after(10):
                topics = [(await application.receive()).topic for _ in kinds]
    status = f"plant/{LANES[0]}/down/status"
    assert topics == [f"plant/{LANES[0]}/up", status, status]
