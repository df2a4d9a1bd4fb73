"""Carries one connection's queue over its open transport, and commits what has its receipt.

Tasks share an `InHand`. `deliver` belongs to the link: it takes from the queue, sends, and dies with the link.
`commit_receipts` belongs to the connection: it moves the cursor while the next batch is already under way, and
survives the link, so that a link that is lost after some receipts still made progress. `decode_ahead` belongs
to it too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import trio

from tpxd.codecs.decoding import Decoding
from tpxd.connection.backlog import Backlog
from tpxd.connection.debug_log import DebugLog
from tpxd.connection.health import Health
from tpxd.connection.in_hand import BatchReceipts, Decide, InHand, Taken
from tpxd.connection.outbound import Outbound
from tpxd.connector import MAX_BATCH, MAX_BATCH_BYTES, Transport
from tpxd.errors import SpoolUnavailable, Throttled, TransportError
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import Cursor
from tpxd.timing import Pace, Stopping

BATCH = MAX_BATCH // 2
"""Half of what may be in hand, so that one half is committed while the other is under way."""

SLOW_START = 16
"""The first batch after an opening; each one that is receipted doubles it, so that a far end that comes back with a
crowd at its door is not met with everything at once."""

BRISK_S = 2.0
"""Where new uplinks go first, no batch should take longer, since they wait for its end; smaller ones follow then."""

COMMIT_RETRY_S = 1.0

DECODED_AT_ONCE = 64


@dataclass(slots=True)
class Queue:
    """The uplinks of one version of a connection file, from the spool to their fate.

    Attributes:
        cursor: where they come from.
        in_hand: what was taken and has no fate on disk yet; it outlives the version, so that what has its receipt is
            not sent again by the next one.
        outbound: decides what becomes of each.
        backlog: chooses what may go before its turn; None lets nothing.
        decoding: decodes payloads, where the file names a driver.
    """

    cursor: Cursor
    in_hand: InHand
    outbound: Outbound
    backlog: Backlog | None = None
    decoding: Decoding | None = None

    def arrived(self) -> tuple[int, int]:
        """See `watches.Arrived`."""
        ledger = self.cursor.ledger
        if self.outbound.takes_all:
            return ledger.received, ledger.received
        at_most = ledger.received - ledger.filtered
        return at_most - ledger.waiting, at_most


@dataclass(slots=True)
class Supply:
    """What one link gets of a queue.

    Attributes:
        pace: how many may go.
        max_in_flight: how many may be under way at once.
    """

    queue: Queue
    pace: Pace
    max_in_flight: int

    def batch(self, most: int) -> list[Taken]:
        """What of it may be sent now; looked at each time, since the far end or its receipts may have taken long."""
        self.queue.in_hand.expire(self.queue.outbound.is_too_old)
        return self.queue.in_hand.next_batch(most)

    async def take(self, most: int) -> None:
        """Take the next uplinks from the queue, so that they are in hand; waits for some, and for room."""
        cursor, in_hand, outbound = self.queue.cursor, self.queue.in_hand, self.queue.outbound
        room = await in_hand.wait_for_room()
        allowed = await self.pace.wait()
        most, most_bytes, first = min(most, room, allowed), MAX_BATCH_BYTES, False
        if self.queue.backlog is not None:
            newcomers = await self.queue.backlog.take(cursor, in_hand, most)
            self.pace.spend(in_hand.overtake(newcomers, await decided(newcomers, outbound)))
            first = bool(newcomers)
            most -= len(newcomers)
            most_bytes -= sum(len(uplink.body) for uplink in newcomers)
        if most > 0 and most_bytes > 0:
            uplinks = await cursor.next_batch(most, most_bytes, after=in_hand.last_seq, wait=not first)
            self.pace.spend(in_hand.take(uplinks, await decided(uplinks, outbound)))


async def deliver(
    transport: Transport, supply: Supply, health: Health, stopping: Stopping, quiet_s: float, debug_log: DebugLog
) -> None:
    """Send what waits, oldest first, until it is asked to stop; what is in hand already goes before anything new.

    Returns after the batch under way when it is asked to stop, and when nothing went out for `quiet_s`.

    Raises:
        LinkLost, AuthenticationFailed: what has no receipt stays in hand for the next link.

    Cancellation: as after `LinkLost`.
    """
    in_hand, most = supply.queue.in_hand, min(SLOW_START, supply.max_in_flight)
    quiet_at = trio.current_time() + quiet_s
    while not stopping.requested:
        batch = supply.batch(most)
        if not batch:
            with stopping.interrupts(), trio.move_on_at(quiet_at) as waiting, in_hand.until_decoded():
                await supply.take(most)
            if waiting.cancelled_caught:
                return
            continue
        in_hand.sending = len(batch)
        begun = trio.current_time()
        try:
            await transport.send(batch, BatchReceipts(in_hand, batch))
        except Throttled as patience:
            in_hand.sending = 0
            if debug_log.on:
                debug_log.held(batch, trio.current_time() - begun, patience)
            health.throttled(patience)
            with stopping.interrupts():
                await trio.sleep(patience.retry_after_s)
            health.throttled(None)
            continue
        except TransportError as error:
            if debug_log.on:
                debug_log.held(batch, trio.current_time() - begun, error)
            raise
        assert in_hand.sending == 0, "a transport returned from send without a receipt for each uplink"
        took_s = trio.current_time() - begun
        quiet_at = trio.current_time() + quiet_s
        if debug_log.on:
            debug_log.batch(batch, took_s)
        if supply.queue.backlog is not None and took_s > BRISK_S:
            most = max(min(SLOW_START, supply.max_in_flight), most // 2)
        elif len(batch) == most:
            most = min(BATCH, 2 * most, supply.max_in_flight)


async def decided(uplinks: Iterable[Uplink], outbound: Outbound) -> Decide:
    """Decide about uplinks that were taken; a flow that takes its time lets others go on after each.

    Cancellation: they are all decided about, since what goes before its turn must not be forgotten once it was chosen.
    """
    if not outbound.flow.may_take_long:
        return outbound.decide_at_once
    decisions = {}
    for uplink in uplinks:
        decisions[uplink.seq] = outbound.decide_at_once(uplink)
        await trio.lowlevel.cancel_shielded_checkpoint()
    return lambda uplink: decisions[uplink.seq]


async def decode_ahead(in_hand: InHand, outbound: Outbound, decoding: Decoding) -> None:
    """Decode what is in hand and waits for that, in the order in which it was taken, for ever.

    It goes on while a batch is under way. A script that takes its time keeps back what its device sent, and whatever
    was to be decoded together with that.

    Cancellation: what was not decoded waits in `in_hand` for the next version of the file.
    """
    while True:
        await in_hand.undecoded.wait()
        in_hand.undecoded = trio.Event()
        while waiting := in_hand.waiting(DECODED_AT_ONCE):
            items = {item.uplink.seq: item for item in waiting}

            def decoded(uplink: Uplink, more: Uplink, items: dict[int, Taken] = items) -> None:
                in_hand.decoded(items[uplink.seq], more, outbound.decide(more))

            await decoding.decode(outbound.flow.driver, [item.uplink for item in waiting], decoded)


async def commit_receipts(queue: Queue, health: Health) -> None:
    """Commit whatever is settled, for ever; while the disk refuses, try again each second.

    Cancellation: what was not committed is still in hand; see `commit_settled`.
    """
    while True:
        await queue.in_hand.progress.wait()
        queue.in_hand.progress = trio.Event()
        await commit_settled(queue, health)


async def commit_settled(queue: Queue, health: Health) -> None:
    """Commit what is settled now, and with it what other connections get of what was delivered; while the disk
    refuses, try again each second."""
    in_hand = queue.in_hand
    while prefix := in_hand.settled_prefix():
        handed_on = queue.outbound.handed_on(in_hand.delivered(len(prefix)))
        try:
            await queue.cursor.commit(prefix, handed_on, in_order=not in_hand.overtaken)
        except SpoolUnavailable as error:
            health.note(error)
            await trio.sleep(COMMIT_RETRY_S)
            continue
        for uplink, fate in in_hand.lost(len(prefix)):
            health.lost(uplink, fate)
        in_hand.committed(len(prefix))
        health.cursor_moved([fate for _, fate in prefix])
