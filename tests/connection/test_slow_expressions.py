"""A regular expression that takes too long costs its uplink, and neither the daemon nor other devices' uplinks."""

from __future__ import annotations

from typing import Any

import trio

from tests.connection.doubles import MemoryCursor, Peer, delivered, make_connection, make_uplink, running
from tests.connectors.traffic import Receipts
from tpxd.config.flow import Flow, JsonPathMatcher
from tpxd.connector import Outgoing
from tpxd.connectors.mqtt import MqttConfig
from tpxd.connectors.parts.topics import UplinkTopics
from tpxd.spool import Rejected

SLOW = "$..tags[?(@ =~ /(a|aa)+c/)]"
HOSTILE: dict[str, Any] = {"tags": ["a" * 900]}
LANES = [f"70B3D5E75E00A1{n:02X}" for n in range(20)]


def slow_flow() -> Flow:
    return Flow(matchers=[JsonPathMatcher(type="jsonPath", path=SLOW)])


async def settle(cursor: MemoryCursor) -> int:
    """Wait until nothing waits; returns how often it was this task's turn meanwhile."""
    turns = 0
    with trio.fail_after(60):
        while cursor.position < cursor.newest_seq:
            await trio.lowlevel.checkpoint()
            turns += 1
    return turns


async def test_its_uplink_is_rejected_with_the_cause_and_others_go() -> None:
    cursor = MemoryCursor()
    cursor.add(make_uplink(1, **HOSTILE), make_uplink(2, tags=["aac"]), make_uplink(3, tags=["x"]))
    async with running(make_connection(Peer(), cursor, flow=slow_flow())) as connection:
        await settle(cursor)
        assert connection.health.to_document()["lastError"]["hint"] == (
            "leave out repetition inside of repetition, such as (a+)+; `tpxd check` names it"
        )
    assert delivered(cursor) == [2]
    assert cursor.fates[0] == (1, Rejected("the flow: a regular expression took longer than 50 ms on it"))


async def test_a_flow_that_takes_long_lets_others_go_on_after_each_uplink() -> None:
    cursor = MemoryCursor()
    cursor.add(*(make_uplink(n, lane, **HOSTILE) for n, lane in enumerate(LANES, 1)))
    async with running(make_connection(Peer(), cursor, flow=slow_flow())):
        assert await settle(cursor) > len(LANES)


async def test_so_do_topics() -> None:
    config = MqttConfig.model_validate({"hostName": "h:1", "protocol": "TCP", "uplinkTopicPattern": f"p/{{{SLOW}}}"})
    topics, receipts, turns = UplinkTopics(config), Receipts(), 0
    batch = [Outgoing(make_uplink(n, lane, **HOSTILE), b"") for n, lane in enumerate(LANES)]
    done = trio.Event()

    async def address() -> None:
        assert await topics.address(batch, receipts) == []
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(address)
        while not done.is_set():
            await trio.lowlevel.checkpoint()
            turns += 1
    assert turns >= len(LANES)
    assert receipts.rejected_ == dict.fromkeys(
        range(len(LANES)), "uplinkTopicPattern: a regular expression took longer than 50 ms on it"
    )
