"""The AWS IoT connector at work: what it sends and in which order, what it leaves out, what AWS's silences mean."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.connectors.mqtt_site import mqtt_site
from tests.connectors.peers import AwsIotPeer
from tests.connectors.traffic import LANES, Receipts, outgoing
from tests.wire.scripted_broker import ScriptedBroker, puback
from tests.wire.scripted_registry import DENIED, Fault
from tpxd.connector import Context
from tpxd.connectors.aws_iot.config import AwsIotConfig
from tpxd.connectors.aws_iot.connector import MAX_BODY_BYTES, MAX_IN_FLIGHT, open_aws_iot
from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost, Refused, TransportError
from tpxd.wire.tls import TlsContextCache

A, B, C = LANES
CACHE = TlsContextCache()
STATION = "0000000B"
"""A base station, which is no thing."""

CONNECT_HINT = (
    "does the policy of the certificate or access key allow iot:Connect for the client id tpxd-0badcafe-plant, and is "
    "the certificate active?"
)
PUBLISH_HINT = (
    "AWS IoT closes a link when the policy does not allow iot:Publish or iot:Subscribe for a topic, and when another "
    "client takes the client id tpxd-0badcafe-plant"
)


def config(**values: Any) -> AwsIotConfig:
    return AwsIotConfig.model_validate(AwsIotPeer.settings | values)


def context(peer: AwsIotPeer) -> Context:
    """The peer's, with TLS contexts that last: one costs more than a test."""
    return replace(peer.context(), tls=CACHE)


def taken(peer: AwsIotPeer) -> list[int]:
    """The numbers of the uplinks that AWS took, in order."""
    return [int(orjson.loads(body)["n"]) for body in peer.taken]


# ---- limits


async def test_what_is_beyond_the_limits_is_rejected_and_the_rest_goes(nursery: trio.Nursery) -> None:
    peer, receipts = AwsIotPeer(nursery), Receipts()
    batch = [
        outgoing(0, name="ö" * 121),
        outgoing(1, name="ö" * 122),
        outgoing(2),
        replace(outgoing(3, name="n"), body=b'{"n":3}'.ljust(MAX_BODY_BYTES)),
        replace(outgoing(4, name="n"), body=b'{"n":4}'.ljust(MAX_BODY_BYTES + 1)),
        # slashes in a value make no levels
        outgoing(5, name="a/b/c"),
    ]
    async with open_aws_iot(config(uplinkTopicPattern="1/2/3/4/5/6/7/{name}"), context(peer)) as transport:
        await transport.send(batch, receipts)
    assert taken(peer) == receipts.delivered_ == [0, 3, 5]
    assert receipts.rejected_ == {
        1: "its topic has 258 bytes, and AWS IoT takes 256",
        2: "the uplink has no name, which uplinkTopicPattern asks for",
        4: "the uplink has 131073 bytes, and AWS IoT takes 131072",
    }


async def test_not_more_than_a_hundred_are_under_way(autojump_clock: MockClock) -> None:
    most = 0

    async def script(broker: ScriptedBroker) -> None:
        nonlocal most
        await broker.accept()
        for _ in range(2):
            ids = [(await broker.expect("PUBLISH")).packet_id for _ in range(MAX_IN_FLIGHT)]
            with trio.move_on_after(5) as quiet:
                await broker.next()
            assert quiet.cancelled_caught, "one more came before any receipt"
            most += len(ids)
            await broker.send(b"".join(map(puback, ids)))

    receipts = Receipts()
    async with (
        trio.open_nursery() as nursery,
        open_aws_iot(config(), replace(mqtt_site(nursery, script).context, tls=CACHE)) as transport,
    ):
        await transport.send([outgoing(n, STATION) for n in range(200)], receipts)
    assert (most, receipts.delivered_) == (200, list(range(200)))


# ---- new devices


