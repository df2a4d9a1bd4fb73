from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.lorawan.samples import BASE_STATION_ALARM, REPORTS, UPLINK, as_json, as_xml
from tpxd.errors import ReportError
from tpxd.lorawan.json_reports import MAX_DEPTH, MAX_VALUES
from tpxd.lorawan.reports import field_text, parse_report

EUI = b'"DevEUI":"70B3D5E75E00A1C4"'


def _report(**fields: Any) -> bytes:
    return as_json("DevEUI_uplink", {"DevEUI": "70B3D5E75E00A1C4", **fields})


@pytest.mark.parametrize(("kind", "fields"), REPORTS)
def test_every_type_is_carried_as_it_came(kind: str, fields: dict[str, Any]) -> None:
    body = b" \r\n" + as_json(kind, fields) + b"\n"
    report = parse_report(body, "application/json")
    assert (report.kind, report.body) == (kind, body)
    assert report.fields == fields
    assert report.lane == fields.get("DevEUI", "1000A7F2").upper()


def test_what_json_does_not_keep_when_it_is_written_again_stays() -> None:
    body = b'{"DevEUI_uplink":{' + EUI + rb',"LrrSNR":6.2500,"FPort":"05","n":"\u00fc",  "News":{"a":[1e3]}}}'
    report = parse_report(body)
    assert report.body is body
    assert report.fields["News"] == {"a": [1000.0]}


def test_the_lane_is_the_dev_eui_in_upper_case() -> None:
    assert parse_report(as_json("DevEUI_location", {"DevEUI": "70b3d5e75e00a1c4"})).lane == "70B3D5E75E00A1C4"


def test_a_report_about_a_base_station_has_its_lane() -> None:
    assert parse_report(as_json("BS_alarm", BASE_STATION_ALARM)).lane == "1000A7F2"
    assert parse_report(as_json("BS_state", {"LrrID": "1000A7F2"})).lane == "1000A7F2"
    named_both = parse_report(as_json("BS_alarm", {"LrrID": "1000A7F2", "DevEUI": "70B3D5E75E00A1C4"}))
    assert named_both.lane == "1000A7F2"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty"),
        (b"   ", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"null", "the body is null, not an object with one key"),
        (b"7", "the body is a number, not"),
        (b"true", "the body is true, not"),
        (b'"x"', "the body is text, not"),
        (b"[]", "the body is a list, not"),
        (b"{}", "an object with 0 keys"),
        (b'{"DevEUI_uplink":{},"DevEUI_alarm":{}}', "an object with 2 keys"),
        (b'{"DevEUI_uplink":[]}', "DevEUI_uplink holds a list, not an object"),
        (b'{"DevEUI_uplink":null}', "DevEUI_uplink holds null, not an object"),
        (b'{"DevEUI_uplink":{' + EUI + b',"x":NaN}}', "not valid JSON"),
        (b'{"DevEUI_uplink":{' + EUI + b',"x":"\xff"}}', "not valid JSON"),
        (b'{"DevEUI_uplink":{' + EUI + b',"x":"\\ud800"}}', "not valid JSON"),
        (b'{"DevEUI_uplink":{' + EUI + b"}", "not valid JSON"),
        (b'{"":{' + EUI + b"}}", "'' is no name of a report"),
        (b'{"a\\nb":{' + EUI + b"}}", r"'a\\nb' is no name of a report"),
        (b'{"DevEUI_uplink":{}}', "DevEUI_uplink has no DevEUI"),
        (b'{"DevEUI_uplink":{"LrrID":"1000A7F2"}}', "DevEUI_uplink has no DevEUI"),
        (b'{"Unknown":{}}', "Unknown has no DevEUI"),
        (b'{"DevEUI_uplink":{"DevEUI":"70-B3-D5-E7-5E-00-A1-C4"}}', "'70-B3-D5-E7-5E-00-A1-C4', not 16 hex digits"),
        (b'{"DevEUI_uplink":{"DevEUI":"70B3D5E75E00A1C4\\n"}}', "not 16 hex digits"),
        (b'{"DevEUI_uplink":{"DevEUI":7}}', "DevEUI of DevEUI_uplink is 7, not 16 hex digits"),
        (b'{"BS_alarm":{' + EUI + b"}}", "LrrID of BS_alarm is missing, not 8 hex digits"),
        (b'{"BS_alarm":{"LrrID":"roof"}}', "LrrID of BS_alarm is 'roof', not 8 hex digits"),
    ],
)
def test_what_is_no_report_is_refused_in_one_line(body: bytes, message: str) -> None:
    with pytest.raises(ReportError, match=message) as caught:
        parse_report(body)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["FPort", "FCntUp", "FCntDn"])
