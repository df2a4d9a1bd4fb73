"""Downlinks as people and programs write them, and what is wrong with the others."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpxd.lorawan.downlinks import (
    MAX_BODY_BYTES,
    Downlink,
    DownlinkError,
    NotADownlink,
    NotJson,
    normalised_dev_eui,
    parse_downlink,
)

DEV_EUI = "70B3D5E75E00A1C4"
NOW_S = 1_741_076_400.0
KEY = "7d1e9a40c3b85f2206e4d7913ab6f85c"


def parse(fields: dict[str, Any], default_port: int | None = None) -> Downlink | NotADownlink:
    return parse_downlink(orjson.dumps({"DevEUI_downlink": fields}), default_port=default_port, now_s=NOW_S)


def downlink(**fields: Any) -> Downlink:
    found = parse({"DevEUI": DEV_EUI, "FPort": 5, "payload_hex": "02ff"} | fields)
    assert isinstance(found, Downlink)
    return found


def fault(**fields: Any) -> str:
    with pytest.raises(DownlinkError) as caught:
        downlink(**fields)
    return caught.value.message


def test_the_documented_example() -> None:
    found = downlink(
        Time="2025-03-04T09:20:00.000+01:00",
        AS_ID="TWA_100009421.77.AS",
        AS_KEY=KEY,
        Confirmed="1",
        ValidityTime="2025-03-04T10:20:00.000+01:00",
        FlushDownlinkQueue="1",
        CorrelationID="0000A1B2C3D4E5F6",
        DriverCfg={"app": {"pId": "acme", "mId": "thr", "ver": "2"}},
    )
    assert found == Downlink(
        DEV_EUI,
        5,
        "02ff",
        confirmed=True,
        flush_queue=True,
        valid_until_s=NOW_S + 3600,
        correlation_id="0000A1B2C3D4E5F6",
        as_id="TWA_100009421.77.AS",
        as_key=KEY,
    )
    assert KEY not in repr(found)


@pytest.mark.parametrize(
    "text",
    [
        "70b3d5e75e00a1c4",
        "70-B3-D5-E7-5E-00-A1-C4",
        "70:b3:d5:e7:5e:00:a1:c4",
        "70B3.D5E7.5E00.A1C4",
        "0x70b3D5E75E00A1C4",
        "0X70B3D5E75E00A1C4",
    ],
)
def test_a_dev_eui_in_any_notation(text: str) -> None:
    assert normalised_dev_eui(text) == DEV_EUI


@given(st.integers(0, 2**64 - 1), st.sampled_from(["", "-", ":", " "]), st.booleans())
def test_notations_mean_the_same(number: int, separator: str, upper: bool) -> None:
    octets = [f"{byte:02x}" for byte in number.to_bytes(8, "big")]
    text = separator.join(octets)
    assert normalised_dev_eui(text.upper() if upper else text) == f"{number:016X}"


@given(
    st.integers(1, 224),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.booleans(),
    st.binary(max_size=242),
)
def test_numbers_and_numeric_text_mean_the_same(
    port: int, counter: int, confirmed: bool, flush: bool, payload: bytes
) -> None:
    plain = {"FPort": port, "FCntDn": counter, "Confirmed": int(confirmed), "FlushDownlinkQueue": flush}
    text = {name: str(int(value)) for name, value in plain.items()}
    pointed = {name: float(value) for name, value in plain.items()}
    found = [downlink(**fields, payload_hex=payload.hex(), CorrelationID="1") for fields in (plain, text, pointed)]
    assert found[0] == found[1] == found[2]
    assert found[0].payload_hex == payload.hex()


def test_the_root_may_be_missing() -> None:
    fields = {"DevEUI": DEV_EUI, "FPort": 5, "payload_hex": "02ff"}
    assert isinstance(parse_downlink(orjson.dumps(fields), default_port=None, now_s=NOW_S), Downlink)
    uplink = fields | {"FCntUp": 7}
    assert isinstance(parse_downlink(orjson.dumps(uplink), default_port=None, now_s=NOW_S), NotADownlink)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"1", b'"text"', b"null", b'{"DevEUI_uplink":{"DevEUI":"1"}}'])
def test_other_json(body: bytes) -> None:
    assert isinstance(parse_downlink(body, default_port=None, now_s=NOW_S), NotADownlink)


@pytest.mark.parametrize("body", [b"", b"hello", b"{", b"\xff\xfe", b"[" * 50_000, b'"' + b"x" * MAX_BODY_BYTES + b'"'])
def test_no_json(body: bytes) -> None:
    with pytest.raises(NotJson):
        parse_downlink(body, default_port=None, now_s=NOW_S)


def test_the_default_port() -> None:
    fields = {"DevEUI": DEV_EUI, "payload_hex": "00"}
    found = parse(fields, 9)
    assert isinstance(found, Downlink)
    assert found.f_port == 9
    with pytest.raises(DownlinkError, match="FPort is missing"):
        parse(fields)


def test_a_correlation_id_is_made() -> None:
    first, second = downlink(), downlink()
    assert len(first.correlation_id) == 16
    assert first.correlation_id != second.correlation_id
    assert len(downlink(CorrelationID="").correlation_id) == 16


@pytest.mark.parametrize(
    ("given", "until_s", "in_seconds"),
    [
        (600, NOW_S + 600, True),
        ("600", NOW_S + 600, True),
        (1.5, NOW_S + 2, True),
        (0, NOW_S, True),
        ("2025-03-04T08:20:00Z", NOW_S, False),
        ("2025-03-04T08:20:00", NOW_S, False),
        ("2025-03-04T09:20:00.000+01:00", NOW_S, False),
    ],
)
def test_validity(given: Any, until_s: float, in_seconds: bool) -> None:
    found = downlink(ValidityTime=given)
    assert (found.valid_until_s, found.validity_in_seconds) == (until_s, in_seconds)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("DevEUI", "12"),
        ("DevEUI", None),
        ("DevEUI", 7),
        ("DevEUI", "70B3D5E75E00A1C4\n"),
        ("DevEUI", "70B3D5E75E00A1\ufb00"),
        ("DevEUI", "0x0x70B3D5E75E00A1C4"),
        ("FPort", 0),
        ("FPort", 225),
        ("FPort", 999),
        ("FPort", True),
        ("FPort", "5.0"),
        ("FPort", 5.5),
        ("FPort", 1e300),
        ("FPort", "٥"),
        ("FPort", {"a": 1}),
        ("payload_hex", None),
        ("payload_hex", "xyz"),
        ("payload_hex", "0"),
        ("payload_hex", 2),
        ("payload_hex", "00" * 243),
        ("payload", {"a": 1}),
        ("FCntDn", -1),
        ("FCntDn", 2**32),
        ("AFCntDn", "x"),
        ("Confirmed", 2),
        ("Confirmed", "yes"),
        ("FlushDownlinkQueue", []),
        ("RetryIneligibleGateways", "2"),
        ("ValidityTime", "tomorrow"),
        ("ValidityTime", -5),
        ("ValidityTime", 10**12),
        ("ValidityTime", "0001-01-01T00:00:00+14:00"),
        ("ValidityTime", "9999-12-31T23:59:59-14:00"),
        ("CorrelationID", "12345678901234567"),
        ("CorrelationID", 12),
        ("AS_ID", "a b"),
        ("AS_ID", "x" * 257),
        ("AS_KEY", "short"),
        ("AS_KEY", 5),
    ],
)
def test_faults_name_the_field(field: str, value: Any) -> None:
    assert fault(**{field: value}).startswith(field)


def test_a_wrong_key_is_not_repeated() -> None:
    assert "s3cret" not in fault(AS_KEY="s3cret")


def test_a_decoded_payload_needs_a_driver() -> None:
    assert "driver" in fault(payload={"downlink": "setPeriod"}, payload_hex=None)


def test_a_wrong_downlink_says_whose_it_is() -> None:
    with pytest.raises(DownlinkError) as caught:
        downlink(DevEUI=DEV_EUI.lower(), FPort="7", CorrelationID="AB", payload_hex="x")
    assert (caught.value.dev_eui, caught.value.f_port, caught.value.correlation_id) == (DEV_EUI, 7, "AB")
    with pytest.raises(DownlinkError) as caught:
        downlink(DevEUI="12", FPort="x")
    assert (caught.value.dev_eui, caught.value.f_port) == ("12", None)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_names = st.sampled_from(
    [
        "DevEUI",
        "FPort",
        "payload",
        "payload_hex",
        "FCntDn",
        "AFCntDn",
        "Confirmed",
        "FlushDownlinkQueue",
        "ValidityTime",
        "CorrelationID",
        "AS_ID",
        "AS_KEY",
        "RetryIneligibleGateways",
    ]
)


@given(st.dictionaries(_names, _json))
def test_anything_is_a_downlink_or_a_fault(fields: dict[str, Any]) -> None:
    body = json.dumps({"DevEUI_downlink": {"DevEUI": DEV_EUI, "FPort": 5} | fields}).encode()
    try:
        found = parse_downlink(body, default_port=None, now_s=NOW_S)
    except (DownlinkError, NotJson):
        return
    assert isinstance(found, Downlink)


@given(st.binary(max_size=200))
def test_no_bytes_break_it(body: bytes) -> None:
    with suppress(DownlinkError, NotJson):
        parse_downlink(body, default_port=None, now_s=NOW_S)


def test_a_token_is_refused_by_name_and_not_shown() -> None:
    assert fault(Token="c0ffee" * 8).startswith("Token is of no use here: leave it out")
    assert "c0ffee" not in fault(Token="c0ffee" * 8)
    assert downlink(Token="").dev_eui == DEV_EUI


def test_what_cellular_networks_ask_for_is_passed_on() -> None:
    assert (downlink(RAN="CELLULAR", MType=3).ran, downlink(MType="3").m_type) == ("CELLULAR", "3")
    assert (downlink().ran, downlink(RAN="").m_type) == (None, None)
    assert fault(RAN="A&B=1") == "RAN 'A&B=1' is not a word of up to 32 letters, digits, - and _"
    assert fault(MType=True).startswith("MType True is not a word")
    assert fault(MType=[1]).startswith("MType a list is not a word")


# ---- XML

XML = (
    b'<?xml version="1.0" encoding="UTF-8"?><DevEUI_downlink xmlns="http://uri.actility.com/lora">'
    b"<Time>2025-03-04T09:20:00.000+01:00</Time><DevEUI>70b3d5e75e00a1c4</DevEUI><FPort>5</FPort>"
    b"<payload_hex>0020</payload_hex><Confirmed>1</Confirmed><FCntDn>318</FCntDn><CorrelationID>00A1</CorrelationID>"
    b"</DevEUI_downlink>"
)


def read(body: bytes) -> Downlink | NotADownlink:
    return parse_downlink(body, default_port=None, now_s=NOW_S)


@pytest.mark.parametrize("before", [b"", b"\n ", b"\xef\xbb\xbf"])
def test_xml_says_what_json_says(before: bytes) -> None:
    whole = downlink(payload_hex="0020", Confirmed="1", FCntDn=318, CorrelationID="00A1")
    assert read(before + XML) == whole


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (XML.replace(b"DevEUI_downlink", b"DevEUI_uplink"), "its root is not DevEUI_downlink"),
        (XML[:-1], "the message is XML and no downlink: the body is not well-formed XML"),
        (b"<", "the message is XML and no downlink"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "the message is XML and no downlink"),
    ],
)
def test_other_xml_is_ignored_like_what_is_no_json(body: bytes, told: str) -> None:
    with pytest.raises(NotJson) as caught:
        read(body)
    assert told in caught.value.message


def test_a_wrong_downlink_in_xml_says_whose_it_is() -> None:
    with pytest.raises(DownlinkError) as caught:
        read(XML.replace(b"<FPort>5</FPort>", b"<FPort>0</FPort>"))
    assert (caught.value.field, caught.value.dev_eui) == ("FPort", DEV_EUI)
    with pytest.raises(DownlinkError) as caught:
        read(b"<DevEUI_downlink/>")
    assert caught.value.message == "DevEUI is missing"


@given(st.binary(max_size=200))
def test_nothing_that_begins_like_xml_breaks_it(content: bytes) -> None:
    with suppress(NotJson, DownlinkError):
        read(b"<" + content)
