from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    as_json,
    as_xml,
)
from tpxd.errors import TokenError
from tpxd.lorawan.reports import Report, parse_report
from tpxd.lorawan.token import TokenCheck, downlink_token, uplink_token

KEY_C = "46ab678cd45df4a4e4b375Eacd096acc"
KEY_D = "c6f5e3b263092120b8766b9aed9c41b4"
KEY_E = "7d1e9a40c3b85f2206e4d7913ab6f85c"
AS = "TWA_100009421.77.AS"

Pairs = list[tuple[str, str]]


def _pairs(dev_eui: str, port: int, infos: str, as_id: str, time: str) -> Pairs:
    return [("LrnDevEui", dev_eui), ("LrnFPort", str(port)), ("LrnInfos", infos), ("AS_ID", as_id), ("Time", time)]


def _uplink(customer: str, dev_eui: str, port: int, counter: int, payload: str) -> dict[str, Any]:
    return {"CustomerID": customer, "DevEUI": dev_eui, "FPort": port, "FCntUp": counter, "payload_hex": payload}


VECTORS = [
    pytest.param(
        "DevEUI_uplink",
        _uplink(
            "100002167",
            "20635F0108000496",
            17,
            18,
            "032ce4850919d85d4c9f793ad148d24f32f3c6b5488f5a087cbeb1488f5a998c83ab",
        ),
        _pairs(
            "20635F0108000496",
            17,
            "TWA_100002167.1111.AS-1-111974",
            "TWA_100002167.1111.AS",
            "2021-04-07T08:49:51.551+00:00",
        ),
        "f3203a20a2e8dfaf6686b621f56d05e3",
        "196c22898bf95fcf48b72be198c89256410660b9b514539651344baa594ad74f",
        id="a",
    ),
    pytest.param(
        "DevEUI_uplink",
        _uplink("100000507", "000000000F1D8693", 2, 7011, "0027bd00"),
        _pairs("000000000F1D8693", 2, "UPHTTP_LAB_LORA", "app1.sample.com", "2016-01-11T14:11:11.333+02:00"),
        KEY_C,
        "fd0b0b00464aa798a59282d64eaa70813e33bff87682880db49638569d096aad",
        id="c",
    ),
    pytest.param(
        "DevEUI_uplink",
        _uplink("100000001", "0059AC0000000001", 1, 1, "000102030405"),
        _pairs(
            "0059AC0000000001",
            1,
            "TWA_100000001.999.AS-1-12345678",
            "TWA_100000001.999",
            "2018-01-12T10:00:00.000+01:00",
        ),
        KEY_D,
        "5b7ec8b0b2c250fc792c76348de3b16ff04e27050baf8a37c891dcc85e88b0d4",
        id="d1",
    ),
    pytest.param(
        "DevEUI_location",
        {"CustomerID": "100000001", "DevEUI": "0059AC0000000001"},
        _pairs(
            "0059ac0000000001",
            0,
            "TWA_100000001.999.AS-1-12345678",
            "TWA_100000001.999",
            "2018-01-12T10:00:00.000+01:00",
        ),
        KEY_D,
        "d23b3507663d817c77d124cfbe4f1d5a67ba957e91471b39512b8f103fe46a17",
        id="d3",
    ),
    pytest.param(
        "DevEUI_uplink",
        _uplink("100006356", "0059AC0000180000", 1, 17, "2030"),
        _pairs("0059AC0000180000", 1, "TWA_100006356.246.AS-1-8402463", "KPN.developer", "2018-02-09T12:21:44.928Z"),
        "c6f5e3b2-6309-2120-b876-6b9aed9c41b4",
        "127804619c039326a75c68327751917e9abc1bfed2d036aa58aca37038583e99",
        id="d4",
    ),
    pytest.param(
        "DevEUI_uplink",
        UPLINK,
        _pairs("70B3D5E75E00A1C4", 5, f"{AS}-1-884120", AS, "2025-03-04T09:15:22.481+01:00"),
        KEY_E,
        "e4f32380a9c2b5cf19e6011b018f7f0b08ba825b7478970b3459cd15fc006a8b",
        id="e",
    ),
    pytest.param(
        "DevEUI_downlink_Sent",
        DOWNLINK_SENT,
        _pairs("70B3D5E75E00A1C4", 5, f"{AS}-1-884121", AS, "2025-03-04T09:15:25.007+01:00"),
        KEY_E,
        "bbad642bd60ec27211063584182e935fb3859cf5c83dac66be07b54de59e8aa0",
        id="f",
    ),
    pytest.param(
        "DevEUI_location",
        LOCATION,
        _pairs("70b3d5e75e00a1c4", 0, f"{AS}-1-884122", AS, "2025-03-04T09:15:31.900+01:00"),
        KEY_E,
        "fe5cc3e51da678107c612a6308ae1c08bacc691566d0137b48b063a3d1e10fe1",
        id="g",
    ),
    pytest.param(
        "DevEUI_notification",
        NOTIFICATION,
        _pairs("70B3D5E75E00A1C4", 0, f"{AS}-1-884123", AS, "2025-03-04T09:16:00.000+01:00"),
        KEY_E,
        "9dfe451e9c587deb5d50a801c2013029d4ad1b51947e3f5f543c34e4383e8616",
        id="h",
    ),
]


