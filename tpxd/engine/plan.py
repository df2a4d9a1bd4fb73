"""What a reload has to do. Pure: two sets of connection files in, four sets of ids out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tpxd.connection_file import ConnectionFile


@dataclass(frozen=True, slots=True)
class Plan:
    """Ids by what happens to them; each id stands in one of the four, in alphabetical order."""

    stop: tuple[str, ...]
    restart: tuple[str, ...]
    start: tuple[str, ...]
    keep: tuple[str, ...]


def plan(wanted: Mapping[str, ConnectionFile], running: Mapping[str, ConnectionFile]) -> Plan:
    """Compare what should run with what runs. Models are compared, never file times: equal means untouched."""
    both = wanted.keys() & running.keys()
    changed = {id for id in both if wanted[id] is not running[id] and wanted[id] != running[id]}
    return Plan(
        stop=tuple(sorted(running.keys() - wanted.keys())),
        restart=tuple(sorted(changed)),
        start=tuple(sorted(wanted.keys() - running.keys())),
        keep=tuple(sorted(both - changed)),
    )
