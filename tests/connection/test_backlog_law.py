"""Whatever happens in whatever order: each device's order is kept, nothing is lost, little comes twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from unittest.mock import patch

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.connection.doubles import MemoryCursor, Peer, make_connection, make_uplink, running
from tpxd.connection import backlog as module
from tpxd.connection.in_hand import InHand
from tpxd.connector import Outgoing, Receipts
from tpxd.errors import LinkLost
from tpxd.lorawan.uplink import Uplink

IN_HAND = 256


@dataclass
class Run:
    """One version of the file at work for a while, and what happens meanwhile.

    Attributes:
        crashed: the process before it was killed, so that only what is committed is known.
        steps: seconds, and the lanes of uplinks that arrive after them.
        losses: which batches the link does not survive, and how many receipts of each still come.
    """

    share: float | None
    limit: int | None
    crashed: bool
    steps: list[tuple[float, list[int]]]
    losses: dict[int, int]


RUNS = st.lists(
    st.builds(
        Run,
        share=st.sampled_from([None, 0.1, 0.4, 1.0]),
        limit=st.sampled_from([None, 3, 20]),
        crashed=st.booleans(),
        steps=st.lists(
            st.tuples(st.sampled_from([0.0, 0.3, 2.5, 8.0]), st.lists(st.integers(0, 12), max_size=40)), max_size=6
        ),
        losses=st.dictionaries(st.integers(0, 12), st.integers(0, 20), max_size=4),
    ),
    max_size=5,
)


class SlowCursor(MemoryCursor):
    """A queue on a disk that takes its time, so that much else happens meanwhile."""

    async def newcomers(self, max_uplinks: int, max_bytes: int, after: int) -> list[Uplink]:
        """See `spool.Cursor`."""
        await trio.sleep(0.12)
        return await super().newcomers(max_uplinks, max_bytes, after)

    async def lanes_waiting(self, after: int, through: int, besides: Collection[int]) -> dict[str, int]:
        """See `spool.Cursor`."""
        await trio.sleep(0.03)
        return await super().lanes_waiting(after, through, besides)


@dataclass
class Journey:
    """One queue through many runs; the far end remembers what it saw."""

    cursor: MemoryCursor = field(default_factory=SlowCursor)
    peer: Peer = field(default_factory=Peer)
    in_hand: InHand = field(default_factory=InHand)
    disruptions: int = 0

    def arrive(self, lane: int) -> None:
        self.cursor.add(make_uplink(self.cursor.newest_seq + 1, f"LANE{lane}"))

    async def go(self, run: Run) -> None:
        batches = -1

        async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
            nonlocal batches
            batches += 1
            await trio.sleep(0.01)
            for index in range(min(len(batch), run.losses.get(batches, len(batch)))):
                receipts.delivered(index)
            if batches in run.losses:
                self.disruptions += 1
                raise LinkLost("reset by peer")

        if run.crashed:
            self.in_hand = InHand()
            self.disruptions += 1
        self.peer.sending = sending
        connection = make_connection(
            self.peer, self.cursor, in_hand=self.in_hand, backlogShare=run.share, uplinkRateLimiter=run.limit
        )
        async with running(connection):
            for seconds, lanes in run.steps:
                await trio.sleep(seconds)
                for lane in lanes:
                    self.arrive(lane)
        self.disruptions += 1

    async def run(self, runs: list[Run]) -> None:
        for _ in range(30):
            self.arrive(self.cursor.newest_seq % 4)
        for run in runs:
            await self.go(run)
        await self.go(Run(0.3, None, crashed=False, steps=[(60.0, [])], losses={}))


def lanes_of(cursor: MemoryCursor, seqs: list[int]) -> dict[str, list[int]]:
    """The seqs by device, in their order."""
    found: dict[str, list[int]] = {}
    for seq in seqs:
        found.setdefault(cursor.rows[seq - 1].lane, []).append(seq)
    return found


@settings(max_examples=80, deadline=None)
@given(runs=RUNS)
def test_the_law(runs: list[Run]) -> None:
    journey = Journey()
    with patch.multiple(module, SURVEY_ROWS=7, LOOK_S=0.5, BEHIND=5, BEHIND_S=1.0):
        trio.run(partial(journey.run, runs), clock=MockClock(autojump_threshold=0))
    cursor, everything = journey.cursor, list(range(1, journey.cursor.newest_seq + 1))

    settled = [seq for seq, _ in cursor.fates]
    assert sorted(settled) == everything, "each is settled once"
    assert cursor.position == cursor.newest_seq
    assert all(seqs == sorted(seqs) for seqs in lanes_of(cursor, settled).values())

    sent = [seq for batch in journey.peer.batches for seq in batch]
    first_time = list(dict.fromkeys(sent))
    assert all(seqs == sorted(seqs) for seqs in lanes_of(cursor, first_time).values())
    for batch in journey.peer.batches:
        assert all(seqs == sorted(seqs) for seqs in lanes_of(cursor, batch).values())

    times = Counter(sent)
    assert max(times.values()) <= 1 + journey.disruptions
    assert sum(times.values()) - len(times) <= IN_HAND * journey.disruptions