@pytest.mark.parametrize(("kind", "fields", "pairs", "key", "token"), VECTORS)
def test_the_vectors_of_the_tunnel_interface(
    kind: str, fields: dict[str, Any], pairs: Pairs, key: str, token: str
) -> None:
    assert uplink_token(kind, fields, pairs, key) == token
    as_id, time = pairs[3][1], pairs[4][1]
    check = TokenCheck({"other": KEY_C, as_id: key}, 0.0)
    query = urlencode([*pairs, ("Token", token)])
    now_s = datetime.fromisoformat(time).timestamp()
    for body in (as_json(kind, fields), as_xml(kind, fields)):
        check.verify(query, parse_report(body), now_s)
    with pytest.raises(TokenError, match=f"Token of AS_ID '{as_id}' does not fit this {kind}"):
        check.verify(query.replace("LrnInfos=", "LrnInfos=x"), parse_report(as_json(kind, fields)), now_s)


def test_the_request_as_it_is_written_in_the_documentation() -> None:
    query = (
        "LrnDevEui=70B3D5E75E00A1C4&LrnFPort=5&LrnInfos=TWA_100009421.77.AS-1-884120&AS_ID=TWA_100009421.77.AS"
        "&Time=2025-03-04T09%3A15%3A22.481%2B01%3A00"
        "&Token=e4f32380a9c2b5cf19e6011b018f7f0b08ba825b7478970b3459cd15fc006a8b"
    )
    TokenCheck({AS: KEY_E}, 60.0).verify(query, parse_report(as_json("DevEUI_uplink", UPLINK)), 1741076122.0)


@pytest.mark.parametrize(
    ("pairs", "key", "token"),
    [
        (
            "DevEUI=000000000F1D8693&FPort=1&Payload=00&AS_ID=app1.sample.com&Time=2016-01-11T14:28:00.333+02:00",
            KEY_C,
            "ea8f31d2299cbece8e180a3012766c4df15fe3cf2e142d9fdf4035b5894ec886",
        ),
        (
            f"DevEUI=70B3D5E75E00A1C4&FPort=5&Payload=02ff&AS_ID={AS}&Time=2025-03-04T09:20:00.000+01:00",
            KEY_E,
            "28017bf2edf388d383a117ed18170f7e9268b4779400809ef32acd3d363b951a",
        ),
        (
            (
                "DevEUI=70B3D5E75E00A1C4&FPort=5&Payload=02ff&Confirmed=1&FlushDownlinkQueue=1"
                "&AS_ID=TWA_100009421.77.AS&Time=2025-03-04T08:20:00.000+00:00&CorrelationID=0000A1B2C3D4E5F6"
            ),
            KEY_E,
            "1601ee7ab0d29dcb494c37855f04524c5ccf31e75c50c649d33b046a21bab747",
        ),
    ],
)
def test_the_vectors_of_downlinks(pairs: str, key: str, token: str) -> None:
    assert (
        downlink_token([(name, value) for name, _, value in (p.partition("=") for p in pairs.split("&"))], key) == token
    )


TIME = "2025-03-04T09:15:22.481+01:00"
NOW_S = datetime.fromisoformat(TIME).timestamp()
PAIRS = _pairs("70B3D5E75E00A1C4", 5, f"{AS}-1-1", AS, TIME)
CHECK = TokenCheck({AS: KEY_E}, 60.0)


def _report(kind: str = "DevEUI_uplink", fields: dict[str, Any] = UPLINK) -> Report:
    return parse_report(as_json(kind, fields))


