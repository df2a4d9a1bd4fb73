"""Lets new uplinks go before a backlog, which gets its share of the link: `backlogShare`.

Theory of operation. When a link opens, a border is drawn behind the newest uplink: what is stored up to it and was not
taken yet is backlog. The backlog is taken oldest first, as ever. What comes after the border may be taken before it,
unless its device still waits in the backlog: then it joins the backlog, since each device's order is kept. A device
waits there no more once the backlog was taken beyond its last uplink in it.

    done | in hand | backlog, oldest first        border | taken already, or joined the backlog | not looked at
                   ^ InHand.last_seq                                                            ^ _through

What was taken is sent, and committed, in the order in which it was taken, so nothing else has to know the two streams.
The devices of the backlog are looked up in steps while it goes alone. A link on which new uplinks come faster than they
go falls behind with them as well; then a new border is drawn. At a limit (devices in the backlog, or uplinks settled
beyond its beginning) the backlog goes alone until it was taken up to where the limit was met.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import trio

from tpxd.connection.in_hand import InHand
from tpxd.connector import MAX_BATCH, MAX_BATCH_BYTES
from tpxd.errors import SpoolUnavailable
from tpxd.events import Event, Tell
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import Cursor

MAX_LANES: Final = 100_000
"""Devices in the backlog whose last uplink there is remembered; about 200 bytes each."""

SURVEY_ROWS: Final = 1_024
"""A step takes a few milliseconds, in which nothing is stored."""

LOOK_S: Final = 1.0
BEHIND: Final = MAX_BATCH
BEHIND_S: Final = 5.0
"""With more than `BEHIND` new uplinks not looked at for so long, a new border is drawn."""

FAR_AHEAD: Final = "too many uplinks went before the backlog"
MANY_LANES: Final = f"more than {MAX_LANES} devices wait in the backlog"


class Backlog:
    """Chooses what may go before the backlog of one connection; outlives its links.

    Attributes:
        alone: why the backlog goes alone although there is one, None while it does not; for people.

    Args:
        share: of what is taken, how much comes from the backlog while new uplinks wait; above 0, at most 1.
    """

    def __init__(self, id: str, share: float, tell: Tell) -> None:
        self.alone: str | None = None
        self._id = id
        self._share = share
        self._tell = tell
        self._border = 0
        self._through = 0
        self._lanes: dict[str, int] = {}
        self._alone_until = 0
        self._due = 0.0

    def draw_border(self, cursor: Cursor) -> None:
        """What is stored by now is backlog: a link opens."""
        self._border = cursor.newest_seq

    async def take(self, cursor: Cursor, in_hand: InHand, most: int) -> list[Uplink]:
        """Take what goes before the backlog now, in order; the rest of `most` is for the backlog.

        Raises:
            SpoolUnavailable: the disk cannot be read.

        Cancellation: nothing is taken.
        """
        taken = in_hand.taken_through(cursor)
        if not self._may_overtake(cursor, taken):
            return []
        through = self._through
        found = await cursor.newcomers(MAX_BATCH, MAX_BATCH_BYTES, after=through)
        if self._through != through or self._border > through:
            return []  # a border was drawn meanwhile
        return self._choose(found, taken, most)

    async def watch(self, cursor: Cursor, in_hand: InHand) -> None:
        """Look up the devices of the backlog, and draw a new border where new uplinks fall behind, until cancelled."""
        behind_s = 0.0
        while True:
            await self._survey(cursor, in_hand)
            await trio.sleep(LOOK_S)
            behind = cursor.newest_seq - max(self._through, in_hand.taken_through(cursor))
            behind_s = behind_s + LOOK_S if behind > BEHIND else 0.0
            if behind_s >= BEHIND_S:
                self.draw_border(cursor)

    def _may_overtake(self, cursor: Cursor, taken: int) -> bool:
        if taken >= self._alone_until and self.alone is not None:
            self._go_on()
        if taken >= self._through:
            self._lanes.clear()
            return False
        if self._border > self._through or taken < self._alone_until:
            return False
        if cursor.far_ahead:
            self._go_alone(FAR_AHEAD, self._through)
            return False
        return True

    def _choose(self, found: Sequence[Uplink], taken: int, most: int) -> list[Uplink]:
        """Go over new uplinks: some are taken, those of devices in the backlog join it, the rest is for the next time.

        Args:
            taken: the backlog is taken up to here.
        """
        due = self._due + self._share * most
        places = most - int(due + 1e-9)
        chosen: list[Uplink] = []
        for uplink in found:
            if self._lanes.get(uplink.lane, 0) > taken:
                self._lanes[uplink.lane] = uplink.seq
            elif len(chosen) < places:
                chosen.append(uplink)
            else:
                self._due = max(0.0, due - (most - places))
                return chosen
            self._through = uplink.seq
        self._due = 0.0  # none is left waiting, so the backlog gets whatever is left of the link
        return chosen

    async def _survey(self, cursor: Cursor, in_hand: InHand) -> None:
        """Remember each device of the backlog, up to the border."""
        while (after := max(self._through, in_hand.taken_through(cursor))) < self._border:
            if after < self._alone_until:
                return
            through = min(after + SURVEY_ROWS, self._border)
            try:
                found = await cursor.lanes_waiting(after, through, besides=in_hand.seqs())
            except SpoolUnavailable:
                return  # tried again soon; who reads the uplinks meets it too, and tells
            self._lanes |= found
            self._through = through
            if len(self._lanes) > MAX_LANES:
                taken = in_hand.taken_through(cursor)
                self._lanes = {lane: seq for lane, seq in self._lanes.items() if seq > taken}
            if len(self._lanes) > MAX_LANES:
                self._through = self._border
                self._lanes.clear()
                self._go_alone(MANY_LANES, self._border)

    def _go_alone(self, reason: str, until: int) -> None:
        self.alone, self._alone_until = reason, until
        text = f"{self._id}: new uplinks wait until the backlog was sent: {reason}"
        self._tell(Event("backlog", text, self._id, logging.WARNING))

    def _go_on(self) -> None:
        self.alone = None
        self._tell(Event("backlog", f"{self._id}: new uplinks may go before the backlog again", self._id))


def backlog_of(id: str, share: float | None, tell: Tell) -> Backlog | None:
    """What `backlogShare` of a file asks for; None where it says nothing, so that all go oldest first."""
    return None if share is None else Backlog(id, share, tell)
