"""Downlinks as applications send them: `DevEUI_downlink`, with or without its root key, numbers as numbers or as text.

    { "DevEUI_downlink": { "DevEUI": "70B3D5E75E00A1C4", "FPort": 5, "payload_hex": "02ff", "Confirmed": "1" } }
    <DevEUI_downlink><DevEUI>70B3D5E75E00A1C4</DevEUI><FPort>5</FPort><payload_hex>02ff</payload_hex></DevEUI_downlink>

Source: ThingPark X IoT Flow, "Downlink messages"; LRC tunnel interface (AS to LRC, downlink). Unknown fields, such as
`Time` and `CustomerID`, are left alone: new ones appear with each release.
"""

from __future__ import annotations

import math
import re
import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from tpxd.errors import ReportError, TpxdError
from tpxd.lorawan.xml_reports import document_from_xml

ROOT = "DevEUI_downlink"
MAX_BODY_BYTES = 64 * 1024
MAX_PAYLOAD_BYTES = 242
"""The largest application payload of any region at any data rate (LoRaWAN regional parameters)."""

MAX_COUNTER = 2**32 - 1
MAX_VALIDITY_S = 366 * 86_400
END_OF_TIME_S = 4_102_444_800
"""The year 2100: a date beyond it is a mistake, and the last ones that a calendar has cannot be written in UTC."""

_SEPARATORS = re.compile(r"[-:. ]")
_DEV_EUI = re.compile(r"(?:0[xX])?([0-9A-Fa-f]{16})")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})*")
_CORRELATION_ID = re.compile(r"[0-9A-Fa-f]{1,16}")
_SECONDS = re.compile(r"[0-9]{1,10}")
_AS_ID = re.compile(r"[!-~]{1,256}")
_CELLULAR = re.compile(r"[0-9A-Za-z_-]{1,32}")
_XML_BEGINS = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*<")


class DownlinkError(TpxdError):
    """A downlink that the LRC must not get; the message names the field.

    Attributes:
        field: which one.
        dev_eui, f_port, correlation_id: what could be read of it, so that the answer finds its way back.
    """

    def __init__(self, field: str, fault: str) -> None:
        super().__init__(f"{field} {fault}")
        self.field = field
        self.dev_eui = ""
        self.f_port: int | None = None
        self.correlation_id: str | None = None


class NotJson(TpxdError):
    """The message is no JSON, and no XML of a downlink; ThingPark ignores such messages."""


@dataclass(frozen=True, slots=True)
class NotADownlink:
    """JSON that is something else."""

    document: Any


@dataclass(frozen=True, slots=True)
class Downlink:
    """One checked downlink.

    Attributes:
        dev_eui: 16 hex digits in upper case.
        payload_hex: as it came; clear, or encrypted by the sender when a counter is given.
        f_cnt_dn, af_cnt_dn: the counter that the sender encrypted with (LoRaWAN 1.0, 1.1).
        confirmed, flush_queue, retry_ineligible_gateways: None where the sender did not say.
        valid_until_s: seconds since the epoch; None leaves it to the settings.
        validity_in_seconds: the sender wrote a number of seconds, not a date.
        correlation_id: 16 hex digits; made here where the sender gave none.
        as_id, as_key: what the sender brought to sign with; None leaves it to the settings.
        ran, m_type: which network and kind of message it is for, such as RAN CELLULAR; None where nothing was said.
    """

    dev_eui: str
    f_port: int
    payload_hex: str
    f_cnt_dn: int | None = None
    af_cnt_dn: int | None = None
    confirmed: bool | None = None
    flush_queue: bool | None = None
    valid_until_s: float | None = None
    validity_in_seconds: bool = False
    correlation_id: str = ""
    as_id: str | None = None
    as_key: str | None = field(default=None, repr=False)
    retry_ineligible_gateways: bool | None = None
    ran: str | None = None
    m_type: str | None = None


