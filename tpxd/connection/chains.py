"""Who hands on to whom: `chainedWithConnectionIds`. Pure.

A connection that others name gets the original report of what they delivered, and the JSON from their far ends that is
no downlink. One that has no matchers of its own gets nothing else; with matchers it gets both, each report once.

What is handed on is a report in the journal of its own, addressed to one connection, so a chain's later links neither
wait for each other nor hold up the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tpxd.errors import ReportError
from tpxd.lorawan.reports import DOWNLINK_REJECTED, parse_report
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import NewReport

Names = Mapping[str, Sequence[str]]
"""Whom each connection names, by id."""


def circle(names: Names, id: str) -> list[str] | None:
    """The shortest way from a connection back to itself, None when there is none: `["a", "b", "a"]`."""
    ways = [[id, named] for named in names.get(id, ())]
    seen: set[str] = set()
    while ways:
        way = ways.pop(0)
        if way[-1] == id:
            return way
        if way[-1] not in seen:
            seen.add(way[-1])
            ways += [[*way, named] for named in names.get(way[-1], ())]
    return None


class Chains:
    """The connections at work and whom they name."""

    def __init__(self) -> None:
        self._names: dict[str, tuple[str, ...]] = {}
        self._named: frozenset[str] = frozenset()

    def set(self, names: Names) -> None:
        """What the files at work say. A connection that is not there is left out, as is what would close a circle: an
        old version of one file may name another whose new version names it."""
        self._names = {}
        for id, wanted in sorted(names.items()):
            for named in dict.fromkeys(wanted):
                before = self._names.get(id, ())
                self._names[id] = (*before, named)
                if named not in names or circle(self._names, id) is not None:
                    self._names[id] = before
        self._named = frozenset(named for wanted in self._names.values() for named in wanted)

    def names(self, id: str) -> bool:
        """Whether some connection names this one."""
        return id in self._named

    def handed_on(self, id: str, delivered: Iterable[Uplink]) -> list[tuple[int, Uplink]]:
        """What is handed on of what a connection delivered: the seq there, and the report for another connection."""
        targets = self._names.get(id)
        if not targets:
            return []
        return [
            (uplink.seq, uplink.handed_on_to(target)) for uplink in delivered if _is_meant(uplink) for target in targets
        ]

    def messages(self, id: str, body: bytes) -> Iterator[NewReport]:
        """What is handed on of JSON that came from a connection's far end and is no downlink."""
        for target in self._names.get(id, ()):
            try:
                report = parse_report(body)
            except ReportError:
                yield NewReport("", "", "", body, repeatable=True, recipient=target)
            else:
                yield NewReport(report.kind, report.lane, "", body, report.document, repeatable=True, recipient=target)


def _is_meant(uplink: Uplink) -> bool:
    """What became of a connection's own downlink is for that connection alone."""
    return uplink.kind != DOWNLINK_REJECTED or uplink.recipient is None or uplink.handed_on
