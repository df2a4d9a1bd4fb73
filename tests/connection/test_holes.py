"""Uplinks that the disk lost while they were in hand: they are dropped, whatever the far end says of them later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.connection.doubles import Peer, make_connection, running
from tpxd.connector import Outgoing, Receipts
from tpxd.spool import NewReport, SpoolLimits, open_spool
from tpxd.spool.journal import Journal
from tpxd.spool.rows import Hole


async def until(done: Callable[[], bool]) -> None:
    while not done():
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("lost", [[1], [2, 3], [4], [1, 2, 3, 4]])
async def test_a_receipt_settles_no_uplink_that_was_lost_meanwhile(lost: list[int], tmp_path: Path) -> None:
    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        under_way.set()
        await answers.wait()
        for index in range(len(batch)):
            receipts.delivered(index)

    under_way, answers, peer = trio.Event(), trio.Event(), Peer(sending=sending)
    async with open_spool(tmp_path / "spool.db", SpoolLimits(min_free_bytes=0), tell=print) as spool:
        cursor = await spool.cursor("plant")
        for n in range(4):
            await spool.append(NewReport("DevEUI_uplink", "70B3D5E75E00A1C4", "", b'{"DevEUI_uplink":{"n":%d}}' % n))
        async with running(make_connection(peer, cursor)) as connection:
            with trio.fail_after(10):
                await under_way.wait()
                for seq in lost:
                    await spool.exchange.write(partial(Journal.add_hole, hole=Hole(seq, seq)))
                answers.set()
                await until(lambda: not connection.queue.in_hand.seqs())
                await spool.append(NewReport("DevEUI_uplink", "70B3D5E75E00A1C4", "", b'{"DevEUI_uplink":{"n":4}}'))
                await until(lambda: cursor.ledger.waiting == 0)
        ledger = cursor.ledger
    sent = [seq for batch in peer.batches for seq in batch]
    assert (ledger.received, ledger.delivered, ledger.dropped) == (5, len(sent) - len(lost), len(lost))
    assert ledger.imbalance == 0
