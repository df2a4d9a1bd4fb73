"""The table of downlinks in a spool; its writes share the commits of the uplinks.

The event loop keeps every downlink that is on disk in memory too (`tpxd.downlinks.queue`), so the table is read once,
at the start. Counters of a connection are a note beside them, written in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from tpxd.lorawan.uplink import Uplink
from tpxd.spool.contract import DownlinkStore, NewReport
from tpxd.spool.downlinks import LoadedDownlinks, StoredDownlink, downlink_from_row
from tpxd.spool.exchange import Exchange
from tpxd.spool.journal import Journal
from tpxd.spool.state import COUNTS

REPORT = 0
"""Under this number reports are handed to the spool: no uplink has it."""


class DownlinkTable(DownlinkStore):
    """The table of downlinks in a spool; its writes share the commits of the uplinks."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def load(self) -> LoadedDownlinks:
        """See `DownlinkStore`."""
        return await self._exchange.write(_load)

    async def write(
        self,
        downlinks: Sequence[StoredDownlink],
        forgotten: Sequence[int],
        counts: Mapping[str, Mapping[str, int]],
        reports: Sequence[NewReport] = (),
    ) -> None:
        """See `DownlinkStore`."""
        rows = [downlink.to_row() for downlink in downlinks]
        notes = {f"{COUNTS}{id}": orjson.dumps(one).decode() for id, one in counts.items()}
        now_ms = self._exchange.now_ms()
        handed = [
            (REPORT, Uplink(0, now_ms, r.kind, r.lane, r.lrn_infos, r.body, r.document, r.recipient)) for r in reports
        ]

        def run(journal: Journal) -> tuple[int, ...]:
            journal.put_downlinks(rows)
            journal.delete_downlinks(forgotten)
            for key, value in notes.items():
                journal.put_meta(key, value)
            return (REPORT,)

        await self._exchange.settle(run, handed, whole=True)


def _load(journal: Journal) -> LoadedDownlinks:
    rows = journal.reader.downlinks()
    downlinks = [downlink_from_row(row) for row in rows]
    damaged = [row[0] for row, downlink in zip(rows, downlinks, strict=True) if downlink is None]
    journal.delete_downlinks(damaged)
    notes = {key.removeprefix(COUNTS): value for key, value in journal.state.meta.items() if key.startswith(COUNTS)}
    counts = {id: orjson.loads(value) for id, value in notes.items()}
    return LoadedDownlinks([downlink for downlink in downlinks if downlink is not None], counts, len(damaged))
