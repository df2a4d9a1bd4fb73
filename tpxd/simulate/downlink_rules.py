"""Which downlinks an LRC takes, and what it says to the others. Pure.

Source: LRC tunnel interface (AS to LRC, downlink): request, Token, responses; ThingPark X IoT Flow,
`DownlinkRejectionCause`. `ALREADY_USED`, `NOT_ENCRYPTED` and `BAD_AS_ID` are documented texts. The others are not
documented, and are made here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from tpxd.simulate.lrc import Signature
from tpxd.simulate.reports import Device
from tpxd.simulate.token import is_signed

PATH = "/thingpark/lrc/rest/downlink"
QUEUED = "Request queued by LRC"
MAX_PAYLOAD_BYTES = 242

ALREADY_USED = "Downlink counter value already used. Expected="
NOT_ENCRYPTED = "Payload must be provided encrypted with the downlink counter value"
BAD_AS_ID = "Security Check. bad AS_ID"

REFUSED, UNAUTHORISED, FORBIDDEN = 350, 401, 403
"""350 stands in `DeliveryStatus` of refused downlinks."""

_PARAMETERS = frozenset({
    "DevEUI", "FPort", "Payload", "FCntDn", "AFCntDn", "Confirmed", "FlushDownlinkQueue", "ValidityTime",
    "RetryIneligibleGateways", "RAN", "MType", "AS_ID", "Time", "CorrelationID", "Token",
})  # fmt: skip
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_CORRELATION_ID = re.compile(r"[0-9A-Fa-f]{1,16}")
_NUMBER = re.compile(r"[0-9]{1,10}")


class Refusal(Exception):
    """The LRC does not take it; the text is what it says."""

    def __init__(self, cause: str, status: int = REFUSED) -> None:
        super().__init__(cause)
        self.cause = cause
        self.status = status


@dataclass(frozen=True, slots=True)
class Downlink:
    """One downlink that fulfils the rules.

    Attributes:
        valid_until_s: seconds since the epoch; None for ever.
    """

    device: Device
    f_port: int
    payload_hex: str
    f_cnt_dn: int | None
    confirmed: bool
    flush: bool
    valid_until_s: float | None
    correlation_id: str | None


@dataclass(frozen=True, slots=True)
class Rules:
    """What an LRC holds downlinks against.

    Attributes:
        devices: those that it knows, by DevEUI.
        signature: of the AS that may send; None asks for no Token.
        max_deviation_s: how far the Time of a signed downlink may be off.
    """

    devices: Mapping[str, Device]
    signature: Signature | None = None
    max_deviation_s: float = 60.0

    def read(self, query: str, now_s: float) -> Downlink:
        """The downlink of a query string, percent-encoded as it came.

        Raises:
            Refusal: it breaks a rule.
        """
        pairs = parse_qsl(query, keep_blank_values=True)
        named = dict(pairs)
        unknown = sorted(named.keys() - _PARAMETERS)
        if unknown or len(named) < len(pairs):
            raise Refusal(f"Unknown parameter {unknown[0][:40]}" if unknown else "A parameter occurs twice")
        if self.signature is not None:
            self._check_security(named, query, self.signature, now_s)
        device = self.devices.get(_needed(named, "DevEUI").upper())
        if device is None:
            raise Refusal("Unknown DevEUI")
        downlink = Downlink(
            device,
            _number(named, "FPort", 1, 224),
            _payload(named),
            _counter(named),
            _flag(named, "Confirmed"),
            _flag(named, "FlushDownlinkQueue"),
            _validity(named, now_s),
            _correlation_id(named),
        )
        if downlink.confirmed and not device.model.acked_downlinks:
            raise Refusal("Confirmed downlinks are not allowed by the connectivity plan")
        if downlink.f_cnt_dn is not None and downlink.f_cnt_dn < device.f_cnt_dn:
            raise Refusal(f"{ALREADY_USED}{device.f_cnt_dn}")
        return downlink

    def _check_security(self, named: Mapping[str, str], query: str, signature: Signature, now_s: float) -> None:
        if named.get("AS_ID") != signature.as_id:
            raise Refusal(BAD_AS_ID, FORBIDDEN)
        if not is_signed(query, signature.key):
            raise Refusal("Security Check. bad Token", UNAUTHORISED)
        sent_s = _moment(_needed(named, "Time"))
        if sent_s is None or abs(sent_s - now_s) > self.max_deviation_s:
            raise Refusal("Security Check. bad Time", UNAUTHORISED)


def kind_of(cause: str) -> str:
    """A cause without the number in it, so that it can be counted."""
    return cause.partition(" Expected=")[0]


def _needed(named: Mapping[str, str], name: str) -> str:
    if not named.get(name):
        raise Refusal(f"{name} is missing")
    return named[name]


def _number(named: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = _needed(named, name)
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise Refusal(f"{name} is not allowed")
    return int(text)


def _payload(named: Mapping[str, str]) -> str:
    text = _needed(named, "Payload")
    if not _HEX.fullmatch(text):
        raise Refusal("Payload is not hexadecimal")
    if len(text) // 2 > MAX_PAYLOAD_BYTES:
        raise Refusal("Payload is too long")
    return text


def _counter(named: Mapping[str, str]) -> int | None:
    given = [name for name in ("FCntDn", "AFCntDn") if name in named]
    return _number(named, given[0], 0, 2**32 - 1) if given else None


def _flag(named: Mapping[str, str], name: str) -> bool:
    if named.get(name, "0") not in ("0", "1"):
        raise Refusal(f"{name} is not allowed")
    return named.get(name) == "1"


def _validity(named: Mapping[str, str], now_s: float) -> float | None:
    text = named.get("ValidityTime")
    if text is None:
        return None
    until_s = now_s + int(text) if _NUMBER.fullmatch(text) else _moment(text)
    if until_s is None:
        raise Refusal("ValidityTime is not allowed")
    return until_s


def _correlation_id(named: Mapping[str, str]) -> str | None:
    text = named.get("CorrelationID")
    if text is not None and not _CORRELATION_ID.fullmatch(text):
        raise Refusal("CorrelationID is not a 64-bit number")
    return text


def _moment(text: str) -> float | None:
    """Seconds since the epoch of an ISO 8601 date and time, UTC where it names no zone; None where it is none."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