@pytest.mark.parametrize(
    "value", [-1, "-1", 5.0, "5.0", "five", "+5", "1_0", "٣", " 5", 2**32, "9" * 5000, True, [5], {}]
)
def test_a_counter_that_is_none_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(ReportError, match=f"{name} of DevEUI_uplink is .*, not a number from 0 to"):
        parse_report(_report(**{name: value}))


def test_an_fport_is_one_byte() -> None:
    assert parse_report(_report(FPort="255")).fields["FPort"] == "255"
    with pytest.raises(ReportError, match="FPort of DevEUI_uplink is 256, not a number from 0 to 255"):
        parse_report(_report(FPort=256))


@pytest.mark.parametrize(
    ("name", "value"), [("CustomerID", {}), ("CustomerID", True), ("payload_hex", 1), ("payload_hex", [])]
)
def test_what_tokens_rely_on_has_a_sane_type(name: str, value: Any) -> None:
    with pytest.raises(ReportError, match=f"{name} of DevEUI_uplink is"):
        parse_report(_report(**{name: value}))


@pytest.mark.parametrize(
    ("value", "text"), [(5, "5"), ("5", "5"), ("005", "5"), (0, "0"), ("0", "0"), ("", ""), (None, "")]
)
def test_numbers_and_numeric_strings_are_the_same_text(value: Any, text: str) -> None:
    assert field_text(parse_report(_report(FCntUp=value)).fields, "FCntUp") == text


def test_a_customer_keeps_leading_zeros_and_may_be_a_number() -> None:
    assert field_text({"CustomerID": "0042"}, "CustomerID") == "0042"
    assert field_text({"CustomerID": 100009421}, "CustomerID") == "100009421"
    assert field_text({}, "CustomerID") == ""


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 9))
@example(0, 2)
def test_padding_changes_nothing(number: int, zeros: int) -> None:
    assert field_text({"FCntDn": "0" * zeros + str(number)}, "FCntDn") == str(number)


def _nested(depth: int) -> bytes:
    return b'{"DevEUI_uplink":{' + EUI + b',"a":' + b"[" * depth + b"]" * depth + b"}}"


def test_nesting_is_bounded() -> None:
    assert parse_report(_nested(MAX_DEPTH - 2)).kind == "DevEUI_uplink"
    for depth in (MAX_DEPTH - 1, 500, 100_000):
        with pytest.raises(ReportError):
            parse_report(_nested(depth))


@pytest.mark.parametrize("unit", [b"[],", b"{},", b"0,", b'{"":0},', b'"ab",'])
def test_values_are_bounded(unit: bytes) -> None:
    def body(repeats: int) -> bytes:
        return b'{"DevEUI_uplink":{' + EUI + b',"a":[' + unit * repeats + b"0]}}"

    per_unit = sum(unit.count(sign) for sign in b",{[")
    most = (MAX_VALUES - 4) // per_unit
    assert parse_report(body(most)).kind == "DevEUI_uplink"
    with pytest.raises(ReportError, match="more than 16384 values"):
        parse_report(body(most + 1))


@pytest.mark.parametrize(
    "inner",
    [
        b'"FPort":5,"FPort":6',
        b'"payload_hex":"00","payload_hex":"00"',
        b'"a":1,"\\u0061":1',
        b'"a":1,"a":1,"b":"\\u003a"',
        b'"a":{"b":[{"c":":","c":0}]}',
        b'"":{},"":{}',
        b'"DevEUI":"70B3D5E75E00A1C5"',
    ],
)
def test_a_key_twice_is_no_report(inner: bytes) -> None:
    with pytest.raises(ReportError, match="twice in one object"):
        parse_report(b'{"DevEUI_uplink":{' + EUI + b"," + inner + b"}}")