def _signed(elements: str, pairs: Pairs = PAIRS, key: str = KEY_E) -> str:
    """The query of a POST whose Token covers this, made without any of the code that is tested."""
    plain = "&".join(f"{name}={value}" for name, value in pairs)
    token = sha256((elements + plain + key).encode()).hexdigest()
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in [*pairs, ("Token", token)])


ELEMENTS = "10000942170B3D5E75E00A1C454211016700f1026855"


def _refused(query: str, report: Report | None = None, check: TokenCheck = CHECK, now_s: float = NOW_S) -> TokenError:
    with pytest.raises(TokenError) as caught:
        check.verify(query, report or _report(), now_s)
    error = caught.value
    assert error.message.isprintable()
    for text in (error.message, error.hint or ""):
        assert KEY_E not in text
        assert not any(word in text for word in ("e4f3", "sha256"))
    return error


def test_numbers_may_be_text() -> None:
    CHECK.verify(_signed(ELEMENTS), _report(fields={**UPLINK, "FPort": "05", "FCntUp": "4211"}), NOW_S)


def test_what_is_missing_counts_as_documented() -> None:
    fields = {"DevEUI": "70B3D5E75E00A1C4", "FCntUp": 7}
    CHECK.verify(_signed("70B3D5E75E00A1C407"), _report(fields=fields), NOW_S)
    CHECK.verify(_signed("70B3D5E75E00A1C40"), _report("DevEUI_downlink_Sent", fields), NOW_S)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [3, 0, 4, 1, 2]])
def test_the_order_is_that_of_the_query(order: list[int]) -> None:
    CHECK.verify(_signed(ELEMENTS, [PAIRS[i] for i in order]), _report(), NOW_S)


def test_a_plus_that_a_hop_decoded_is_turned_back() -> None:
    query = _signed(ELEMENTS)
    assert "%2B01" in query
    for plus in ("+", "%20", "%2b"):
        CHECK.verify(query.replace("%2B", plus), _report(), NOW_S)


def test_other_values_are_decoded_as_forms_are() -> None:
    pairs = [(name, "caf\u00e9 +1%" if name == "LrnInfos" else value) for name, value in PAIRS]
    query = _signed(ELEMENTS, pairs)
    assert "caf%C3%A9%20%2B1%25" in query
    CHECK.verify(query, _report(), NOW_S)
    CHECK.verify(query.replace("%20", "+"), _report(), NOW_S)


@pytest.mark.parametrize(
    "entered", [KEY_C, KEY_C.upper(), "46ab678c-d45d-f4a4-e4b3-75Eacd096acc", "46AB678C-d45d-f4a4-e4b3-75Eacd096acc"]
)
def test_a_key_is_tried_as_entered_then_in_lower_case_and_without_dashes(entered: str) -> None:
    check = TokenCheck({AS: entered}, 60.0)
    for used in (entered, entered.lower(), entered.replace("-", "").lower()):
        check.verify(_signed(ELEMENTS, key=used), _report(), NOW_S)
    assert _refused(_signed(ELEMENTS, key=KEY_E), check=check).reason == "token"


def test_keys_do_not_show() -> None:
    assert KEY_E not in repr(CHECK)


def test_without_keys_everything_passes() -> None:
    TokenCheck({}, 60.0).verify("&&Token&Token", _report(), 0.0)


@pytest.mark.parametrize(("index", "name"), [(3, "AS_ID"), (4, "Time"), (5, "Token")])
def test_what_is_missing_is_named(index: int, name: str) -> None:
    parts = _signed(ELEMENTS).split("&")
    error = _refused("&".join(parts[:index] + parts[index + 1 :]))
    assert error.reason == "missing"
    assert f"has no {name}" in error.message
    assert error.as_id == (None if name == "AS_ID" else AS)


def test_an_unsigned_report_misses_everything() -> None:
    for query in ("", "LrnDevEui=70B3D5E75E00A1C4&LrnFPort=5&LrnInfos=x"):
        error = _refused(query)
        assert (error.reason, error.as_id) == ("missing", None)
        assert error.message == "the query of an unnamed AS has no AS_ID and no Time and no Token"


def test_an_unknown_as_id_is_named_in_short() -> None:
    error = _refused(_signed(ELEMENTS).replace("AS_ID=TWA", "AS_ID=X%0A" + "y" * 500))
    assert (error.reason, len(error.as_id or "")) == ("as_id", 64)
    assert error.message.startswith("AS_ID 'X\\nyyyy")
    assert len(error.message) < 100


