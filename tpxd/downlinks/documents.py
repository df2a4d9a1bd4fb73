"""What is said about a downlink: the answer to whoever sent it, and what people are shown. Pure.

Source: ThingPark X IoT Flow, "Downlink messages": DevEUI_downlink_Rejected, DevEUI_downlink_Sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from tpxd.events import utc_text
from tpxd.log import masked
from tpxd.lorawan.downlinks import Downlink
from tpxd.lorawan.on_air import cause_in_words, in_words
from tpxd.lorawan.reports import ABOUT_DOWNLINKS, DOWNLINK_REJECTED
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import DownlinkState, Outcome, StoredDownlink

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


def rejection(downlink: StoredDownlink, now_s: float, customer: str | int | None) -> bytes:
    """The DevEUI_downlink_Rejected document of a downlink that the LRC did not take; `customer` is its CustomerID."""
    fields: dict[str, Any] = {
        "Time": datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds"),
        "DevEUI": downlink.dev_eui,
        "FPort": downlink.f_port,
        "DeliveryStatus": downlink.status,
        "DownlinkRejectionCause": cause_in_words(masked(downlink.cause)) if downlink.cause else None,
        "CorrelationID": downlink.correlation_id or None,
        "CustomerID": customer,
    }
    return orjson.dumps({DOWNLINK_REJECTED: {name: value for name, value in fields.items() if value is not None}})


def transmission(fields: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a DevEUI_downlink_Sent or a DevEUI_multicast_summary."""
    found = {name: fields[name] for name in _SENT_FIELDS if isinstance(fields.get(name), str | int | float)}
    return {name: value[:MAX_FIELD] if isinstance(value, str) else value for name, value in found.items()}


def downlink_document(downlink: StoredDownlink) -> dict[str, Any]:
    """A downlink for people and programs; its AS_KEY is never part of it.

    `state` is `doubtful` instead of `waiting` once it was written and no answer came; `doubts` counts how often.
    `transmitted` is what the LRC reported about it, `onAir` the same in words.
    """
    doubtful = downlink.doubts and not downlink.state.final
    return {
        "id": downlink.id,
        "connection": downlink.connection or None,
        "DevEUI": downlink.dev_eui,
        "FPort": downlink.f_port,
        "payload_hex": downlink.downlink.payload_hex if downlink.downlink is not None else None,
        "CorrelationID": downlink.correlation_id or None,
        **(_options(downlink.downlink) if downlink.downlink is not None else {}),
        "state": "doubtful" if doubtful else str(downlink.state),
        "final": downlink.state.final,
        "cause": downlink.cause or None,
        "status": downlink.status,
        "received": utc_text(downlink.received_ms / 1000),
        "changed": utc_text(downlink.changed_ms / 1000),
        "tries": downlink.tries,
        "doubts": downlink.doubts,
        "transmitted": downlink.transmitted,
        "onAir": None if downlink.transmitted is None else in_words(downlink.transmitted),
    }


def _options(downlink: Downlink) -> dict[str, Any]:
    until_s = downlink.valid_until_s
    options = {
        "Confirmed": downlink.confirmed,
        "FlushDownlinkQueue": downlink.flush_queue,
        "FCntDn": downlink.f_cnt_dn,
        "AFCntDn": downlink.af_cnt_dn,
        "RAN": downlink.ran,
        "MType": downlink.m_type,
        "ValidityTime": None if until_s is None else utc_text(until_s),
    }
    return {name: value for name, value in options.items() if value is not None}


def is_unhappy(state: DownlinkState) -> bool:
    """Whoever sent the downlink is told that it came to nothing."""
    return state in (DownlinkState.REJECTED, DownlinkState.EXPIRED)


SHOWN: Final = ("Time", "FPort", "FCntUp", "FCntDn", "payload_hex", "CorrelationID", "DownlinkRejectionCause")


def trace_document(
    uplinks: Sequence[Uplink],
    downlinks: Sequence[StoredDownlink],
    fates: Mapping[int, Mapping[str, Outcome]],
) -> list[dict[str, Any]]:
    """Reports and downlinks, each newest first, as one list, oldest first.

    Shape: each has `type`, the report type or `DevEUI_downlink`, and `received`. A report has its `fields` that matter
    to people, `onAir` in words where it is about a downlink, and by id of a connection what became of it there,
    `connections`, and `why`, where that is known and says more. A downlink has everything of `downlink_document`.

    Args:
        fates: what became of the reports, by seq; see `Spool.fates_of`.
    """
    entries = [
        (uplink.received_ms, _uplink_document(uplink, fates.get(uplink.seq, {}))) for uplink in reversed(uplinks)
    ]
    entries += [
        (downlink.received_ms, {"type": "DevEUI_downlink"} | downlink_document(downlink))
        for downlink in reversed(downlinks)
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
