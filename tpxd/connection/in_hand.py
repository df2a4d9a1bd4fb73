"""What a connection has taken from its queue and not yet committed, in the order in which it was taken.

Pure but for events.

It outlives the link: after a reopening only what has no receipt is sent again. It never holds more than `MAX_BATCH`
uplinks, so that a crash doubles at most that many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice

import trio

from tpxd.connector import MAX_BATCH, Outgoing
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import Cursor, Fate, Filtered, Rejected, Settled

Decide = Callable[[Uplink], Settled | bytes | None]
"""What becomes of an uplink, or the body to send, or None: its payload is to be decoded before that can be said; see
`Outbound.decide_at_once`."""


@dataclass(slots=True)
class Taken(Outgoing):
    """One uplink in hand; `settled` is None until its fate is known, `reason` tells why it was filtered; while it
    `waits`, its payload is to be decoded."""

    settled: Settled | None = None
    reason: str = ""
    waits: bool = False


class InHand:
    """The uplinks in hand of one connection.

    Attributes:
        poison: suspects the uplink on which the far end closes the link.
        last_seq: the newest uplink ever taken in the queue's order, None before the first.
        overtaken: some were taken before their turn.
        progress: set when something was settled; the committer waits for it and puts a new one in its place.
        receipted: an uplink got its receipt since this was last cleared.
        proven: this version of the file had an uplink delivered.
        sending: how many are with the transport without a receipt.
        replaced: characters that were replaced in topics, keys and headers; see `connector.Outgoing`.
        undecoded: set when something came to wait for its payload to be decoded.
    """

    def __init__(self) -> None:
        self.poison = Poison()
        self.last_seq: int | None = None
        self.overtaken = False
        self.progress = trio.Event()
        self._freed = trio.Event()
        self.receipted = False
        self.proven = False
        self.sending = 0
        self.replaced = 0
        self.undecoded = trio.Event()
        self._looking: trio.CancelScope | None = None
        self._items: deque[Taken] = deque()

    async def wait_for_room(self) -> int:
        """How many more may be taken; waits until it is at least one."""
        while (room := MAX_BATCH - len(self._items)) == 0:
            self._freed = trio.Event()
            await self._freed.wait()
        return room

    def take(self, uplinks: Sequence[Uplink], decide: Decide) -> int:
        """Add uplinks in the queue's order, but those that are in hand already; those that `decide` does not want sent
        are settled at once. Returns how many are to be sent."""
        if uplinks:
            self.last_seq = uplinks[-1].seq
        if self.overtaken:
            already = self.seqs()
            uplinks = [uplink for uplink in uplinks if uplink.seq not in already]
        return self._add(uplinks, decide)

    def overtake(self, uplinks: Sequence[Uplink], decide: Decide) -> int:
        """Add uplinks before their turn; otherwise like `take`."""
        self.overtaken = self.overtaken or bool(uplinks)
        return self._add(uplinks, decide)

    def _add(self, uplinks: Sequence[Uplink], decide: Decide) -> int:
        to_send = 0
        for uplink in uplinks:
            item = Taken(uplink, b"")
            self._items.append(item)
            self._set(item, decide(uplink))
            to_send += item.settled is None
        return to_send

    def _set(self, item: Taken, decided: Settled | bytes | None) -> None:
        item.waits = decided is None
        if isinstance(decided, bytes):
            item.body = decided
        elif decided is not None:
            item.settled = decided
            self.progress.set()
        else:
            self.undecoded.set()

    def waiting(self, most: int) -> list[Taken]:
        """What waits for its payload to be decoded, in the order in which it was taken."""
        return list(islice((item for item in self._items if item.waits and item.settled is None), most))

    def decoded(self, item: Taken, uplink: Uplink, decided: Settled | bytes) -> None:
        """The payload of `item` is decoded, so that it is `uplink` now, and it was decided about that."""
        item.uplink = uplink
        if item.settled is None:
            self._set(item, decided)
        if self._looking is not None:
            self._looking.cancel()

    @contextmanager
    def until_decoded(self) -> Iterator[None]:
        """A block that ends as soon as something that waited was decoded, since it may be sent now."""
        with trio.CancelScope() as self._looking:
            yield
        self._looking = None

    def seqs(self) -> frozenset[int]:
        """Everything in hand."""
        return frozenset(item.uplink.seq for item in self._items)

    def taken_through(self, cursor: Cursor) -> int:
        """Everything up to here was taken in the queue's order, if not now then before."""
        return max(cursor.position, self.last_seq or 0)

    def unsettled(self) -> list[Uplink]:
        """What has no fate yet, in the order in which it was taken."""
        return [item.uplink.as_stored for item in self._items if item.settled is None]

    def adopt(self, decide: Decide) -> None:
        """A new version of the file takes over: decide anew about everything that has no fate yet."""
        self.poison.clear()
        self.proven = False
        for item in self._items:
            if item.settled is None:
                item.uplink = item.uplink.as_stored
                self._set(item, decide(item.uplink))
        self.progress.set()

    def expire(self, is_too_old: Callable[[Uplink], bool]) -> None:
        """Settle what has become too old while it was in hand; whoever was suspected for it is suspected no more."""
        for item in self._items:
            if item.settled is None and is_too_old(item.uplink):
                item.settled = Fate.EXPIRED
                if self.poison.suspect == item.uplink.seq:
                    self.poison.clear()
                self.progress.set()

    def next_batch(self, most: int) -> list[Taken]:
        """What may be sent now, in the order in which it was taken, `most` at once; a single one while an uplink is
        suspected."""
        match self.poison.sending:
            case Sending.ALL:
                return list(islice(self._sendable(), most))
            case Sending.OLDEST_ALONE:
                return list(islice(self._sendable(), 1))
            case Sending.SECOND_ALONE:
                return list(islice(self._sendable(), 1, 2))

    def _sendable(self) -> Iterator[Taken]:
        """What has no fate yet; what waits to be decoded is left out, and whatever its device sent after it."""
        behind: set[str] = set()
        for item in self._items:
            if item.settled is not None:
                continue
            if item.waits:
                behind.add(item.uplink.lane)
            elif item.uplink.lane not in behind:
                yield item

    def oldest_unsettled(self) -> int | None:
        """Seq of the uplink without a fate that was taken first, of those that may be sent."""
        return next((item.uplink.seq for item in self._sendable()), None)

    def receipt(self, item: Taken, fate: Settled) -> None:
        """The far end decided about `item`."""
        item.settled = fate
        self.sending -= 1
        self.receipted = True
        if self.poison.suspect is not None:
            self._judge(item.uplink.seq)
        self.progress.set()

    def leave_out(self, item: Taken, reason: str) -> None:
        """The connector does not send `item`; that says nothing about the far end, nor about who is suspected."""
        item.settled, item.reason = Filtered.UNREGISTERED, reason
        self.sending -= 1
        if self.poison.suspect == item.uplink.seq:
            self.poison.clear()
        self.progress.set()

    def _judge(self, seq: int) -> None:
        convicted = self.poison.receipt(seq)
        for item in self._items:
            if item.uplink.seq == convicted and item.settled is None:
                item.settled = Rejected(CONVICTED, CONVICTED_HINT)

    def settled_prefix(self) -> list[tuple[int, Settled]]:
        """What can be committed: everything that was taken before the first uplink without a fate."""
        prefix: list[tuple[int, Settled]] = []
        for item in self._items:
            if item.settled is None:
                break
            prefix.append((item.uplink.seq, item.settled))
        return prefix

    def delivered(self, count: int) -> Iterator[Uplink]:
        """The delivered ones among the first `count`, as they are stored."""
        return (item.uplink.as_stored for item in islice(self._items, count) if item.settled is Fate.DELIVERED)

    def lost(self, count: int) -> list[tuple[Uplink, Settled]]:
        """The expired and the rejected ones among the first `count`."""
        return [
            (item.uplink, item.settled)
            for item in islice(self._items, count)
            if item.settled is Fate.EXPIRED or isinstance(item.settled, Rejected)
        ]

    def committed(self, count: int) -> None:
        """The first `count` are on disk: let go of them."""
        for _ in range(count):
            self.replaced += self._items.popleft().replaced
        self._freed.set()


