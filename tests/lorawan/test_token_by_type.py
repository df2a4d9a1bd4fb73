"""Which report types need a Token: those with a documented rule, and what becomes of all others."""

from __future__ import annotations

from hashlib import sha256
from typing import Any
from urllib.parse import quote

import pytest

from tests.lorawan.samples import (
    BASE_STATION_ALARM,
    DEVICE_ALARM,
    DOWNLINK_REJECTED,
    DOWNLINK_SENT,
    JOIN_REQUEST,
    LOCATION,
    MULTICAST_SUMMARY,
    NOTIFICATION,
    UPLINK,
)
from tests.lorawan.signing import AS, CHECK, KEY_E, NOW_S, PAIRS, TIME, refused, report_of, signed, verify
from tpxd.lorawan.token import TokenCheck

UNDOCUMENTED = [
    ("DevEUI_uplink", JOIN_REQUEST, ["", "0"]),
    ("DevEUI_downlink_Rejected", DOWNLINK_REJECTED, ["", "5"]),
    ("DevEUI_multicast_summary", MULTICAST_SUMMARY, ["", "3", "17", "317"]),
    ("DevEUI_alarm", DEVICE_ALARM, ["", "0"]),
    ("BS_alarm", BASE_STATION_ALARM, ["", "0"]),
    ("DevEUI_of_tomorrow", {"DevEUI": "70B3D5E75E00A1C4", "FCntUp": 9}, ["", "0", "9", "09"]),
]


@pytest.mark.parametrize(("kind", "fields", "endings"), UNDOCUMENTED)
def test_types_without_a_documented_rule_may_fit_a_plausible_one(
    kind: str, fields: dict[str, Any], endings: list[str]
) -> None:
    report = report_of(kind, fields)
    pairs = [("LrnDevEui", fields.get("DevEUI", "")), *PAIRS[1:]]
    name = fields.get("DevEUI", fields.get("LrrID", ""))
    for ending in endings:
        for spelling in (name, name.lower()):
            verify(CHECK, signed(fields.get("CustomerID", "") + spelling + ending, pairs), report, NOW_S)
    for elements in ("", "100009421", f"{fields.get('CustomerID', '')}{name}8"):
        error = refused(signed(elements, pairs), report)
        assert error.reason == "undocumented"
        assert kind in error.message
        assert 'unsigned_reports = "accept"' in (error.hint or "")
    assert refused("LrnFPort=1", report).reason == "missing"


@pytest.mark.parametrize(("kind", "fields", "endings"), UNDOCUMENTED)
def test_types_without_a_documented_rule_may_be_let_in(kind: str, fields: dict[str, Any], endings: list[str]) -> None:
    check = TokenCheck({AS: KEY_E}, 60.0, accept_unsigned=True)
    report = report_of(kind, fields)
    for query in ("", "LrnFPort=0", f"AS_ID={AS}", f"AS_ID={AS}&Time={quote(TIME)}&Token=0"):
        verify(check, query, report, NOW_S)
    assert refused("AS_ID=stranger", report, check).reason == "as_id"
    assert refused(f"Time={quote(TIME)}", report, check, NOW_S + 61).reason == "time"
    assert refused("Time=x", report, check).reason == "time"
    assert refused("Token=1&Token=1", report, check).reason == "token"


DOCUMENTED = [
    ("DevEUI_uplink", UPLINK),
    ("DevEUI_downlink_Sent", DOWNLINK_SENT),
    ("DevEUI_location", LOCATION),
    ("DevEUI_notification", NOTIFICATION),
]


@pytest.mark.parametrize(("kind", "fields"), DOCUMENTED)
def test_types_with_a_documented_rule_are_never_let_in_unsigned(kind: str, fields: dict[str, Any]) -> None:
    check = TokenCheck({AS: KEY_E}, 60.0, accept_unsigned=True)
    assert refused("LrnFPort=0", report_of(kind, fields), check).reason == "missing"
    wrong = signed("x", [("LrnFPort", "0"), *PAIRS[3:]])
    assert refused(wrong, report_of(kind, fields), check).reason == "token"


def test_data_does_not_pass_as_a_join_request() -> None:
    check = TokenCheck({AS: KEY_E}, 60.0, accept_unsigned=True)
    bare = {"DevEUI": "70B3D5E75E00A1C4", "CustomerID": "100009421"}
    for fields in (
        bare,
        {**bare, "payload_hex": "00"},
        {**bare, "payload_hex": "00", "rawJoinRequest": "00"},
        {**bare, "FCntUp": 1, "rawJoinRequest": "00"},
    ):
        assert refused("", report_of(fields=fields), check).reason == "missing"


def test_the_token_of_a_downlink_signs_no_report() -> None:
    text = f"DevEUI=70B3D5E75E00A1C4&FPort=5&Payload=0000000000000000&AS_ID={AS}&Time={TIME}"
    token = sha256((text + KEY_E).encode()).hexdigest()
    stolen = {"CustomerID": "DevEUI=70B3D5E75E00A1C4&FPort=5&Payload=", "DevEUI": "0000000000000000"}
    query = f"&AS_ID={AS}&Time={quote(TIME)}&Token={token}"
    for kind in ("DevEUI_notification", "DevEUI_alarm"):
        assert refused(query, report_of(kind, stolen)).reason in {"token", "undocumented"}
