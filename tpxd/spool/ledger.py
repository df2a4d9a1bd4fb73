"""What may happen to a cursor: it begins, moves, loses rows, retires, ends. Each in a transaction of the journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from tpxd.lorawan.uplink import Uplink
from tpxd.spool.fates import DROPPED, OUTCOMES, REJECTED, SINCE, WAITING, Outcome, digit_of, outcome
from tpxd.spool.journal import Journal
from tpxd.spool.reading import Page
from tpxd.spool.rows import BLOCK, MAX_BLOCKS, NOTHING, CursorRow, Fate, Hole, Rejected, Settled
from tpxd.spool.state import State, notes_of


def ensure(journal: Journal, id: str, position: int | None = None) -> None:
    """Make a cursor that waits for everything after `position`, or bring a retired one back as it was.

    Args:
        position: None is the journal's end. After a repair that could not tell which cursors there were, the new one
            waits for everything that is there.
    """
    state = journal.state
    row = state.cursors.get(id)
    if row is None:
        begin = state.last_seq if position is None else min(position, state.last_seq)
        begin_at(journal, id, state.first_seq - 1 if state.orphaned else begin)
    elif row.retired_ms is not None:
        journal.put_cursor(replace(row, retired_ms=None))


def begin_at(journal: Journal, id: str, position: int) -> None:
    """Make a cursor that still waits for everything after `position`; what is lost of that counts as dropped."""
    state = journal.state
    n = max((row.n for row in state.cursors.values()), default=0) + 1
    lost = state.last_seq - position - state.present(position, state.last_seq)
    journal.put_cursor(CursorRow(n, id, position, position, dropped=lost))


def read_page(journal: Journal, after: int) -> Page:
    """Read the next rows after a seq, outside a transaction; those that are damaged become holes."""
    page = journal.reader.page(journal.state, after)
    if page.damaged:
        with journal.transaction():
            for seq in page.damaged:
                journal.add_hole(Hole(seq, seq))
    return page


def newest_of(journal: Journal, lane: str, after: int, through: int, limit: int) -> list[Uplink]:
    """The newest uplinks of one device in a part of the journal, newest first; damaged ones are left out."""
    seqs = journal.reader.seqs_of(lane, after, through)[:limit]
    return [uplink for seq in seqs for uplink in journal.reader.page(journal.state, seq - 1, 1).uplinks]


def settle(
    journal: Journal, id: str, settled: Sequence[tuple[int, Settled]], at_ms: int, *, in_order: bool = True
) -> Collection[int]:
    """Note uplinks whose fate is known, and move the cursor; returns those that were not settled before.

    What is settled already, lost, or not stored is left out of account. In order, the position moves to the last of
    them; what lies between and was not named counts as dropped, so that the ledger balances whatever the caller does.
    Else it moves as far as there is no gap, and the others are settled ahead.
    """
    state = journal.state
    row = state.cursors.get(id)
    if row is None:
        return ()
    fates = {seq: fate for seq, fate in settled if row.position < seq <= state.last_seq and not state.in_hole(seq)}
    if row.ahead.count:
        fates = {seq: fate for seq, fate in fates.items() if seq not in row.ahead}
    if not fates:
        return ()
    others = {seq: fate for seq, fate in fates.items() if fate is not Fate.DELIVERED}
    if others:
        journal.fates.note(row.n, id, {seq: digit_of(fate) for seq, fate in others.items()})
    rejected = {seq: fate.reason for seq, fate in others.items() if isinstance(fate, Rejected)}
    if rejected:
        journal.add_dead_letters(id, rejected, at_ms)
    expired = sum(fate is Fate.EXPIRED for fate in others.values())
    row = replace(
        row,
        delivered=row.delivered + len(fates) - len(others),
        filtered=row.filtered + len(others) - expired - len(rejected),
        expired=row.expired + expired,
        rejected=row.rejected + len(rejected),
    )
    if in_order:
        through = max(fates)
        skipped = state.waiting_between(row, row.position, through) - len(fates)
        if skipped:
            _note_dropped(journal, row, through, fates)
        journal.put_cursor(_moved(state, replace(row, dropped=row.dropped + skipped), through))
    else:
        journal.put_cursor(_bounded(journal, state.moved_on(replace(row, ahead=row.ahead.adding(fates)))))
    return fates


def fates_of(journal: Journal, seqs: Sequence[int]) -> dict[int, dict[str, Outcome]]:
    """What became of uplinks, by seq and by connection; those that came before a queue began are left out of it."""
    state = journal.state
    since = int(state.meta.get(SINCE, "0"))
    found: dict[int, dict[str, Outcome]] = {seq: {} for seq in seqs}
    for id, row in sorted(state.cursors.items()):
        for seq, digit in journal.fates.of(row.n, [seq for seq in seqs if seq > row.base]).items():
            done = seq <= row.position or seq in row.ahead
            found[seq][id] = outcome(digit, seq, since) if done else WAITING
        rejected = [seq for seq in seqs if found[seq].get(id) == OUTCOMES[REJECTED]]
        for seq, reason in journal.reader.reasons(id, rejected).items() if rejected else ():
            found[seq][id] = replace(found[seq][id], why=reason)
    return found


def _note_dropped(journal: Journal, row: CursorRow, through: int, besides: Collection[int]) -> None:
    """Note what lies between a cursor and a seq, and is neither settled nor among these, as dropped."""
    passed = range(row.position + 1, through + 1)
    digits = dict.fromkeys([seq for seq in passed if seq not in besides and seq not in row.ahead], DROPPED)
    journal.fates.note(row.n, row.id, digits)


def _moved(state: State, row: CursorRow, through: int) -> CursorRow:
    return state.moved_on(replace(row, position=through, ahead=row.ahead.without(0, through)))


def _bounded(journal: Journal, row: CursorRow) -> CursorRow:
    """The cursor, moved over its oldest gaps where it has settled too much beyond them; what is lost by it is dropped.

    Only a cursor that was lost and put back at the oldest row, while its connection went on, comes as far.
    """
    blocks = sorted(row.ahead.blocks)
    if len(blocks) <= 2 * MAX_BLOCKS:
        return row
    state = journal.state
    through = blocks[-2 * MAX_BLOCKS] * BLOCK - 1
    _note_dropped(journal, row, through, ())
    lost = state.waiting_between(row, row.position, through)
    return _moved(state, replace(row, dropped=row.dropped + lost), through)


def lanes_waiting(journal: Journal, id: str, after: int, through: int, besides: Collection[int]) -> dict[str, int]:
    """The lanes for which a cursor waits in a part of the journal, and the last uplink of each there.

    Args:
        after: not before the position.
        besides: seqs that do not count.
    """
    row = journal.state.cursors.get(id)
    ahead = NOTHING if row is None else row.ahead
    found = journal.reader.lanes(after, through)
    return {lane: seq for seq, lane in found if seq not in ahead and seq not in besides}


def drop_handed_on(journal: Journal, recipients: Sequence[str | None]) -> None:
    """There was no room for what is handed on to these, once for each: count it as received and dropped there."""
    state = journal.state
    counts = Counter(recipient for recipient in recipients if recipient is not None)
    for id, count in counts.items():
        if (row := state.cursors.get(id)) is not None:
            journal.put_cursor(replace(row, retried=row.retried + count, dropped=row.dropped + count))
    state.not_handed_on = Counter(state.not_handed_on) + counts


def pass_over(journal: Journal, through: int, *, expired: bool) -> dict[str, int]:
    """Move every cursor at least to `through`; returns how many uplinks each of the laggards lost by it."""
    state = journal.state
    lost: dict[str, int] = {}
    for row in list(state.cursors.values()):
        if row.position < through:
            count = state.waiting_between(row, row.position, through)
            if expired:
                counted = replace(row, expired=row.expired + count)
            else:
                counted = replace(row, dropped=row.dropped + count)
            journal.put_cursor(_moved(state, counted, through))
            if count:
                lost[row.id] = count
    return lost


def retire(journal: Journal, id: str, at_ms: int) -> None:
    """The connection's file was removed: its queue stays for a while."""
    row = journal.state.cursors.get(id)
    if row is not None:
        journal.put_cursor(replace(row, retired_ms=at_ms))


def forget(journal: Journal, id: str) -> int:
    """Drop a queue, its ledger and what is remembered for it; returns how many uplinks waited in it."""
    row = journal.state.cursors.get(id)
    if row is None:
        return 0
    waiting = journal.state.waiting(row)
    journal.delete_cursor(id)
    journal.delete_meta(notes_of(journal.state.meta, id))
    return waiting