def parse_downlink(body: bytes, *, default_port: int | None, now_s: float) -> Downlink | NotADownlink:
    """Read a message of the downlink side.

    A downlink has the root `DevEUI_downlink`, or has none and is an object with a DevEUI and a payload that is not an
    uplink without its root. As XML it always has the root.

    Args:
        default_port: for downlinks without an FPort.
        now_s: seconds since the epoch, from which a ValidityTime in seconds counts.

    Raises:
        NotJson: it is no JSON and no XML of a downlink, or larger than `MAX_BODY_BYTES`.
        DownlinkError: it is a downlink, and a wrong one.
    """
    if len(body) > MAX_BODY_BYTES:
        raise NotJson(f"the message has {len(body)} bytes; a downlink has at most {MAX_BODY_BYTES}")
    document = _from_xml(body) if _XML_BEGINS.match(body) else _from_json(body)
    fields = _fields(document)
    if fields is None:
        return NotADownlink(document)
    if not isinstance(fields, dict):
        raise DownlinkError(ROOT, "is no object")
    try:
        return _downlink(fields, default_port, now_s)
    except DownlinkError as error:
        _say_whose(error, fields)
        raise


def _from_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotJson(f"the message is no JSON: {error}") from None


def _from_xml(body: bytes) -> dict[str, Any]:
    try:
        document = document_from_xml(body.lstrip())
    except ReportError as error:
        raise NotJson(f"the message is XML and no downlink: {error.message}") from None
    if ROOT not in document:
        raise NotJson(f"the message is XML and no downlink: its root is not {ROOT}")
    return document


def normalised_dev_eui(value: Any) -> str:
    """A DevEUI in upper case, from any notation: lower case, with dashes, colons, dots or blanks, or after 0x.

    Raises:
        DownlinkError: it is none.
    """
    if value is None:
        raise DownlinkError("DevEUI", "is missing")
    match = _DEV_EUI.fullmatch(_SEPARATORS.sub("", value)) if isinstance(value, str) else None
    if match is None:
        raise DownlinkError("DevEUI", f"{_shown(value)} is not 16 hex digits")
    return match[1].upper()


def _fields(document: Any) -> Any:
    """What stands inside the root, or the document itself where it is a downlink without one; None: no downlink."""
    if not isinstance(document, dict):
        return None
    if ROOT in document:
        return document[ROOT] if document[ROOT] is not None else {}
    plain = "DevEUI" in document and ("payload_hex" in document or "payload" in document)
    return document if plain and "FCntUp" not in document else None


def _say_whose(error: DownlinkError, fields: dict[str, Any]) -> None:
    """Keep what can be read of a wrong downlink."""
    dev_eui, f_port, correlation_id = fields.get("DevEUI"), fields.get("FPort"), fields.get("CorrelationID")
    try:
        error.dev_eui = normalised_dev_eui(dev_eui)
    except DownlinkError:
        error.dev_eui = dev_eui[:64] if isinstance(dev_eui, str) and dev_eui.isprintable() else ""
    try:
        error.f_port = _number(fields, "FPort", 0, 255) if f_port is not None else None
    except DownlinkError:
        error.f_port = None
    if isinstance(correlation_id, str) and _CORRELATION_ID.fullmatch(correlation_id):
        error.correlation_id = correlation_id


def _downlink(fields: dict[str, Any], default_port: int | None, now_s: float) -> Downlink:
    if fields.get("Token") not in (None, ""):
        raise DownlinkError("Token", "is of no use here: leave it out, tpxd signs each try itself, with the time of it")
    downlink = Downlink(
        dev_eui=normalised_dev_eui(fields.get("DevEUI")),
        f_port=_f_port(fields, default_port),
        payload_hex=_payload(fields),
        f_cnt_dn=_number(fields, "FCntDn", 0, MAX_COUNTER),
        af_cnt_dn=_number(fields, "AFCntDn", 0, MAX_COUNTER),
        confirmed=_flag(fields, "Confirmed"),
        flush_queue=_flag(fields, "FlushDownlinkQueue"),
        correlation_id=_correlation_id(fields),
        as_id=_as_id(fields),
        as_key=_as_key(fields),
        retry_ineligible_gateways=_flag(fields, "RetryIneligibleGateways"),
        ran=_cellular(fields, "RAN"),
        m_type=_cellular(fields, "MType"),
    )
    return _with_validity(downlink, fields.get("ValidityTime"), now_s)