@pytest.mark.parametrize("name", ["Token", "AS_ID", "Time", "LrnDevEui", "LrnInfos"])
def test_a_parameter_twice_is_refused(name: str) -> None:
    query = _signed(ELEMENTS)
    part = next(part for part in query.split("&") if part.startswith(name))
    for doubled in (f"{part}&{query}", f"{query}&{part}", f"{name}=x&{query}", f"{query}&{name}"):
        error = _refused(doubled)
        assert (error.reason, error.message) == ("token", "the query names a parameter twice")


def test_nothing_follows_the_token() -> None:
    error = _refused(_signed(ELEMENTS) + "&x=1")
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
    assert _refused(_signed(ELEMENTS), _report(fields={**UPLINK, **changed})).reason == "token"


@pytest.mark.parametrize("token", ["", "0" * 64, "\u00e9" * 64, "%C3%A9", "%ED%A0%80"])
def test_a_wrong_token_is_refused(token: str) -> None:
    error = _refused(_signed(ELEMENTS).rpartition("Token=")[0] + "Token=" + token)
    assert error.reason == "token"
    assert error.message == f"the Token of AS_ID '{AS}' does not fit this DevEUI_uplink"


def test_the_queried_dev_eui_is_the_bodys() -> None:
    lower = [("LrnDevEui", "70b3d5e75e00a1c4"), *PAIRS[1:]]
    CHECK.verify(_signed(ELEMENTS, lower), _report(), NOW_S)
    CHECK.verify(_signed(ELEMENTS, PAIRS[1:]), _report(), NOW_S)
    error = _refused(_signed(ELEMENTS, [("LrnDevEui", "70B3D5E75E00A1C5"), *PAIRS[1:]]))
    assert error.reason == "token"
    assert "LrnDevEui '70B3D5E75E00A1C5'" in error.message
    assert "DevEUI '70B3D5E75E00A1C4'" in error.message


@pytest.mark.parametrize(("now_s", "side"), [(NOW_S + 60.1, "behind"), (NOW_S - 60.1, "ahead of")])
def test_the_clocks_must_agree(now_s: float, side: str) -> None:
    error = _refused(_signed(ELEMENTS), now_s=now_s)
    assert (error.reason, error.as_id) == ("time", AS)
    assert error.message == f"Time of AS_ID '{AS}' is 60.1 s {side} this server's clock; 60 s are allowed"


@pytest.mark.parametrize("now_s", [NOW_S + 60, NOW_S - 60])
def test_a_small_difference_is_allowed(now_s: float) -> None:
    CHECK.verify(_signed(ELEMENTS), _report(), now_s)


@pytest.mark.parametrize("time", ["2025-03-04T08:15:22.481", "2025-03-04T08:15:22.481Z", "2025-03-04T08:15:22.48"])
def test_a_time_without_zone_is_utc(time: str) -> None:
    CHECK.verify(_signed(ELEMENTS, [*PAIRS[:4], ("Time", time)]), _report(), NOW_S)


@pytest.mark.parametrize("time", ["", "now", "2025-13-01T00:00:00Z", "1741076122", "9" * 500])
def test_what_is_no_time_is_refused(time: str) -> None:
    error = _refused(_signed(ELEMENTS, [*PAIRS[:4], ("Time", time)]))
    assert error.reason == "time"
    assert "is no date and time" in error.message


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_the_ends_of_the_calendar_are_only_far_away(time: str) -> None:
    error = _refused(_signed(ELEMENTS, [*PAIRS[:4], ("Time", time)]))
    assert error.reason == "time"
    assert "60 s are allowed" in error.message


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
    report = _report(kind, fields)
    pairs = [("LrnDevEui", fields.get("DevEUI", "")), *PAIRS[1:]]
    name = fields.get("DevEUI", fields.get("LrrID", ""))
    for ending in endings:
        for spelling in (name, name.lower()):
            CHECK.verify(_signed(fields.get("CustomerID", "") + spelling + ending, pairs), report, NOW_S)
    for elements in ("", "100009421", f"{fields.get('CustomerID', '')}{name}8"):
        error = _refused(_signed(elements, pairs), report)
        assert error.reason == "undocumented"
        assert kind in error.message
        assert 'unsigned_reports = "accept"' in (error.hint or "")
    assert _refused("LrnFPort=1", report).reason == "missing"