async def test_a_new_device_holds_up_nobody_else_and_stays_in_order(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    peer, receipts = AwsIotPeer(nursery), Receipts()
    async with open_aws_iot(config(actionTimeout=4_000), context(peer)) as transport:
        await transport.send([outgoing(0, A)], Receipts())
        assert peer.registry.things == {A: "sensor"}
        peer.registry.silent = True
        lanes = [B, A, STATION, B, C, A, B]
        begun = trio.current_time()
        async with trio.open_nursery() as sending:
            sending.start_soon(transport.send, [outgoing(10 + n, lane) for n, lane in enumerate(lanes)], receipts)
            await wait_all_tasks_blocked()
            assert receipts.delivered_ == [1, 2, 5], "known devices, and what is none, do not wait for the registry"
        # a registry that says nothing costs new devices their place in it for now, not their uplinks
        assert trio.current_time() - begun == pytest.approx(4)
    assert receipts.delivered_ == [1, 2, 5, 0, 3, 4, 6]
    assert taken(peer) == [0, 11, 12, 15, 10, 13, 14, 16]


async def test_a_device_that_must_not_be_registered_is_told_and_its_uplinks_go(nursery: trio.Nursery) -> None:
    peer, receipts, troubles = AwsIotPeer(nursery), Receipts(), list[TransportError | None]()
    peer.registry.always["POST /things/"] = DENIED
    batch = [outgoing(n, lane) for n, lane in ((1, B), (2, A), (3, B))]
    async with open_aws_iot(config(), replace(context(peer), troubled=troubles.append)) as transport:
        await transport.send(batch, receipts)
        await transport.send([outgoing(4, B)], Receipts())
    assert taken(peer) == [1, 2, 3, 4]
    assert len(receipts.delivered_) == len(batch)
    (trouble,) = troubles
    assert trouble is not None
    assert trouble.hint == "allow iot:CreateThing in the IAM policy of accessKeyId", "and no word of MQTT"


async def test_a_question_that_the_registry_refuses_says_nothing_of_mqtt(nursery: trio.Nursery) -> None:
    peer = AwsIotPeer(nursery)
    peer.registry.always["GET /things/"] = Fault(400, "InvalidRequestException", "1 validation error detected")
    with pytest.raises(Refused) as caught:
        async with open_aws_iot(config(createDevices=False), context(peer)) as transport:
            await transport.send([outgoing(1, A)], Receipts())
    assert "iot:DescribeThing: 400 Bad Request InvalidRequestException" in str(caught.value)
    assert caught.value.hint is None


async def test_devices_that_are_not_registered_are_left_out(nursery: trio.Nursery) -> None:
    peer, receipts = AwsIotPeer(nursery), Receipts()
    peer.registry.things[A] = "sensor"
    async with open_aws_iot(config(createDevices=False), context(peer)) as transport:
        await transport.send([outgoing(n, lane) for n, lane in enumerate((B, A, STATION, B, A))], receipts)
    reason = "its device is not in the registry of AWS IoT, and createDevices = false"
    assert receipts.filtered_ == {0: reason, 3: reason}
    assert taken(peer) == receipts.delivered_ == [2, 1, 4]
    assert peer.registry.things == {A: "sensor"}


@given(
    lanes=st.lists(st.sampled_from([A, B, C, STATION]), min_size=1, max_size=12),
    big=st.sets(st.integers(0, 11)),
    registered=st.sets(st.sampled_from([A, B, C])),
    creates=st.booleans(),
    denied=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_device_stays_in_order_and_every_uplink_has_one_fate(
    lanes: list[str], big: set[int], registered: set[str], creates: bool, denied: bool
) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            peer, receipts = AwsIotPeer(nursery), Receipts()
            peer.registry.things = dict.fromkeys(registered, "sensor")
            if denied:
                peer.registry.always = {f"POST /things/{B}": DENIED, f"GET /things/{B}": DENIED}
            batch = [outgoing(n, lane) for n, lane in enumerate(lanes)]
            for n in big & {*range(len(lanes))}:
                batch[n].body = bytes(MAX_BODY_BYTES + 1)
            held: set[int] = set()
            try:
                async with open_aws_iot(config(createDevices=creates), context(peer)) as transport:
                    await transport.send(batch, receipts)
            except AuthenticationFailed:
                held = {*range(len(lanes))} - {*receipts.delivered_, *receipts.filtered_, *receipts.rejected_}
                assert not creates
                assert B in {lanes[n] for n in held}
                assert STATION not in {lanes[n] for n in held}
            fates = [*receipts.delivered_, *receipts.filtered_, *receipts.rejected_, *held]
            assert sorted(fates) == list(range(len(lanes)))
            assert {*receipts.rejected_} == big & {*fates} - {*receipts.filtered_} - held
            assert {lanes[n] for n in receipts.filtered_} <= (set() if creates else {A, B, C} - registered)
            for lane in {*lanes}:
                sent = [n for n in taken(peer) if lanes[n] == lane]
                assert sent == sorted(n for n in receipts.delivered_ if lanes[n] == lane)

    trio.run(main, clock=MockClock(autojump_threshold=0))


# ---- what AWS leaves unsaid


async def failure(script: Callable[[ScriptedBroker], Awaitable[None]]) -> TransportError:
    """What a broker of this script makes of one uplink."""
    async with trio.open_nursery() as nursery:
        with pytest.raises(TransportError) as caught:
            async with open_aws_iot(config(), replace(mqtt_site(nursery, script).context, tls=CACHE)) as transport:
                await transport.send([outgoing(1, STATION)], Receipts())
        nursery.cancel_scope.cancel()
    return caught.value


async def test_a_link_closed_at_connect_names_the_policy() -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.expect("CONNECT")
        await broker.stream.aclose()

    error = await failure(script)
    assert isinstance(error, ConnectFailed)
    assert (str(error), error.hint) == ("no CONNACK: the broker closed the connection", CONNECT_HINT)


async def test_a_refused_connect_names_the_policy_and_no_password() -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.expect("CONNECT")
        await broker.send(b"\x20\x02\x00\x05")

    error = await failure(script)
    assert isinstance(error, AuthenticationFailed)
    assert error.hint == CONNECT_HINT


async def test_a_link_closed_at_publish_names_the_policy() -> None:
    async def script(broker: ScriptedBroker) -> None:
        await broker.accept()
        await broker.expect("PUBLISH")
        await broker.stream.aclose()

    error = await failure(script)
    assert type(error) is LinkLost
    assert (str(error), error.hint) == ("connection lost: the broker closed the connection", PUBLISH_HINT)


async def test_what_has_a_hint_keeps_it(autojump_clock: MockClock) -> None:
    async def never(broker: ScriptedBroker) -> None:
        await broker.expect("CONNECT")

    async def no_receipt(broker: ScriptedBroker) -> None:
        await broker.accept()
        await broker.expect("PUBLISH")

    hints = [(await failure(script)).hint for script in (never, no_receipt)]
    assert hints == [
        "is this the port of an MQTT broker, and is it alive?",
        "is the broker overloaded, or actionTimeout too short for this link?",
    ]