class BatchReceipts:
    """The `Receipts` of one batch; a second word about one uplink is not heard."""

    __slots__ = ("_in_hand", "_items")

    def __init__(self, in_hand: InHand, items: Sequence[Taken]) -> None:
        self._in_hand = in_hand
        self._items = items

    def delivered(self, index: int) -> None:
        """See `connector.Receipts`."""
        item = self._items[index]
        if item.settled is None:
            self._in_hand.proven = True
            self._in_hand.receipt(item, Fate.DELIVERED)

    def rejected(self, index: int, reason: str, hint: str | None = None) -> None:
        """See `connector.Receipts`."""
        item = self._items[index]
        if item.settled is None:
            self._in_hand.receipt(item, Rejected(reason, hint))

    def filtered(self, index: int, reason: str) -> None:
        """See `connector.Receipts`."""
        item = self._items[index]
        if item.settled is None:
            self._in_hand.leave_out(item, reason)


SUSPECT_AFTER = 3

EVERY_PUBLISH = "the far end closes on every publish"
CONVICTED = "the far end closed the link four times on this message"
CONVICTED_HINT = "is it larger than the far end allows, or its topic one that this login may not use?"


class Sending(Enum):
    """How much may be sent next."""

    ALL = auto()
    OLDEST_ALONE = auto()
    SECOND_ALONE = auto()


@dataclass(slots=True)
class Poison:
    """The suspicion of one connection.

    Attributes:
        suspect: seq of the uplink that was oldest in flight when the link was last lost.
        sending: what the next batch may be.
    """

    suspect: int | None = None
    losses: int = 0
    sending: Sending = Sending.ALL

    def lost(self, oldest: int | None) -> bool:
        """An open link was lost with `oldest` as the oldest in flight (None: nothing was).

        Returns:
            True when the far end closes on every publish, so that nobody is to blame.
        """
        if self.sending is Sending.SECOND_ALONE:
            self.clear()
            return True
        if oldest is None:
            return False
        if oldest != self.suspect:
            self.suspect, self.losses, self.sending = oldest, 0, Sending.ALL
        self.losses += 1
        if self.sending is Sending.OLDEST_ALONE:
            self.sending = Sending.SECOND_ALONE
        elif self.losses >= SUSPECT_AFTER:
            self.sending = Sending.OLDEST_ALONE
        return False

    def receipt(self, seq: int) -> int | None:
        """A receipt came for `seq`; returns the seq that this convicts, if any."""
        if self.suspect is None:
            return None
        convicted = self.suspect if self.sending is Sending.SECOND_ALONE and seq != self.suspect else None
        if convicted is not None or seq == self.suspect:
            self.clear()
        return convicted

    def clear(self) -> None:
        """Nobody is suspected."""
        self.suspect, self.losses, self.sending = None, 0, Sending.ALL
