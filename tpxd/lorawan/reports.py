"""Reports as the LRC posts them: one root key that names the type, and the fields inside it.

Source: LRC tunnel interface, message formats. New fields and new types appear with each release of ThingPark, so what
is not known is carried, never refused; only what tpxd itself relies on is checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tpxd.errors import ReportError
from tpxd.lorawan.json_reports import VALUES, document_from_json, refuse_deep, refuse_dense
from tpxd.lorawan.xml_reports import MARKUP, document_from_xml

UPLINK = "DevEUI_uplink"
DOWNLINK_SENT = "DevEUI_downlink_Sent"
DOWNLINK_REJECTED = "DevEUI_downlink_Rejected"
LOCATION = "DevEUI_location"
NOTIFICATION = "DevEUI_notification"
MULTICAST_SUMMARY = "DevEUI_multicast_summary"
DEVICE_ALARM = "DevEUI_alarm"
BASE_STATION_ALARM = "BS_alarm"

KINDS = frozenset(
    {
        UPLINK,
        DOWNLINK_SENT,
        DOWNLINK_REJECTED,
        LOCATION,
        NOTIFICATION,
        MULTICAST_SUMMARY,
        DEVICE_ALARM,
        BASE_STATION_ALARM,
    }
)
"""The documented report types."""

ABOUT_DOWNLINKS = frozenset({DOWNLINK_SENT, MULTICAST_SUMMARY})
"""Those that tell what became of a downlink on the air."""

_INVISIBLE = b" \t\r\n\xef\xbb\xbf"  # with the byte order mark of UTF-8
_MAX_COUNTER = 2**32 - 1
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_DEV_EUI = re.compile(r"[0-9A-Fa-f]{16}")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})*")
_LRR_ID = re.compile(r"[0-9A-Fa-f]{8,16}")


@dataclass(slots=True)
class Report:
    """One report, checked.

    Not frozen: one is made for each report on the hot path. Nobody changes one.

    Attributes:
        kind: the root key, such as `DevEUI_uplink`.
        lane: the DevEUI in upper case, or the LrrID of a report about a base station.
        body: JSON to forward: byte for byte what came, or made from the XML that came.
        document: the parsed body, root key included; shared, so read only.
    """

    kind: str
    lane: str
    body: bytes
    document: dict[str, Any]

    @property
    def fields(self) -> dict[str, Any]:
        """What stands inside the root key."""
        inner: dict[str, Any] = self.document[self.kind]
        return inner


def parse_report(body: bytes, content_type: str | None = None) -> Report:
    """Read a report, JSON or XML: what the first character says, or the content type where that is neither.

    Raises:
        ReportError: it is no report; one line that says why.
    """
    first = body[:64].lstrip(_INVISIBLE)[:1]
    if first == b"<" or (first != b"{" and content_type is not None and "xml" in content_type.lower()):
        refuse_dense(body, VALUES + MARKUP)
        document: Any = document_from_xml(body.lstrip())
        refuse_deep(document)
        body = orjson.dumps(document)
    else:
        refuse_dense(body)
        document = document_from_json(body)
    if type(document) is not dict or len(document) != 1:
        raise ReportError(f"the body is {_described(document)}, not an object with one key that names the report")
    ((kind, fields),) = document.items()
    if kind not in KINDS and not _KIND.fullmatch(kind):
        raise ReportError(f"{_shown(kind)} is no name of a report")
    if type(fields) is not dict:
        raise ReportError(f"{kind} holds {_described(fields)}, not an object")
    _check_fields(kind, fields)
    return Report(kind, _lane(kind, fields), body, document)


def field_text(fields: Mapping[str, Any], name: str) -> str:
    """A field as the LRC hashes it: FPort and counters in decimal without padding, also when they came as text.

    Absent, null and empty are the same: "".
    """
    value = fields.get(name)
    if type(value) is str:
        return _without_padding(value) if name in _NUMBERS else value
    return "" if value is None else str(value)


def _without_padding(digits: str) -> str:
    return digits.lstrip("0") or digits[-1:]


def _check_fields(kind: str, fields: dict[str, Any]) -> None:
    for name, highest in _NUMBERS.items():
        value = fields.get(name)
        if value is None or value == "":
            continue
        # 1 to 10 ASCII digits: int() alone takes "+1", "1_0" and Arabic digits, and chokes on a mile of them.
        if type(value) is str and value.isascii() and value.isdigit() and len(value) <= 10:
            value = int(value)
        if type(value) is not int or not 0 <= value <= highest:
            raise ReportError(f"{name} of {kind} is {_shown(value)}, not a number from 0 to {highest}")
    customer = fields.get("CustomerID")
    if customer is not None and type(customer) is not str and type(customer) is not int:
        raise ReportError(f"CustomerID of {kind} is {_described(customer)}, not text or a number")
    payload = fields.get("payload_hex")
    if payload is not None and type(payload) is not str:
        raise ReportError(f"payload_hex of {kind} is {_described(payload)}, not text")
    if payload and not _HEX.fullmatch(payload):
        raise ReportError(f"payload_hex of {kind} is {_shown(payload)}, not pairs of hex digits")


_NUMBERS = {"FPort": 255, "FCntUp": _MAX_COUNTER, "FCntDn": _MAX_COUNTER}


def _lane(kind: str, fields: dict[str, Any]) -> str:
    dev_eui = fields.get("DevEUI")
    if dev_eui is not None and kind != BASE_STATION_ALARM:
        if type(dev_eui) is not str or not _DEV_EUI.fullmatch(dev_eui):
            raise ReportError(f"DevEUI of {kind} is {_shown(dev_eui)}, not 16 hex digits")
        return dev_eui.upper()
    lrr_id = fields.get("LrrID")
    if kind == BASE_STATION_ALARM or (kind not in KINDS and lrr_id is not None):
        if type(lrr_id) is not str or not _LRR_ID.fullmatch(lrr_id):
            raise ReportError(f"LrrID of {kind} is {_shown(lrr_id)}, not 8 hex digits")
        return lrr_id.upper()
    raise ReportError(f"{kind} has no DevEUI")


def _described(value: Any) -> str:
    """What a JSON value is, for people."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return f"an object with {len(value)} keys"
        case list():
            return "a list"
        case str():
            return "text"
        case _:
            return "a number"


def _shown(value: Any) -> str:
    """A JSON value itself where it is short and plain, for people."""
    if isinstance(value, dict | list | bool) or value is None:
        return "missing" if value is None else _described(value)
    text = ascii(value)
    return text if len(text) <= 40 else text[:37] + "..."
