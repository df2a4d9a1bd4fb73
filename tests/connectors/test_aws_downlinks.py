"""Downlinks over AWS IoT: what is subscribed to, and that a refused downlink makes no thing of what it names."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import trio
from pydantic import ValidationError
from trio.testing import wait_all_tasks_blocked

from tests.connectors.mqtt_site import ObligingBroker, mqtt_site
from tests.connectors.opening import context
from tests.connectors.peers import AwsIotPeer
from tests.connectors.traffic import LANES, Receipts, outgoing
from tests.notebook import Notebook
from tests.wire.scripted_broker import CONNACK, RESUMED
from tpxd.connector import Outgoing
from tpxd.connectors.aws_iot.config import MAX_FILTERS, AwsIotConfig
from tpxd.connectors.aws_iot.connector import open_aws_iot
from tpxd.lorawan.uplink import Uplink


def config(**values: Any) -> AwsIotConfig:
    return AwsIotConfig.model_validate(AwsIotPeer.settings | values)


def several(patterns: list[str], **values: Any) -> AwsIotConfig:
    topics = [{"fPort": port, "downlinkTopicPattern": text} for port, text in enumerate(patterns, 1)]
    return config(topics=topics, **values)


async def opened(memory: Notebook, settings: AwsIotConfig, connack: bytes = RESUMED) -> ObligingBroker:
    """Open and close a connection; returns what its broker saw."""
    broker = ObligingBroker(connack)
    async with trio.open_nursery() as nursery:
        site = mqtt_site(nursery, broker.serve)
        async with open_aws_iot(settings, context(dial=site.dial, memory=memory)):
            await wait_all_tasks_blocked()
    return broker


async def test_filters_go_in_eights_and_follow_the_file() -> None:
    memory, many = Notebook(), [f"a{number}" for number in range(10)]
    first = await opened(memory, several(many, downlinkTopicPattern="tpx/things/{DevEUI}/downlink"), CONNACK)
    assert first.asked == [
        ("SUBSCRIBE", ["tpx/things/+/downlink", *many[:7]]),
        ("SUBSCRIBE", many[7:]),
    ]
    second = await opened(memory, several(many[1:9]))
    assert second.asked == [
        ("UNSUBSCRIBE", ["tpx/things/+/downlink", "a0", "a9"]),
        ("SUBSCRIBE", many[1:9]),
    ]
    off = await opened(memory, several(many, downlinkEnabled=False))
    assert (first.clean, second.clean, off.clean, off.asked) == (False, False, True, [])


def test_more_filters_than_a_connection_may_have() -> None:
    assert len(several([f"a{number}" for number in range(MAX_FILTERS)]).downlink_sources) == MAX_FILTERS
    with pytest.raises(ValidationError, match="51 different topics for downlinks, and AWS IoT takes 50"):
        several([f"a{number}" for number in range(MAX_FILTERS + 1)])


def rejected(lane: str) -> Outgoing:
    body = orjson.dumps({"DevEUI_downlink_Rejected": {"DevEUI": lane, "DownlinkRejectionCause": "unknown"}})
    return Outgoing(Uplink(9, 0, "DevEUI_downlink_Rejected", lane, "", body), body)


@pytest.mark.parametrize("creates", [True, False])
async def test_a_refused_downlink_makes_no_thing_of_what_it_names(nursery: trio.Nursery, creates: bool) -> None:
    peer, receipts = AwsIotPeer(nursery), Receipts()
    settings = config(createDevices=creates)
    with trio.fail_after(10):
        async with open_aws_iot(settings, peer.context()) as transport:
            await transport.send([rejected(LANES[0])], receipts)
            assert receipts.delivered_ == [0]
            assert peer.registry.things == {}
            mixed = Receipts()
            await transport.send([outgoing(1, LANES[1]), rejected(LANES[0])], mixed)
    assert peer.registry.things.keys() == ({LANES[1]} if creates else set())
    assert sorted(mixed.delivered_) == ([0, 1] if creates else [1])
