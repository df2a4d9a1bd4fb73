"""Downlinks over the embedded broker: kept while we are away, taken once, and only from topics that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio

from tests.connectors.mqtt_site import config, say
from tests.connectors.opening import context
from tests.connectors.traffic import take
from tests.downlinks.downlink_doubles import Disk, body
from tests.intake.doubles import MemoryStore
from tests.notebook import Notebook
from tests.peers.embedded import broker_process, free_address, port_of
from tpxd.connector import Context, Incoming
from tpxd.connectors.mqtt import open_mqtt_connection
from tpxd.downlinks.inbox import Inbox, receive_downlinks
from tpxd.downlinks.queue import DownlinkQueue, open_downlinks
from tpxd.events import EventLog

pytestmark = pytest.mark.broker

TIMEOUT_S = 30


def at(address: str, **values: Any) -> Any:
    return config(hostName=address, **{"downlinkTopicPattern": "plant/{DevEUI}/down"} | values)


def told(taken: Sequence[Incoming]) -> list[tuple[str, bytes, bool]]:
    return [(incoming.source, incoming.body, incoming.retained) for incoming in taken]


async def test_it_keeps_downlinks_for_an_absent_connection_and_forgets_what_was_edited_away() -> None:
    address, here = free_address(), context(memory=Notebook())
    with broker_process(address) as process, trio.fail_after(TIMEOUT_S):
        assert process.stdout is not None
        await trio.to_thread.run_sync(process.stdout.readline)
        async with open_mqtt_connection(at(address), here) as transport:
            await say(port_of(address), ("plant/1/down", b"live"))
            assert told(await take(transport, 1)) == [("plant/1/down", b"live", False)]
        await say(port_of(address), *[("plant/1/down", b"away")] * 2, ("plant/2/down", b"third"))
        async with open_mqtt_connection(at(address), here) as transport:
            assert told(await take(transport, 3)) == [
                ("plant/1/down", b"away", False),
                ("plant/1/down", b"away", False),
                ("plant/2/down", b"third", False),
            ]
        async with open_mqtt_connection(at(address, downlinkTopicPattern="new/{DevEUI}"), here) as transport:
            await say(port_of(address), ("plant/1/down", b"unwanted"), ("new/1", b"wanted"))
            assert told(await take(transport, 1)) == [("new/1", b"wanted", False)]
        async with open_mqtt_connection(at(address, downlinkEnabled=False), here):
            await say(port_of(address), ("new/1", b"unwanted"))
        async with open_mqtt_connection(at(address), here) as transport:
            await take(transport, 0)


async def receive_for_a_while(address: str, here: Context, downlinks: DownlinkQueue) -> None:
    async with open_mqtt_connection(at(address), here) as transport:
        with trio.move_on_after(0.5):
            await receive_downlinks(transport, Inbox("plant", downlinks, None))


async def test_each_downlink_is_taken_once_a_retained_one_too() -> None:
    address, here, disk = free_address(), context(memory=Notebook()), Disk()
    with broker_process(address) as process, trio.fail_after(TIMEOUT_S):
        assert process.stdout is not None
        await trio.to_thread.run_sync(process.stdout.readline)
        async with open_downlinks(disk, MemoryStore().append, EventLog().tell) as downlinks:
            await receive_for_a_while(address, here, downlinks)
            # equal downlinks are as many downlinks, also when both wait for us
            await say(port_of(address), *[("plant/1/down", body())] * 2)
            await receive_for_a_while(address, here, downlinks)
            assert len(disk.rows) == 2
            await say(port_of(address), *[("plant/1/down", body())] * 2)
            await receive_for_a_while(address, here, downlinks)
            assert len(disk.rows) == 4
            await say(port_of(address), ("plant/3/down", body(FPort=3)), retain=True)
            for _ in range(3):
                await receive_for_a_while(address, here, downlinks)
                assert len(disk.rows) == 5


async def test_what_others_retained_at_topics_of_their_own_does_not_come() -> None:
    address = free_address()
    with broker_process(address) as process, trio.fail_after(TIMEOUT_S):
        assert process.stdout is not None
        await trio.to_thread.run_sync(process.stdout.readline)
        other = at(address, downlinkTopicPattern="other/{DevEUI}", clientId="other")
        await say(port_of(address), ("other/1", b"retained"), retain=True)
        async with open_mqtt_connection(other, context(memory=Notebook())) as neighbour:
            assert told(await take(neighbour, 1)) == [("other/1", b"retained", True)]
            async with open_mqtt_connection(at(address), context(memory=Notebook())) as transport:
                await take(transport, 0)