def test_the_same_key_in_several_objects_is_a_report() -> None:
    body = b'{"DevEUI_uplink":{' + EUI + b',"a":{"a":1,"b":":\\u003a"},"b":[{"a":1.5e400},{"a":123456789}]}}'
    assert parse_report(body.replace(b"e400", b"e4")).fields["a"] == {"a": 1, "b": "::"}


KEYS = st.sampled_from(["a", "b", ":", '"', "\\u003a", "é"])


@settings(deadline=None)
@given(st.recursive(st.sampled_from([":", 0, '":', "\\u003a"]), lambda v: st.lists(st.tuples(KEYS, v), max_size=3)))
def test_a_doubled_key_is_found_wherever_it_hides(value: Any) -> None:
    doubled = False

    def written(value: Any, escape: bool) -> str:
        nonlocal doubled
        if not isinstance(value, list):
            return json.dumps(value, ensure_ascii=escape)
        doubled = doubled or len({key for key, _ in value}) < len(value)
        return "{" + ",".join(f"{written(k, escape)}:{written(v, escape)}" for k, v in value) + "}"

    for escape in (False, True):
        body = f'{{"x":{{"DevEUI":"70B3D5E75E00A1C4","v":{written(value, escape)}}}}}'.encode()
        with pytest.raises(ReportError, match="twice") if doubled else nullcontext():
            parse_report(body)


@pytest.mark.parametrize("payload", ["0", "016700f102685", "0x01", "zz", "01 02", "é0", "0\n"])
def test_a_payload_is_pairs_of_hex_digits(payload: str) -> None:
    with pytest.raises(ReportError, match="not pairs of hex digits"):
        parse_report(as_json("DevEUI_uplink", {**UPLINK, "payload_hex": payload}))
    for right in ("", "00", "AbCd"):
        parse_report(as_json("DevEUI_uplink", {**UPLINK, "payload_hex": right}))


def test_many_brackets_side_by_side_are_no_depth() -> None:
    body = b'{"DevEUI_uplink":{' + EUI + b',"a":[' + b"[]," * 500 + b"[]]}}"
    assert parse_report(body).body == body


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["DevEUI", "FPort", "FCntUp", "FCntDn", "CustomerID", "payload_hex", "LrrID", "Lrrs"])


@settings(deadline=None)
@given(
    st.binary(max_size=80)
    | st.builds(
        lambda kind, fields: orjson.dumps({kind: fields}),
        st.sampled_from(["DevEUI_uplink", "BS_alarm", "x"]) | st.text(max_size=10),
        st.dictionaries(NAMES, JSON_VALUES | st.just("70B3D5E75E00A1C4")) | JSON_VALUES,
    ),
    st.sampled_from([None, "application/json", "text/xml", "\xff"]),
)
def test_any_body_is_a_report_or_an_error_of_one_line(body: bytes, content_type: str | None) -> None:
    try:
        report = parse_report(body, content_type)
    except ReportError as refusal:
        message = refusal.message
    else:
        message = ""
        assert report.lane == report.lane.upper()
        assert orjson.loads(report.body) == report.document
        for name in ("FPort", "FCntUp", "FCntDn"):
            text = field_text(report.fields, name)
            assert text == "" or int(text) >= 0
    assert message.isprintable()


@pytest.mark.parametrize(("kind", "fields"), REPORTS)
def test_json_and_xml_of_a_report_are_the_same_fields(kind: str, fields: dict[str, Any]) -> None:
    from_json = parse_report(as_json(kind, fields), "application/json")
    from_xml = parse_report(as_xml(kind, fields), "application/xml; charset=utf-8")
    assert (from_xml.kind, from_xml.lane, from_xml.document) == (from_json.kind, from_json.lane, from_json.document)
    assert orjson.loads(from_xml.body) == {kind: fields}


def test_the_first_character_says_what_it_is() -> None:
    xml, json = as_xml("DevEUI_uplink", UPLINK), as_json("DevEUI_uplink", UPLINK)
    for content_type in (None, "", "application/json", "text/xml", "application/x-www-form-urlencoded"):
        assert parse_report(xml, content_type).fields == UPLINK
        assert parse_report(b"\r\n " + xml, content_type).fields == UPLINK
        assert parse_report(b"\xef\xbb\xbf" + xml, content_type).fields == UPLINK
        assert parse_report(json, content_type).fields == UPLINK
