"""What became of one device's reports and commands, in the order in which they came. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tpxd.engine.verdicts import command_document
from tpxd.events import utc_text
from tpxd.lorawan.on_air import in_words
from tpxd.lorawan.reports import ABOUT_DOWNLINKS
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import Outcome, StoredCommand

SHOWN: Final = ("Time", "FPort", "FCntUp", "FCntDn", "payload_hex", "CorrelationID", "DownlinkRejectionCause")


def trace_document(
    uplinks: Sequence[Uplink],
    commands: Sequence[StoredCommand],
    fates: Mapping[int, Mapping[str, Outcome]],
) -> list[dict[str, Any]]:
    """Reports and commands, each newest first, as one list, oldest first.

    Shape: each has `type`, the report type or `DevEUI_downlink`, and `received`. A report has its `fields` that matter
    to people, `onAir` in words where it is about a downlink, and by id of a connection what became of it there,
    `connections`, and `why`, where that is known and says more. A command has everything of `command_document`.

    Args:
        fates: what became of the reports, by seq; see `Spool.fates_of`.
    """
    entries = [
        (uplink.received_ms, _uplink_document(uplink, fates.get(uplink.seq, {}))) for uplink in reversed(uplinks)
    ]
    entries += [
        (command.received_ms, {"type": "DevEUI_downlink"} | command_document(command)) for command in reversed(commands)
    ]
    return [document for _, document in sorted(entries, key=lambda entry: entry[0])]


def _uplink_document(uplink: Uplink, fates: Mapping[str, Outcome]) -> dict[str, Any]:
    on_air = {"onAir": in_words(uplink.fields)} if uplink.kind in ABOUT_DOWNLINKS else {}
    meant = {id: fate for id, fate in fates.items() if uplink.recipient in (None, id)}
    return {
        "type": uplink.kind,
        "received": utc_text(uplink.received_ms / 1000),
        "seq": uplink.seq,
        "fields": {name: uplink.fields[name] for name in SHOWN if name in uplink.fields},
        **on_air,
        "connections": {id: fate.word for id, fate in meant.items()},
        "why": {id: fate.why for id, fate in meant.items() if fate.why is not None},
    }
