"""What the LRC's reports about a downlink say became of it on the air, in words. Pure.

Source: LRC tunnel interface, DevEUI_downlink_Sent (DeliveryStatus, DeliveryFailedCause, TransmissionSlot) and
DevEUI_multicast_summary (TransmissionStatus, LrrFailedDistribution).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

CAUSES: Final = {
    "A0": "the radio is stopped",
    "A1": "the downlink radio is stopped",
    "A2": "the slot is not available",
    "A3": "the radio is busy",
    "A4": "listen before talk",
    "A5": "an error of the radio board",
    "A6": "an error of the base station's own kind",
    "B0": "too late for this slot",
    "C0": "the LRC chose RX2",
    "D0": "the duty cycle of the base station",
    "DA": "the duty cycle that the LRC keeps",
    "DB": "the longest dwell time",
    "DC": "no base station with GPS time",
    "DD": "no base station is connected",
    "DE": "the peering operator does not allow it",
    "DF": "the NetID is wrong",
    "E0": "60 s had passed, the longest delay of class C",
    "E1": "the queue is full",
    "E2": "FCntDn is not valid",
    "E3": "its ValidityTime was over",
    "E4": "the device joined again, which empties the queue",
}
"""DeliveryFailedCause to why; E1 to E4 are not in every edition of the documentation."""

NONE: Final = ("", "00")
SLOTS: Final = {"1": "RX1", "2": "RX2", "3": "the ping slot", "4": "RXR"}
"""TransmissionSlot; the causes of failure are numbered likewise."""

_COUNT = re.compile(r"([0-9A-Fa-f]{2})=([0-9]{1,9})")


def cause_in_words(code: str) -> str:
    """A cause for people; what is no known code is left as it is."""
    known = CAUSES.get(code.upper())
    return f"{code}, {known}" if known else code


def went_well(fields: Mapping[str, Any]) -> bool:
    """Whether the downlink was transmitted; a multicast one, by all of its base stations."""
    if "TransmissionStatus" in fields:
        return bool(fields["TransmissionStatus"] == "SUCCESS")
    return str(fields.get("DeliveryStatus", 1)) == "1"


def in_words(fields: Mapping[str, Any]) -> str:
    """What a report's fields say, in one line: `not transmitted: RX1 D0, the duty cycle of the base station`."""
    words = _summary(fields) if "TransmissionStatus" in fields else _single(fields)
    why = "; ".join(_counted(fields) if "TransmissionStatus" in fields else _causes(fields))
    return f"{words}: {why}" if why else words


def _single(fields: Mapping[str, Any]) -> str:
    if not went_well(fields):
        return "not transmitted"
    slot = SLOTS.get(str(fields.get("TransmissionSlot")))
    return f"transmitted in {slot}" if slot else "transmitted"


def _causes(fields: Mapping[str, Any]) -> Iterator[str]:
    for number, slot in SLOTS.items():
        code = str(fields.get(f"DeliveryFailedCause{number}", ""))
        if code not in NONE:
            yield f"{slot} {cause_in_words(code)}"


def _summary(fields: Mapping[str, Any]) -> str:
    """`PARTIAL` and its numbers."""
    all_of_them, good = fields.get("LrrCnt"), fields.get("LrrSuccessCnt")
    match fields["TransmissionStatus"]:
        case "SUCCESS":
            words = "transmitted"
        case "PARTIAL":
            words = "transmitted in part"
        case "ABORTED":
            words = "given up"
        case other:
            words = f"TransmissionStatus {other}"
    return words if all_of_them is None or good is None else f"{words}, by {good} of {all_of_them} base stations"


def _counted(fields: Mapping[str, Any]) -> Iterator[str]:
    """`A3=2,D0=5` in words."""
    for code, count in _COUNT.findall(str(fields.get("LrrFailedDistribution", ""))):
        yield f"{count} × {cause_in_words(code)}"
