"""What a signed query must hold, how it is read, and how each refusal is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lorawan.samples import (
    DEVICE_ALARM,
    UPLINK,
)
from tests.lorawan.signing import AS, CHECK, ELEMENTS, KEY_C, KEY_E, NOW_S, PAIRS, refused, report_of, signed, verify
from tpxd.errors import TokenError
from tpxd.lorawan.token import TokenCheck, uplink_token


def test_numbers_may_be_text() -> None:
    verify(CHECK, signed(ELEMENTS), report_of(fields={**UPLINK, "FPort": "05", "FCntUp": "4211"}), NOW_S)


def test_what_is_missing_counts_as_documented() -> None:
    fields = {"DevEUI": "70B3D5E75E00A1C4", "FCntUp": 7}
    verify(CHECK, signed("70B3D5E75E00A1C407"), report_of(fields=fields), NOW_S)
    verify(CHECK, signed("70B3D5E75E00A1C40"), report_of("DevEUI_downlink_Sent", fields), NOW_S)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [3, 0, 4, 1, 2]])
def test_the_order_is_that_of_the_query(order: list[int]) -> None:
    verify(CHECK, signed(ELEMENTS, [PAIRS[i] for i in order]), report_of(), NOW_S)


def test_a_plus_that_a_hop_decoded_is_turned_back() -> None:
    query = signed(ELEMENTS)
    assert "%2B01" in query
    for plus in ("+", "%20", "%2b"):
        verify(CHECK, query.replace("%2B", plus), report_of(), NOW_S)


def test_other_values_are_decoded_as_forms_are() -> None:
    pairs = [(name, "caf\u00e9 +1%" if name == "LrnInfos" else value) for name, value in PAIRS]
    query = signed(ELEMENTS, pairs)
    assert "caf%C3%A9%20%2B1%25" in query
    verify(CHECK, query, report_of(), NOW_S)
    verify(CHECK, query.replace("%20", "+"), report_of(), NOW_S)


@pytest.mark.parametrize(
    "entered", [KEY_C, KEY_C.upper(), "46ab678c-d45d-f4a4-e4b3-75Eacd096acc", "46AB678C-d45d-f4a4-e4b3-75Eacd096acc"]
)
def test_a_key_is_tried_as_entered_then_in_lower_case_and_without_dashes(entered: str) -> None:
    check = TokenCheck({AS: entered}, 60.0)
    for used in (entered, entered.lower(), entered.replace("-", "").lower()):
        verify(check, signed(ELEMENTS, key=used), report_of(), NOW_S)
    assert refused(signed(ELEMENTS, key=KEY_E), check=check).reason == "token"


def test_keys_do_not_show() -> None:
    assert KEY_E not in repr(CHECK)


def test_without_keys_everything_passes() -> None:
    verify(TokenCheck({}, 60.0), "&&Token&Token", report_of(), 0.0)


@pytest.mark.parametrize(("index", "name"), [(3, "AS_ID"), (4, "Time"), (5, "Token")])
def test_what_is_missing_is_named(index: int, name: str) -> None:
    parts = signed(ELEMENTS).split("&")
    error = refused("&".join(parts[:index] + parts[index + 1 :]))
    assert error.reason == "missing"
    assert f"has no {name}" in error.message
    assert error.as_id == (None if name == "AS_ID" else AS)


def test_an_unsigned_report_misses_everything() -> None:
    for query in ("", "LrnDevEui=70B3D5E75E00A1C4&LrnFPort=5&LrnInfos=x"):
        error = refused(query)
        assert (error.reason, error.as_id) == ("missing", None)
        assert error.message == "the query of an unnamed AS has no AS_ID and no Time and no Token"


def test_an_unknown_as_id_is_named_in_short() -> None:
    error = refused(signed(ELEMENTS).replace("AS_ID=TWA", "AS_ID=X%0A" + "y" * 500))
    assert (error.reason, len(error.as_id or "")) == ("as_id", 64)
    assert error.message.startswith("AS_ID 'X\\nyyyy")
    assert len(error.message) < 100


@pytest.mark.parametrize("name", ["Token", "AS_ID", "Time", "LrnDevEui", "LrnInfos"])
def test_a_parameter_twice_is_refused(name: str) -> None:
    query = signed(ELEMENTS)
    part = next(part for part in query.split("&") if part.startswith(name))
    for doubled in (f"{part}&{query}", f"{query}&{part}", f"{name}=x&{query}", f"{query}&{name}"):
        error = refused(doubled)
        assert (error.reason, error.message) == ("token", "the query names a parameter twice")


def test_nothing_follows_the_token() -> None:
    error = refused(signed(ELEMENTS) + "&x=1")
    assert error.reason == "token"
    assert "goes on after its Token" in error.message


@pytest.mark.parametrize(
    "changed",
    [
        {"payload_hex": "016700f1026856"},
        {"payload_hex": "016700F1026855"},
        {"FPort": 6},
        {"FCntUp": 4212},
        {"CustomerID": "100009422"},
    ],
)
def test_each_covered_field_is_covered(changed: Mapping[str, Any]) -> None:
    assert refused(signed(ELEMENTS), report_of(fields={**UPLINK, **changed})).reason == "token"


@pytest.mark.parametrize("token", ["", "0" * 64, "\u00e9" * 64, "%C3%A9", "%ED%A0%80"])
def test_a_wrong_token_is_refused(token: str) -> None:
    error = refused(signed(ELEMENTS).rpartition("Token=")[0] + "Token=" + token)
    assert error.reason == "token"
    assert error.message == f"the Token of AS_ID '{AS}' does not fit this DevEUI_uplink"


def test_the_queried_dev_eui_is_the_bodys() -> None:
    lower = [("LrnDevEui", "70b3d5e75e00a1c4"), *PAIRS[1:]]
    verify(CHECK, signed(ELEMENTS, lower), report_of(), NOW_S)
    verify(CHECK, signed(ELEMENTS, PAIRS[1:]), report_of(), NOW_S)
    error = refused(signed(ELEMENTS, [("LrnDevEui", "70B3D5E75E00A1C5"), *PAIRS[1:]]))
    assert error.reason == "token"
    assert "LrnDevEui '70B3D5E75E00A1C5'" in error.message
    assert "DevEUI '70B3D5E75E00A1C4'" in error.message


def test_the_queried_port_is_the_bodys() -> None:
    """Without that, one Token would fit port 5 with counter 12 and port 51 with counter 2."""
    pairs = [("LrnFPort", "5") if name == "LrnFPort" else (name, value) for name, value in PAIRS]
    query = signed(f"{UPLINK['CustomerID']}{UPLINK['DevEUI']}512", pairs)
    genuine = {**UPLINK, "FPort": 5, "FCntUp": 12, "payload_hex": ""}
    verify(CHECK, query, report_of(fields=genuine), NOW_S)
    verify(CHECK, query, report_of(fields={**genuine, "FPort": "05"}), NOW_S)
    error = refused(query, report_of(fields={**genuine, "FPort": 51, "FCntUp": 2}))
    assert error.reason == "token"
    assert error.message == f"LrnFPort '5' of AS_ID '{AS}' is not the body's FPort '51'"
    without = [pair for pair in pairs if pair[0] != "LrnFPort"]
    verify(CHECK, signed(f"{UPLINK['CustomerID']}{UPLINK['DevEUI']}512", without), report_of(fields=genuine), NOW_S)


def test_an_uplink_without_a_port_has_no_port_to_compare() -> None:
    fields = {"CustomerID": "1", "DevEUI": UPLINK["DevEUI"], "FCntUp": 7}
    for port in ("0", "1"):
        pairs = [("LrnFPort", port) if name == "LrnFPort" else (name, value) for name, value in PAIRS]
        verify(CHECK, signed(f"1{UPLINK['DevEUI']}07", pairs), report_of(fields=fields), NOW_S)


def test_what_the_query_alone_says_is_refused_without_the_body() -> None:
    for query, reason in (("", "missing"), ("AS_ID=x&Time=x&Token=x", "as_id"), (f"AS_ID={AS}&Time=x&Token=x", "time")):
        with pytest.raises(TokenError) as caught:
            CHECK.check_query(query, NOW_S)
        assert caught.value.reason == reason


def test_only_what_a_documented_rule_verified_gives_its_token() -> None:
    query = signed(ELEMENTS)
    assert verify(CHECK, query, report_of(), NOW_S) == query.rpartition("Token=")[2]
    alarm = report_of("DevEUI_alarm", DEVICE_ALARM)
    elements = f"{DEVICE_ALARM.get('CustomerID', '')}{DEVICE_ALARM['DevEUI']}"
    assert verify(CHECK, signed(elements), alarm, NOW_S) is None
    assert verify(TokenCheck({}, 60.0), query, report_of(), NOW_S) is None


@pytest.mark.parametrize(("now_s", "side"), [(NOW_S + 60.1, "behind"), (NOW_S - 60.1, "ahead of")])
def test_the_clocks_must_agree(now_s: float, side: str) -> None:
    error = refused(signed(ELEMENTS), now_s=now_s)
    assert (error.reason, error.as_id) == ("time", AS)
    assert error.message == f"Time of AS_ID '{AS}' is 60.1 s {side} this server's clock; 60 s are allowed"


@pytest.mark.parametrize("now_s", [NOW_S + 60, NOW_S - 60])
def test_a_small_difference_is_allowed(now_s: float) -> None:
    verify(CHECK, signed(ELEMENTS), report_of(), now_s)


@pytest.mark.parametrize("time", ["2025-03-04T08:15:22.481", "2025-03-04T08:15:22.481Z", "2025-03-04T08:15:22.48"])
def test_a_time_without_zone_is_utc(time: str) -> None:
    verify(CHECK, signed(ELEMENTS, [*PAIRS[:4], ("Time", time)]), report_of(), NOW_S)


@pytest.mark.parametrize("time", ["", "now", "2025-13-01T00:00:00Z", "1741076122", "9" * 500])
def test_what_is_no_time_is_refused(time: str) -> None:
    error = refused(signed(ELEMENTS, [*PAIRS[:4], ("Time", time)]))
    assert error.reason == "time"
    assert "is no date and time" in error.message


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_the_ends_of_the_calendar_are_only_far_away(time: str) -> None:
    error = refused(signed(ELEMENTS, [*PAIRS[:4], ("Time", time)]))
    assert error.reason == "time"
    assert "60 s are allowed" in error.message


VALUES = st.text(alphabet="aZ0%+ &=:é\ud7ff\u2603/", max_size=12)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(alphabet="abcXYZ_ %+=&é", min_size=1, max_size=5), VALUES), max_size=5))
def test_any_query_that_was_encoded_is_decoded_to_the_same(extra: list[tuple[str, str]]) -> None:
    pairs = [*dict(extra).items(), *PAIRS]
    token = uplink_token("DevEUI_uplink", UPLINK, pairs, KEY_E)
    verify(CHECK, urlencode([*pairs, ("Token", token)]), report_of(), NOW_S)
    verify(CHECK, urlencode([*pairs, ("Token", token)], quote_via=quote), report_of(), NOW_S)


@settings(deadline=None)
@given(st.text(alphabet="%3A2Bb+a=zé", max_size=20))
def test_even_broken_escapes_are_decoded_as_everyone_does(value: str) -> None:
    decoded = dict(parse_qsl(f"x={value}", keep_blank_values=True, separator="&"))["x"]
    pairs = [("x", decoded), *PAIRS]
    token = uplink_token("DevEUI_uplink", UPLINK, pairs, KEY_E)
    verify(CHECK, f"x={value}&{urlencode(PAIRS)}&Token={token}", report_of(), NOW_S)


@settings(deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="AS_IDTimeokn=&%20:+-", max_size=60))
def test_no_query_does_anything_but_pass_or_be_refused(query: str) -> None:
    assert refused(query).reason in {"missing", "as_id", "token"}
    check = TokenCheck({AS: KEY_E}, 60.0, accept_unsigned=True)
    try:
        verify(check, query + "&Time=" + query, report_of("DevEUI_alarm", DEVICE_ALARM), NOW_S)
    except TokenError as refusal:
        reason = refusal.reason
    else:
        reason = "passed"
    assert reason in {"as_id", "token", "time"}
