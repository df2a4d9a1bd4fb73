"""Payloads are decoded before the decision what to send: others go on meanwhile, each device keeps its order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import trio
from trio.testing import MockClock

from tests.codecs.doubles import HereAndNow
from tests.connection.doubles import MemoryCursor, Peer, delivered, make_connection, make_uplink, running
from tpxd.codecs.catalogue import Catalogue
from tpxd.codecs.decoding import Decoding
from tpxd.codecs.drivers import Driver
from tpxd.config.flow import Flow
from tpxd.connection.connection import Connection
from tpxd.connector import Outgoing, Receipts
from tpxd.errors import LinkLost
from tpxd.events import EventLog
from tpxd.spool import Fate, Filtered

SOURCE = """function decodeUplink(input) {
  if (input.fPort === 9) throw new Error("boom");
  return {data: {t: input.bytes[0]}};
}"""
SLOW, QUICK, OTHER = "70B3D5E75E0000AA", "70B3D5E75E0000BB", "70B3D5E75E0000CC"


class Plant:
    """A connection whose file names a driver, and what arrives at its far end."""

    def __init__(self, flow: Flow | None = None, **configuration: Any) -> None:
        self.arrived: list[Any] = []
        self.seen: list[int] = []
        self.peer, self.cursor, self.workers = Peer(sending=self.sending), MemoryCursor(), HereAndNow()
        self.flow, self.configuration, self.losses = flow or Flow(driver="a.js"), configuration, 0
        driver = Driver("a.js", frozenset({"a.js"}), Path("a.js"), "lora-alliance", {"decodeUplink": SOURCE})
        self.decoding = Decoding(Catalogue([driver]), self.workers.as_workers, EventLog().tell)

    def connection(self) -> Connection:
        connection = make_connection(self.peer, self.cursor, flow=self.flow, **self.configuration)
        connection.queue.decoding = self.decoding
        connection.queue.outbound.decodes = connection.file.flow.decodes
        return connection

    async def sending(self, batch: Sequence[Outgoing], receipts: Receipts) -> None:
        if self.losses:
            self.losses -= 1
            raise LinkLost("reset by peer")
        for index, item in enumerate(batch):
            self.arrived.append(orjson.loads(item.body))
            self.seen.append(item.uplink.seq)
            receipts.delivered(index)

    async def carry(self, *uplinks: Any, for_s: float = 60.0) -> None:
        self.cursor.add(*uplinks)
        async with running(self.connection()):
            await trio.sleep(for_s)


async def test_a_device_keeps_its_order_and_others_go_on_meanwhile(autojump_clock: MockClock) -> None:
    plant = Plant()
    plant.workers.slow_s[SLOW] = 20.0
    lanes = [QUICK, SLOW, SLOW, OTHER]
    uplinks = [make_uplink(n, lane, FPort=5, payload_hex="0a") for n, lane in enumerate(lanes[:2], 1)]
    await plant.carry(*uplinks, make_uplink(3, SLOW), make_uplink(4, OTHER), for_s=100)
    assert plant.seen == [4, 1, 2, 3]
    assert sorted(delivered(plant.cursor)) == [1, 2, 3, 4]


async def test_what_is_handed_on_is_the_report_as_it_came(autojump_clock: MockClock) -> None:
    plant = Plant()
    plant.cursor.add(make_uplink(1, FPort=5, payload_hex="0a"))
    connection = plant.connection()
    connection.queue.outbound.chains.set({"plant": ["next"], "next": []})
    async with running(connection):
        await trio.sleep(5)
    assert plant.arrived[0]["DevEUI_uplink"]["payload"] == {"t": 10}
    [(seq, handed)] = plant.cursor.handed
    assert (seq, handed.body) == (1, make_uplink(1, FPort=5, payload_hex="0a").body)


async def test_raw_decoded_format_sends_the_payload_alone(autojump_clock: MockClock) -> None:
    plant = Plant(sendRawDecodedFormat=True)
    await plant.carry(make_uplink(1, FPort=5, payload_hex="0a"), make_uplink(2, FPort=9, payload_hex="0a"))
    assert plant.arrived[0] == {"t": 10}
    assert plant.arrived[1]["DevEUI_uplink"]["payloadDecodedError"]["code"] == "com-5002"


async def test_the_older_format_has_the_payload_among_its_fields(autojump_clock: MockClock) -> None:
    plant = Plant(sendMetadata=True)
    await plant.carry(make_uplink(1, FPort=5, payload_hex="0a"))
    assert plant.arrived[0]["payload"] == {"t": 10}


async def test_matchers_see_what_was_decoded(autojump_clock: MockClock) -> None:
    path = "$.DevEUI_uplink.payload[?@ > 5]"
    flow = Flow.model_validate({"driver": "a.js", "matchers": [{"type": "jsonPath", "path": path}]})
    plant = Plant(flow)
    await plant.carry(make_uplink(1, FPort=5, payload_hex="0a"), make_uplink(2, FPort=5, payload_hex="01"))
    assert plant.cursor.fates == [(1, Fate.DELIVERED), (2, Filtered.FLOW)]


async def test_what_is_not_wanted_is_not_decoded(autojump_clock: MockClock) -> None:
    flow = Flow.model_validate({"driver": "a.js", "matchers": [{"type": "fPort", "ports": [7]}]})
    plant = Plant(flow)
    await plant.carry(make_uplink(1, FPort=5, payload_hex="0a"))
    assert plant.cursor.fates == [(1, Filtered.FLOW)]
    assert plant.workers.ran == []


async def test_a_lost_link_decodes_nothing_twice(autojump_clock: MockClock) -> None:
    plant = Plant()
    plant.losses = 2
    await plant.carry(*(make_uplink(n, FPort=5, payload_hex="0a") for n in range(1, 6)))
    assert len(plant.workers.ran) == 5
    assert [each["DevEUI_uplink"]["payload"] for each in plant.arrived] == [{"t": 10}] * 5


async def test_skipping_leaves_payloads_alone(autojump_clock: MockClock) -> None:
    plant = Plant(Flow(driver="a.js", skipDecoding=True))
    await plant.carry(make_uplink(1, FPort=5, payload_hex="0a"))
    assert "payload" not in plant.arrived[0]["DevEUI_uplink"]


async def test_a_backlog_is_decoded_while_a_batch_is_under_way(autojump_clock: MockClock) -> None:
    plant = Plant()
    plant.workers.slow_s = dict.fromkeys((QUICK, SLOW), 0.1)
    begun = trio.current_time()
    lanes = [QUICK, SLOW]
    await plant.carry(*(make_uplink(n, lanes[n % 2], FPort=5, payload_hex="0a") for n in range(1, 301)), for_s=200)
    assert plant.seen == list(range(1, 301))
    assert trio.current_time() - begun < 201
