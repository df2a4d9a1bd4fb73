"""Signs reports as an LRC does, with none of the code that is tested, and expects refusals."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import pytest

from tests.lorawan.samples import (
    UPLINK,
    as_json,
)
from tpxd.errors import TokenError
from tpxd.lorawan.reports import Report, parse_report
from tpxd.lorawan.token import TokenCheck

KEY_C = "46ab678cd45df4a4e4b375Eacd096acc"
KEY_E = "7d1e9a40c3b85f2206e4d7913ab6f85c"
AS = "TWA_100009421.77.AS"
Pairs = list[tuple[str, str]]


def pairs_of(dev_eui: str, port: int, infos: str, as_id: str, time: str) -> Pairs:
    return [("LrnDevEui", dev_eui), ("LrnFPort", str(port)), ("LrnInfos", infos), ("AS_ID", as_id), ("Time", time)]


TIME = "2025-03-04T09:15:22.481+01:00"
NOW_S = datetime.fromisoformat(TIME).timestamp()
PAIRS = pairs_of("70B3D5E75E00A1C4", 5, f"{AS}-1-1", AS, TIME)
CHECK = TokenCheck({AS: KEY_E}, 60.0)


def verify(check: TokenCheck, query: str, report: Report, now_s: float) -> str | None:
    """Check query and report, as intake does one after the other."""
    return check.check_report(check.check_query(query, now_s), report)


def report_of(kind: str = "DevEUI_uplink", fields: dict[str, Any] = UPLINK) -> Report:
    return parse_report(as_json(kind, fields))


def signed(elements: str, pairs: Pairs = PAIRS, key: str = KEY_E) -> str:
    """The query of a POST whose Token covers this, made without any of the code that is tested."""
    plain = "&".join(f"{name}={value}" for name, value in pairs)
    token = sha256((elements + plain + key).encode()).hexdigest()
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in [*pairs, ("Token", token)])


ELEMENTS = "10000942170B3D5E75E00A1C454211016700f1026855"


def refused(query: str, report: Report | None = None, check: TokenCheck = CHECK, now_s: float = NOW_S) -> TokenError:
    with pytest.raises(TokenError) as caught:
        verify(check, query, report or report_of(), now_s)
    error = caught.value
    assert error.message.isprintable()
    for text in (error.message, error.hint or ""):
        assert KEY_E not in text
        assert not any(word in text for word in ("e4f3", "sha256"))
    return error
