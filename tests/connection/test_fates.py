"""What became of each uplink on each connection is on disk, and people are shown it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson
import trio

from tests.connection.doubles import Peer, make_connection, running
from tpxd.config.flow import Flow, PortMatcher
from tpxd.connector import Outgoing, Receipts
from tpxd.downlinks.documents import trace_document
from tpxd.spool import NewReport, Spool, SpoolLimits, open_spool
from tpxd.timing import ClockWatch

DEVICE = "70B3D5E75E00A1C4"


async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
    for index, outgoing in enumerate(batch):
        if outgoing.uplink.fields["FCntUp"] == 3:
            receipts.rejected(index, "404 Not Found")
        elif outgoing.uplink.fields["FCntUp"] == 4:
            receipts.filtered(index, "not registered")
        else:
            receipts.delivered(index)


async def append(spool: Spool, f_cnt_up: int, f_port: int = 2, lrn_infos: str = "", time: str = "") -> None:
    document = {"DevEUI_uplink": {"DevEUI": DEVICE, "FPort": f_port, "FCntUp": f_cnt_up, "Time": time}}
    await spool.append(NewReport("DevEUI_uplink", DEVICE, lrn_infos, orjson.dumps(document), document))


async def shown(spool: Spool) -> list[tuple[dict[str, str], dict[str, str]]]:
    uplinks = await spool.uplinks_of(DEVICE, 50)
    document = trace_document(uplinks, [], await spool.fates_of([uplink.seq for uplink in uplinks]))
    return [(entry["connections"], entry["why"]) for entry in document]


async def test_each_fate_is_shown_with_its_reason_also_after_a_restart(tmp_path: Path) -> None:
    expected = [
        ({"office": "waiting", "plant": "delivered"}, {}),
        ({"office": "waiting", "plant": "filtered"}, {"plant": "its flow does not take it"}),
        ({"office": "waiting", "plant": "rejected"}, {"plant": "404 Not Found"}),
        (
            {"office": "waiting", "plant": "filtered"},
            {"plant": "its device is not registered, and createDevices is false"},
        ),
        ({"office": "waiting", "plant": "expired"}, {}),
    ]
    async with open_spool(tmp_path / "spool.db", SpoolLimits(min_free_bytes=0), tell=print) as spool:
        plant, _ = await spool.cursor("plant"), await spool.cursor("office")
        for f_cnt_up, f_port in [(1, 2), (2, 9), (3, 2), (4, 2)]:
            await append(spool, f_cnt_up, f_port)
        await append(spool, 5, time="2001-01-01T00:00:00Z")
        flow = Flow(matchers=[PortMatcher(type="fPort", ports=[2])])
        connection = make_connection(Peer(sending=sending), plant, flow=flow, uplinkTimeValidity="1h")
        connection.queue.outbound.clock = ClockWatch(lambda: None)
        async with running(connection):
            with trio.fail_after(10):
                while plant.ledger.waiting:
                    await trio.lowlevel.checkpoint()
        assert await shown(spool) == expected
    async with open_spool(tmp_path / "spool.db", SpoolLimits(min_free_bytes=0), tell=print) as spool:
        assert await shown(spool) == expected


async def test_what_a_sender_writes_into_lrn_infos_chooses_no_recipient(tmp_path: Path) -> None:
    """Whatever stands there, every connection gets the report, also after a restart."""
    peers = {"plant": Peer(), "office": Peer()}
    texts = ["tpxd:to=office", "tpxd:to=office;", "tpxd:to=", "=0 6 office"]
    async with open_spool(tmp_path / "spool.db", SpoolLimits(min_free_bytes=0), tell=print) as spool:
        for id in peers:
            await spool.cursor(id)
        for n, text in enumerate(texts, 10):
            await append(spool, n, lrn_infos=text)
    async with open_spool(tmp_path / "spool.db", SpoolLimits(min_free_bytes=0), tell=print) as spool:
        for id, peer in peers.items():
            cursor = await spool.cursor(id)
            connection = make_connection(peer, cursor)
            connection.queue.outbound.connection = id
            async with running(connection):
                with trio.fail_after(10):
                    while cursor.ledger.waiting:
                        await trio.lowlevel.checkpoint()
            assert cursor.ledger.delivered == len(texts)
        uplinks = await spool.uplinks_of(DEVICE, 50)
    assert [(uplink.lrn_infos, uplink.recipient) for uplink in reversed(uplinks)] == [(text, None) for text in texts]
