"""What the LRC is asked over its tunnel interface, and what its answers mean. Pure.

Source: LRC tunnel interface (AS to LRC, downlink): request, Token, responses.
"""

from __future__ import annotations

import html
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from urllib.parse import quote

from tpxd.lorawan.downlinks import Downlink
from tpxd.lorawan.token import downlink_token

QUEUED = "Request queued by LRC"
MAX_CAUSE = 500

_TAG = re.compile(r"<[^<>]{0,200}>")
_BLANK = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Signing:
    """With what a request is signed; an empty key leaves it without a Token."""

    as_id: str = ""
    as_key: str = field(default="", repr=False)

    def of(self, downlink: Downlink) -> Signing:
        """The same, but for what the downlink brings of its own."""
        return Signing(downlink.as_id or self.as_id, downlink.as_key or self.as_key)


def downlink_query(downlink: Downlink, signing: Signing, now_s: float) -> str:
    """The query string of one try, percent-encoded: a fresh Time, and with a key the Token, which comes last.

    A validity in seconds is what is left of it, since the LRC counts from the moment at which it is told.
    """
    as_id, as_key = signing.as_id, signing.as_key
    pairs = [("DevEUI", downlink.dev_eui), ("FPort", str(downlink.f_port)), ("Payload", downlink.payload_hex)]
    pairs += [(name, str(count)) for name, count in _counters(downlink) if count is not None]
    pairs += [(name, "1" if flag else "0") for name, flag in _flags(downlink) if flag is not None]
    pairs += [(name, text) for name, text in (("RAN", downlink.ran), ("MType", downlink.m_type)) if text is not None]
    if downlink.valid_until_s is not None:
        pairs.append(("ValidityTime", _validity(downlink, downlink.valid_until_s, now_s)))
    if as_id:
        pairs.append(("AS_ID", as_id))
    if as_key:
        pairs.append(("Time", _iso(now_s)))
    pairs.append(("CorrelationID", downlink.correlation_id))
    if as_key:
        pairs.append(("Token", downlink_token(pairs, as_key)))
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)


def _counters(downlink: Downlink) -> list[tuple[str, int | None]]:
    return [("FCntDn", downlink.f_cnt_dn), ("AFCntDn", downlink.af_cnt_dn)]


def _flags(downlink: Downlink) -> list[tuple[str, bool | None]]:
    return [
        ("Confirmed", downlink.confirmed),
        ("FlushDownlinkQueue", downlink.flush_queue),
        ("RetryIneligibleGateways", downlink.retry_ineligible_gateways),
    ]


def _validity(downlink: Downlink, until_s: float, now_s: float) -> str:
    return str(max(1, math.ceil(until_s - now_s - 0.001))) if downlink.validity_in_seconds else _iso(until_s)


def _iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")


class Meaning(Enum):
    """What an answer means for the downlink."""

    QUEUED = "queued"
    REFUSED = "refused"
    UNAUTHORISED = "unauthorised"
    LATER = "later"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the LRC, or something in front of it, said.

    Attributes:
        meaning: QUEUED it is with the LRC; REFUSED for good; UNAUTHORISED what it was signed with is wrong, or not for
            this device; LATER it was not taken and may be tried again; UNKNOWN a proxy lost the answer, so that it may
            be with the LRC or not.
        documented: the answer is one that the LRC's interface describes.
        cause: its text without HTML, for people.
    """

    meaning: Meaning
    status: int
    cause: str
    documented: bool = True


def judge(status: int, body: bytes) -> Answer:
    """Read an answer."""
    text = _plain(body)
    cause = text or f"HTTP {status} without a text"
    if 200 <= status < 300:
        return Answer(Meaning.QUEUED, status, cause, documented=QUEUED in cause)
    if status in (401, 403):
        return Answer(Meaning.UNAUTHORISED, status, f"HTTP {status}: {text}" if text else cause)
    if status in (429, 503):
        return Answer(Meaning.LATER, status, f"HTTP {status}: {text}" if text else cause)
    if status in (502, 504):
        return Answer(Meaning.UNKNOWN, status, f"HTTP {status} from a proxy: {text or 'without a text'}")
    return Answer(Meaning.REFUSED, status, cause)


def _plain(body: bytes) -> str:
    """The text of an answer: `<html><body>Request queued by LRC</body></html>` without its wrapper."""
    text = html.unescape(_TAG.sub(" ", body[: 4 * MAX_CAUSE].decode("utf-8", "replace")))
    return "".join(c for c in _BLANK.sub(" ", text).strip() if c.isprintable())[:MAX_CAUSE]
