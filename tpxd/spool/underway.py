"""What is on its way to the disk, and what came before: each report once within the duplicate window. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from tpxd.errors import SpoolUnavailable
from tpxd.lorawan.uplink import Uplink
from tpxd.spool.contract import NewReport
from tpxd.spool.recent import Recent
from tpxd.spool.rounds import Pending

MAX_PENDING = 4_096
MAX_PENDING_BYTES = 64 << 20


class Underway:
    """See the module.

    Attributes:
        recent: what was stored.
        duplicates: reports that were not stored again.
    """

    def __init__(self, recent: Recent) -> None:
        self.recent = recent
        self.duplicates = 0
        self._pending: dict[int, Pending] = {}
        self._bytes = 0

    def digest(self, report: NewReport | Uplink) -> int:
        """By what an equal report is recognised; what is for one connection is not equal to what is for another.

        Raises:
            UnicodeEncodeError: a text is not Unicode.
        """
        if report.recipient is None:
            return self.recent.digest(report.kind, report.lane, report.body)
        # in these words from the first format on, so that what was handed on before an upgrade is known after it
        return self.recent.digest(report.kind, f"{report.lane}\0tpxd:to={report.recipient}", report.body)

    def find(self, digest: int) -> Pending | None:
        """An equal report that is on its way."""
        return self._pending.get(digest)

    def enter(self, report: NewReport, digest: int, now_ms: int) -> Pending:
        """A new report is on its way.

        Raises:
            SpoolUnavailable: too many are.
        """
        if len(self._pending) >= MAX_PENDING or self._bytes >= MAX_PENDING_BYTES:
            raise SpoolUnavailable("too many reports wait for the disk", hint="the disk is slower than the LRC")
        uplink = Uplink(
            0, now_ms, report.kind, report.lane, report.lrn_infos, report.body, report.document, report.recipient
        )
        return self._add(uplink, digest)

    def hand_on(self, handed: Sequence[tuple[int, Uplink]], now_ms: int) -> list[tuple[int, Pending]]:
        """What connections hand on is on its way, but for what its recipient got already within the window."""
        entered = []
        for seq, uplink in handed:
            # what was not a report before is a new one each time: a message of a far end, or a verdict on a command
            digest = self.digest(uplink) if uplink.handed_on else secrets.randbits(63)
            if self.recent.find(digest, now_ms) is None and digest not in self._pending:
                entered.append((seq, self._add(uplink, digest)))
        return entered

    def _add(self, uplink: Uplink, digest: int) -> Pending:
        pending = self._pending[digest] = Pending(uplink, digest, [])
        self._bytes += len(uplink.body)
        return pending

    def ended(self, pending: Pending) -> None:
        """It was stored, or refused."""
        del self._pending[pending.digest]
        self._bytes -= len(pending.uplink.body)
