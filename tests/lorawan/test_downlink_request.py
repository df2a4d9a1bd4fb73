"""The request with its Token, against the published vectors, and what answers mean."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import parse_qsl

import pytest

from tpxd.lorawan.downlink_request import Meaning, Signing, downlink_query, judge
from tpxd.lorawan.downlinks import Downlink

KEY = "7d1e9a40c3b85f2206e4d7913ab6f85c"
AS_ID = "TWA_100009421.77.AS"
AT_S = datetime.fromisoformat("2025-03-04T08:20:00.000+00:00").timestamp()
DOWNLINK = Downlink("70B3D5E75E00A1C4", 5, "02ff", confirmed=True, flush_queue=True, correlation_id="0000A1B2C3D4E5F6")


def test_the_token_of_the_published_vector() -> None:
    query = downlink_query(DOWNLINK, Signing(AS_ID, KEY), AT_S)
    assert query == (
        "DevEUI=70B3D5E75E00A1C4&FPort=5&Payload=02ff&Confirmed=1&FlushDownlinkQueue=1&AS_ID=TWA_100009421.77.AS"
        "&Time=2025-03-04T08%3A20%3A00.000%2B00%3A00&CorrelationID=0000A1B2C3D4E5F6"
        "&Token=1601ee7ab0d29dcb494c37855f04524c5ccf31e75c50c649d33b046a21bab747"
    )


def test_every_parameter_has_its_place() -> None:
    downlink = Downlink(
        "70B3D5E75E00A1C4",
        1,
        "",
        f_cnt_dn=7,
        af_cnt_dn=8,
        confirmed=False,
        valid_until_s=AT_S + 60,
        correlation_id="1",
        retry_ineligible_gateways=False,
    )
    pairs = parse_qsl(downlink_query(downlink, Signing(AS_ID, KEY), AT_S), keep_blank_values=True)
    assert pairs[:-1] == [
        ("DevEUI", "70B3D5E75E00A1C4"),
        ("FPort", "1"),
        ("Payload", ""),
        ("FCntDn", "7"),
        ("AFCntDn", "8"),
        ("Confirmed", "0"),
        ("RetryIneligibleGateways", "0"),
        ("ValidityTime", "2025-03-04T08:21:00.000+00:00"),
        ("AS_ID", AS_ID),
        ("Time", "2025-03-04T08:20:00.000+00:00"),
        ("CorrelationID", "1"),
    ]
    assert pairs[-1][0] == "Token"


def test_what_the_downlink_brings_goes_before_the_settings() -> None:
    own = Downlink("70B3D5E75E00A1C4", 5, "02ff", correlation_id="1", as_id="OWN", as_key=KEY)
    assert Signing("OTHER", "0" * 32).of(own) == Signing("OWN", KEY)
    assert Signing("OTHER", "0" * 32).of(DOWNLINK) == Signing("OTHER", "0" * 32)


def test_what_cellular_networks_ask_for_is_signed_too() -> None:
    downlink = Downlink("70B3D5E75E00A1C4", 5, "02ff", correlation_id="1", ran="CELLULAR", m_type="3")
    pairs = parse_qsl(downlink_query(downlink, Signing(AS_ID, KEY), AT_S))
    assert pairs[3:5] == [("RAN", "CELLULAR"), ("MType", "3")]
    assert pairs[-1][0] == "Token"


def test_without_a_key_nothing_is_signed() -> None:
    names = [name for name, _ in parse_qsl(downlink_query(DOWNLINK, Signing(), AT_S))]
    assert not {"AS_ID", "Time", "Token"} & set(names)


@pytest.mark.parametrize(("left_s", "said"), [(600.0, "600"), (599.2, "600"), (0.3, "1"), (-4.0, "1")])
def test_seconds_are_what_is_left_of_them(left_s: float, said: str) -> None:
    downlink = Downlink(
        "70B3D5E75E00A1C4", 5, "02ff", correlation_id="1", valid_until_s=AT_S + left_s, validity_in_seconds=True
    )
    assert dict(parse_qsl(downlink_query(downlink, Signing(), AT_S)))["ValidityTime"] == said


def test_keys_do_not_show() -> None:
    assert KEY not in repr(Signing(AS_ID, KEY))


@pytest.mark.parametrize(
    ("status", "body", "meaning", "cause", "documented"),
    [
        (200, b"<html><body>Request queued by LRC</body></html>", Meaning.QUEUED, "Request queued by LRC", True),
        (204, b"", Meaning.QUEUED, "HTTP 204 without a text", False),
        (200, b"<html>ok</html>", Meaning.QUEUED, "ok", False),
        (
            350,
            b"<html><body>Downlink counter value already used. Expected=319</body></html>",
            Meaning.REFUSED,
            "Downlink counter value already used. Expected=319",
            True,
        ),
        (403, b"Security Check. bad AS_ID", Meaning.UNAUTHORISED, "HTTP 403: Security Check. bad AS_ID", True),
        (401, b"", Meaning.UNAUTHORISED, "HTTP 401 without a text", True),
        (404, b"<p>a &lt;b&gt;\n\x00c</p>", Meaning.REFUSED, "a <b> c", True),
        (503, b"", Meaning.LATER, "HTTP 503 without a text", True),
        (429, b"slowly", Meaning.LATER, "HTTP 429: slowly", True),
        (504, b"", Meaning.UNKNOWN, "HTTP 504 from a proxy: without a text", True),
        (502, b"bad gateway", Meaning.UNKNOWN, "HTTP 502 from a proxy: bad gateway", True),
    ],
)
def test_answers(status: int, body: bytes, meaning: Meaning, cause: str, documented: bool) -> None:
    answer = judge(status, body)
    assert (answer.meaning, answer.cause, answer.documented) == (meaning, cause, documented)


def test_a_cause_is_short() -> None:
    assert len(judge(350, b"x" * 1_000_000).cause) == 500
