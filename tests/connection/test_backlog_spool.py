"""`backlogShare` over a real spool whose process ends in mid-flight again and again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from tests.connection.doubles import Peer, make_connection
from tpxd.connection import backlog as module
from tpxd.connection import connection
from tpxd.connection.connection import Connection
from tpxd.connector import Outgoing, Receipts
from tpxd.errors import LinkLost
from tpxd.spool import Cursor, Ledger, NewReport, Spool, SpoolLimits, open_spool

pytestmark = pytest.mark.broker

LIVES = 8
SHARES = (None, 0.1, 0.3, 0.3, 0.7)


class Site:
    """A spool that is opened again and again, uplinks of many devices that arrive, and a far end that remembers."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self.path, self.chance = path, chance
        self.peer = Peer(sending=self.send)
        self.lanes: dict[int, str] = {}
        self.losses = 0
        self.slow = True

    async def send(self, batch: Sequence[Outgoing], receipts: Receipts) -> None:
        await trio.sleep(0.002 * len(batch) * self.slow)
        whole = not self.slow or self.chance.random() > 0.05
        for index in range(len(batch) if whole else self.chance.randrange(len(batch))):
            receipts.delivered(index)
        if not whole:
            self.losses += 1
            raise LinkLost("reset by peer")

    async def arrive(self, spool: Spool, task: int) -> None:
        """Some devices send often, most only once."""
        while True:
            lane = f"LANE{self.chance.randrange(20 if self.chance.random() < 0.2 else 10_000)}"
            body = b'{"DevEUI_uplink":{"FCntUp":%d,"Task":%d}}' % (len(self.lanes), task)
            self.lanes[(await spool.append(NewReport("DevEUI_uplink", lane, "", body))).seq] = lane
            await trio.sleep(0.01)

    async def connection(self, share: float | None, *, last: bool = False) -> Ledger:
        """One process: it ends in mid-flight, the last one when nothing waits."""
        async with open_spool(self.path, SpoolLimits(min_free_bytes=0), tell=print) as spool:
            cursor = await spool.cursor("plant")
            connection = make_connection(self.peer, cursor, backlogShare=share)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.run)
                nursery.start_soon(impatient, connection)
                for task in range(0 if last else 10):
                    nursery.start_soon(self.arrive, spool, task)
                if last:
                    await until_all_is_sent(cursor)
                else:
                    await trio.sleep(1)
                nursery.cancel_scope.cancel()
            return cursor.ledger


async def impatient(connection: Connection) -> None:
    """Nobody waits half a minute for a link to be opened again."""
    while True:
        await trio.sleep(0.02)
        connection.nudge()


async def until_all_is_sent(cursor: Cursor) -> None:
    with trio.fail_after(60):
        while cursor.ledger.waiting:
            assert cursor.ledger.imbalance == 0
            await trio.sleep(0.05)


async def test_nothing_is_lost_and_each_devices_order_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LAST_COMMIT_S", 0.0)
    monkeypatch.setattr(module, "SURVEY_ROWS", 200)
    monkeypatch.setattr("tpxd.spool.memories.MAX_UPLINKS", 300)
    site = Site(tmp_path / "state" / "spool.db", random.Random(7))
    for _ in range(LIVES):
        ledger = await site.connection(site.chance.choice(SHARES))
        assert ledger.imbalance == 0
    site.slow = False
    ledger = await site.connection(0.3, last=True)
    assert (ledger.delivered, ledger.waiting) == (ledger.received, 0)

    sent = [seq for batch in site.peer.batches for seq in batch]
    first_time = list(dict.fromkeys(sent))
    assert site.lanes.keys() <= set(sent)
    assert first_time != sorted(first_time), "nothing went before its turn"
    assert len(sent) - len(first_time) <= 256 * (LIVES + site.losses)
    newest: dict[str, int] = {}
    for seq in first_time:
        lane = site.lanes.get(seq, str(seq))
        assert newest.get(lane, 0) < seq
        newest[lane] = seq