@pytest.mark.parametrize(("kind", "fields", "endings"), UNDOCUMENTED)
def test_types_without_a_documented_rule_may_be_let_in(kind: str, fields: dict[str, Any], endings: list[str]) -> None:
    check = TokenCheck({AS: KEY_E}, 60.0, accept_unsigned=True)
    report = _report(kind, fields)
    for query in ("", "LrnFPort=0", f"AS_ID={AS}", f"AS_ID={AS}&Time={quote(TIME)}&Token=0"):
        check.verify(query, report, NOW_S)
    assert _refused("AS_ID=stranger", report, check).reason == "as_id"
    assert _refused(f"Time={quote(TIME)}", report, check, NOW_S + 61).reason == "time"
    assert _refused("Time=x", report, check).reason == "time"
    assert _refused("Token=1&Token=1", report, check).reason == "token"


DOCUMENTED = [
    ("DevEUI_uplink", UPLINK),
    ("DevEUI_downlink_Sent", DOWNLINK_SENT),
    ("DevEUI_location", LOCATION),
    ("DevEUI_notification", NOTIFICATION),
]


@pytest.mark.parametrize(("kind", "fields"), DOCUMENTED)
def test_types_with_a_documented_rule_are_never_let_in_unsigned(kind: str, fields: dict[str, Any]) -> None:
    check = TokenCheck({AS: KEY_E}, 60.0, accept_unsigned=True)
    assert _refused("LrnFPort=0", _report(kind, fields), check).reason == "missing"
    wrong = _signed("x", [("LrnFPort", "0"), *PAIRS[3:]])
    assert _refused(wrong, _report(kind, fields), check).reason == "token"


def test_data_does_not_pass_as_a_join_request() -> None:
    check = TokenCheck({AS: KEY_E}, 60.0, accept_unsigned=True)
    bare = {"DevEUI": "70B3D5E75E00A1C4", "CustomerID": "100009421"}
    for fields in (
        bare,
        {**bare, "payload_hex": "00"},
        {**bare, "payload_hex": "00", "rawJoinRequest": "00"},
        {**bare, "FCntUp": 1, "rawJoinRequest": "00"},
    ):
        assert _refused("", _report(fields=fields), check).reason == "missing"


def test_the_token_of_a_downlink_signs_no_report() -> None:
    text = f"DevEUI=70B3D5E75E00A1C4&FPort=5&Payload=0000000000000000&AS_ID={AS}&Time={TIME}"
    token = sha256((text + KEY_E).encode()).hexdigest()
    stolen = {"CustomerID": "DevEUI=70B3D5E75E00A1C4&FPort=5&Payload=", "DevEUI": "0000000000000000"}
    query = f"&AS_ID={AS}&Time={quote(TIME)}&Token={token}"
    for kind in ("DevEUI_notification", "DevEUI_alarm"):
        assert _refused(query, _report(kind, stolen)).reason in {"token", "undocumented"}


VALUES = st.text(alphabet="aZ0%+ &=:é\ud7ff\u2603/", max_size=12)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(alphabet="abcXYZ_ %+=&é", min_size=1, max_size=5), VALUES), max_size=5))
def test_any_query_that_was_encoded_is_decoded_to_the_same(extra: list[tuple[str, str]]) -> None:
    pairs = [*dict(extra).items(), *PAIRS]
    token = uplink_token("DevEUI_uplink", UPLINK, pairs, KEY_E)
    CHECK.verify(urlencode([*pairs, ("Token", token)]), _report(), NOW_S)
    CHECK.verify(urlencode([*pairs, ("Token", token)], quote_via=quote), _report(), NOW_S)


@settings(deadline=None)
@given(st.text(alphabet="%3A2Bb+a=zé", max_size=20))
def test_even_broken_escapes_are_decoded_as_everyone_does(value: str) -> None:
    decoded = dict(parse_qsl(f"x={value}", keep_blank_values=True, separator="&"))["x"]
    pairs = [("x", decoded), *PAIRS]
    token = uplink_token("DevEUI_uplink", UPLINK, pairs, KEY_E)
    CHECK.verify(f"x={value}&{urlencode(PAIRS)}&Token={token}", _report(), NOW_S)


@settings(deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="AS_IDTimeokn=&%20:+-", max_size=60))
def test_no_query_does_anything_but_pass_or_be_refused(query: str) -> None:
    assert _refused(query).reason in {"missing", "as_id", "token"}
    check = TokenCheck({AS: KEY_E}, 60.0, accept_unsigned=True)
    try:
        check.verify(query + "&Time=" + query, _report("DevEUI_alarm", DEVICE_ALARM), NOW_S)
    except TokenError as refusal:
        reason = refusal.reason
    else:
        reason = "passed"
    assert reason in {"as_id", "token", "time"}
