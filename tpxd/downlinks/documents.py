"""What is said about a command: the answer to whoever sent it, and what people are shown. Pure.

Source: ThingPark X IoT Flow, "Downlink messages": DevEUI_downlink_Rejected, DevEUI_downlink_Sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from tpxd.events import utc_text
from tpxd.log import masked
from tpxd.lorawan.downlinks import Command
from tpxd.lorawan.on_air import cause_in_words, in_words
from tpxd.lorawan.reports import ABOUT_DOWNLINKS, DOWNLINK_REJECTED
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import CommandState, Outcome, StoredCommand

WRONG: Final = 400
TOO_LATE: Final = 408
UNCERTAIN: Final = 504
"""DeliveryStatus where the LRC gave none, after HTTP's statuses of the same meaning."""

MAX_FIELD: Final = 64
"""Characters that are kept of each field."""

_SENT_FIELDS: Final = (
    "Time", "FCntDn", "DeliveryStatus", "DeliveryFailedCause1", "DeliveryFailedCause2", "DeliveryFailedCause3",
    "DeliveryFailedCause4", "TransmissionSlot", "Lrrid", "CorrelationID", "TransmissionStatus", "LrrCnt",
    "LrrSuccessCnt", "LrrFailedCnt", "LrrFailedDistribution",
)  # fmt: skip


def rejection(command: StoredCommand, now_s: float, customer: str | int | None) -> bytes:
    """The DevEUI_downlink_Rejected document of a command that the LRC did not take; `customer` is its CustomerID."""
    fields: dict[str, Any] = {
        "Time": datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds"),
        "DevEUI": command.dev_eui,
        "FPort": command.f_port,
        "DeliveryStatus": command.status,
        "DownlinkRejectionCause": cause_in_words(masked(command.cause)) if command.cause else None,
        "CorrelationID": command.correlation_id or None,
        "CustomerID": customer,
    }
    return orjson.dumps({DOWNLINK_REJECTED: {name: value for name, value in fields.items() if value is not None}})


def transmission(fields: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a DevEUI_downlink_Sent or a DevEUI_multicast_summary."""
    found = {name: fields[name] for name in _SENT_FIELDS if isinstance(fields.get(name), str | int | float)}
    return {name: value[:MAX_FIELD] if isinstance(value, str) else value for name, value in found.items()}


def command_document(command: StoredCommand) -> dict[str, Any]:
    """A command for people and programs; its AS_KEY is never part of it.

    `state` is `doubtful` instead of `waiting` once it was written and no answer came; `doubts` counts how often.
    `transmitted` is what the LRC reported about it, `onAir` the same in words.
    """
    doubtful = command.doubts and not command.state.final
    return {
        "id": command.id,
        "connection": command.connection or None,
        "DevEUI": command.dev_eui,
        "FPort": command.f_port,
        "payload_hex": command.command.payload_hex if command.command is not None else None,
        "CorrelationID": command.correlation_id or None,
        **(_options(command.command) if command.command is not None else {}),
        "state": "doubtful" if doubtful else str(command.state),
        "final": command.state.final,
        "cause": command.cause or None,
        "status": command.status,
        "received": utc_text(command.received_ms / 1000),
        "changed": utc_text(command.changed_ms / 1000),
        "tries": command.tries,
        "doubts": command.doubts,
        "transmitted": command.transmitted,
        "onAir": None if command.transmitted is None else in_words(command.transmitted),
    }


def _options(command: Command) -> dict[str, Any]:
    until_s = command.valid_until_s
    options = {
        "Confirmed": command.confirmed,
        "FlushDownlinkQueue": command.flush_queue,
        "FCntDn": command.f_cnt_dn,
        "AFCntDn": command.af_cnt_dn,
        "RAN": command.ran,
        "MType": command.m_type,
        "ValidityTime": None if until_s is None else utc_text(until_s),
    }
    return {name: value for name, value in options.items() if value is not None}


def is_unhappy(state: CommandState) -> bool:
    """Whoever sent the command is told that it came to nothing."""
    return state in (CommandState.REJECTED, CommandState.EXPIRED)


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
