"""Small words for tests that use a journal without the event loop."""

from __future__ import annotations

from collections.abc import Sequence

from tpxd.lorawan.uplink import Uplink
from tpxd.spool import ledger
from tpxd.spool.database import Damaged, Distrusted
from tpxd.spool.journal import Journal
from tpxd.spool.starting import renew_journal


def body_of(seq: int, size: int) -> bytes:
    """A body that no other row has."""
    return (b'{"DevEUI_uplink":{"FCntUp":%d,"payload_hex":"' % seq).ljust(size + 44, b"%x" % (seq % 16)) + b'"}}'


def uplink(body: bytes, received_ms: int = 1_795_000_000_000) -> Uplink:
    """An uplink that is not stored yet."""
    return Uplink(0, received_ms, "DevEUI_uplink", "0018B20000000B20", "TWA_1", body)


def store(journal: Journal, sizes: Sequence[int], stored_ms: int = 1_795_000_000_000) -> dict[int, bytes]:
    """Store uplinks of about these sizes in one commit; returns their bodies by seq."""
    first = journal.state.last_seq + 1
    bodies = {first + index: body_of(first + index, size) for index, size in enumerate(sizes)}
    with journal.transaction():
        journal.append([uplink(body) for body in bodies.values()], [hash(body) for body in bodies.values()], stored_ms)
    return bodies


def renewed(journal: Journal, why: Damaged | Distrusted, page_size: int = 4_096) -> Journal:
    """The journal in a new file, as the writer makes one."""
    return renew_journal(
        journal,
        why,
        lambda text: None,
        page_size=page_size,
        wall_clock=lambda: 1_795_000_000.0,
        note=lambda event: None,
        measure_free=lambda directory: 1 << 40,
    )


def drain(journal: Journal, id: str) -> dict[int, bytes]:
    """Read everything that a cursor waits for, without moving it; the bodies by seq."""
    bodies: dict[int, bytes] = {}
    row = journal.state.cursors[id]
    after = row.position
    while after < journal.state.last_seq:
        page = ledger.read_page(journal, after)
        bodies |= {uplink.seq: uplink.body for uplink in page.uplinks if uplink.seq not in row.ahead}
        after = page.through
    return bodies