def _f_port(fields: dict[str, Any], default: int | None) -> int:
    port = _number(fields, "FPort", 1, 224)
    if port is None:
        port = default
    if port is None:
        raise DownlinkError("FPort", "is missing, and the connection has no downlinkPort")
    return port


def _payload(fields: dict[str, Any]) -> str:
    text, decoded = fields.get("payload_hex"), fields.get("payload")
    if text is not None and decoded is not None:
        raise DownlinkError("payload", "and payload_hex exclude each other")
    if decoded is not None:
        raise DownlinkError("payload", "needs a driver with an encoder, and this device has none; send payload_hex")
    if text is None:
        raise DownlinkError("payload_hex", "is missing")
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise DownlinkError("payload_hex", f"{_shown(text)} is not an even number of hex digits")
    if len(text) // 2 > MAX_PAYLOAD_BYTES:
        raise DownlinkError("payload_hex", f"has {len(text) // 2} bytes; LoRaWAN takes at most {MAX_PAYLOAD_BYTES}")
    return text


def _number(fields: dict[str, Any], name: str, least: int, most: int) -> int | None:
    value = fields.get(name)
    if value is None or value == "":
        return None
    number = value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        number = int(value)
    elif isinstance(value, float) and value.is_integer():
        number = int(value)  # JSON knows one kind of number, and some programs write each with a point
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
        raise DownlinkError(name, f"{_shown(value)} is not a number from {least} to {most}")
    return number


def _flag(fields: dict[str, Any], name: str) -> bool | None:
    value = fields.get(name)
    if isinstance(value, str):
        value = value.lower()
    match value:
        case None | "":
            return None
        case True | 1 | "1" | "true":
            return True
        case False | 0 | "0" | "false":
            return False
    raise DownlinkError(name, f"{_shown(value)} is neither 0 nor 1")


def _correlation_id(fields: dict[str, Any]) -> str:
    value = fields.get("CorrelationID")
    if value is None or value == "":
        return secrets.token_hex(8).upper()
    if not isinstance(value, str) or not _CORRELATION_ID.fullmatch(value):
        raise DownlinkError("CorrelationID", f"{_shown(value)} is not a 64-bit number of up to 16 hex digits")
    return value


def _cellular(fields: dict[str, Any], name: str) -> str | None:
    """A field that is for the LRC alone to understand; numbers and texts are one to it."""
    value = fields.get(name)
    if value is None or value == "":
        return None
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _CELLULAR.fullmatch(text):
        raise DownlinkError(name, f"{_shown(value)} is not a word of up to 32 letters, digits, - and _")
    return text


def _as_id(fields: dict[str, Any]) -> str | None:
    value = fields.get("AS_ID")
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _AS_ID.fullmatch(value):
        raise DownlinkError("AS_ID", "is no identifier of up to 256 visible characters")
    return value


def _as_key(fields: dict[str, Any]) -> str | None:
    value = fields.get("AS_KEY")
    if value is None or value == "":
        return None
    # the value itself is a secret, also when it is a wrong one
    if not isinstance(value, str) or not re.fullmatch(r"[0-9A-Fa-f]{32}", value):
        raise DownlinkError("AS_KEY", "is not 32 hex digits")
    return value


def _with_validity(downlink: Downlink, value: Any, now_s: float) -> Downlink:
    if value is None or value == "":
        return downlink
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(math.ceil(value)) if abs(value) <= MAX_VALIDITY_S else ""
    if isinstance(value, str) and _SECONDS.fullmatch(value) and int(value) <= MAX_VALIDITY_S:
        return replace(downlink, valid_until_s=now_s + int(value), validity_in_seconds=True)
    moment = _moment(value)
    if moment is None:
        raise DownlinkError("ValidityTime", "is neither a date and time nor a number of seconds up to a year")
    return replace(downlink, valid_until_s=moment)


def _moment(value: Any) -> float | None:
    """Seconds since the epoch of a date and time in ISO 8601, UTC where it names no zone."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        moment = datetime.fromisoformat(value)
        at_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return at_s if 0 <= at_s < END_OF_TIME_S else None


def _shown(value: Any) -> str:
    """A wrong value for people: short, and of nested ones only that they are."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = ascii(value)
    return text if len(text) <= 40 else text[:37] + "..."
