from __future__ import annotations

import codecs
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lorawan.samples import UPLINK, as_xml
from tpxd.errors import ReportError
from tpxd.lorawan.reports import parse_report
from tpxd.lorawan.xml_reports import MAX_ATTRIBUTES, MAX_DEPTH, MAX_ELEMENTS, document_from_xml

EUI = "<DevEUI>70B3D5E75E00A1C4</DevEUI>"
DOCUMENTED = b"""<?xml version="1.0" encoding="utf-8"?>
<DevEUI_uplink xmlns="http://uri.actility.com/lora">
  <Time>2025-03-04T09:15:21.902+01:00</Time>
  <DevEUI>70B3D5E75E00A1C4</DevEUI>
  <FPort>5</FPort>
  <FCntUp>4211</FCntUp>
  <payload_hex>016700f1026855</payload_hex>
  <Lrrs><Lrr><Lrrid>1000A7F2</Lrrid><LrrRSSI>-93.000000</LrrRSSI><LrrSNR>6.250000</LrrSNR><LrrESP>-93.920000</LrrESP></Lrr></Lrrs>
  <CustomerID>100009421</CustomerID>
  <CustomerData>{"alr":{"pro":"ACME/THR","ver":"2"},"name":"Fridge 12"}</CustomerData>
</DevEUI_uplink>
"""


def test_the_documented_example() -> None:
    report = parse_report(DOCUMENTED)
    assert report.body == (
        b'{"DevEUI_uplink":{"Time":"2025-03-04T09:15:21.902+01:00","DevEUI":"70B3D5E75E00A1C4","FPort":5,"FCntUp":4211,'
        b'"payload_hex":"016700f1026855","Lrrs":{"Lrr":[{"Lrrid":"1000A7F2","LrrRSSI":-93.0,"LrrSNR":6.25,'
        b'"LrrESP":-93.92}]},"CustomerID":"100009421","CustomerData":{"alr":{"pro":"ACME/THR","ver":"2"},'
        b'"name":"Fridge 12"}}}'
    )


def _fields(inner: str) -> object:
    return document_from_xml(f"<DevEUI_uplink>{inner}</DevEUI_uplink>".encode())["DevEUI_uplink"]


@pytest.mark.parametrize(
    ("inner", "fields"),
    [
        ("<FPort>05</FPort>", {"FPort": 5}),
        ("<FPort> 5\n</FPort>", {"FPort": 5}),
        ("<FPort/>", {"FPort": ""}),
        ("<FPort>five</FPort>", {"FPort": "five"}),
        ("<FCntUp>9999999999999999999999</FCntUp>", {"FCntUp": "9999999999999999999999"}),
        ("<LrrSNR>-3</LrrSNR>", {"LrrSNR": -3}),
        ("<LrrSNR>NaN</LrrSNR>", {"LrrSNR": "NaN"}),
        ("<payload_hex>0012</payload_hex>", {"payload_hex": "0012"}),
        ("<CustomerID>0042</CustomerID>", {"CustomerID": "0042"}),
        ("<CustomerData>not JSON</CustomerData>", {"CustomerData": "not JSON"}),
        ('<DriverCfg>{"mod":{}}</DriverCfg>', {"DriverCfg": {"mod": {}}}),
        ("<Lrrs/>", {"Lrrs": {}}),
        ("<Lrrs><Lrr/></Lrrs>", {"Lrrs": {"Lrr": [""]}}),
        ("<New>1</New><Other>2</Other><New>3</New><New>4</New>", {"New": ["1", "3", "4"], "Other": "2"}),
        ("<New><a>1</a></New><New/>", {"New": [{"a": "1"}, ""]}),
        ('<a:New xmlns:a="urn:x" a:b="c">1</a:New>', {"New": "1"}),
        ("<New><!-- no --><![CDATA[<&>]]>&lt;</New>", {"New": "<&><"}),
        ("", {}),
    ],
)
def test_what_xml_becomes(inner: str, fields: object) -> None:
    assert _fields(inner) == fields


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<", "not well-formed XML: .*line 1"),
        (b"<a></b>", "not well-formed XML: mismatched tag"),
        (b"<a/><b/>", "not well-formed XML: junk after document element"),
        (b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "has a DTD or entities"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "has a DTD or entities"),
        (b"<a>&x;</a>", "not well-formed XML: undefined entity"),
        (b'<?xml version="1.0" encoding="no-such"?><a/>', "the XML's encoding 'no-such' is none of iso-8859-1, "),
        (b'<?xml version="1.0" encoding="big5"?><a/>', "the XML's encoding 'big5' is none of"),
        (b"<a>\x00</a>", "not well-formed XML"),
        (b"<a>\xff</a>", "not well-formed XML"),
        (b"<DevEUI_uplink>text</DevEUI_uplink>", "DevEUI_uplink has no DevEUI"),
        (b"<DevEUI_uplink/>", "DevEUI_uplink has no DevEUI"),
        (b"<DevEUI_uplink><DevEUI/></DevEUI_uplink>", "DevEUI of DevEUI_uplink is '', not 16 hex digits"),
        (f"<DevEUI_uplink>{EUI}{EUI}</DevEUI_uplink>".encode(), "DevEUI of DevEUI_uplink is a list, not"),
        (f"<DevEUI_uplink>{EUI}<FPort>x</FPort></DevEUI_uplink>".encode(), "FPort of DevEUI_uplink is 'x', not"),
        ("<Ü>x</Ü>".encode(), "is no name of a report"),
        (b"<Lrrs/>", "Lrrs has no DevEUI"),
        (b"<FPort>5</FPort>", "FPort holds a number, not an object"),
        (b"<CustomerData>[]</CustomerData>", "CustomerData holds a list, not an object"),
    ],
)
def test_what_is_no_report_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(ReportError, match=message) as caught:
        parse_report(body)
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("encoding", ["utf-8", "UTF-8", "US-ASCII", "iso-8859-1", "Windows-1252"])
def test_encodings_that_are_known(encoding: str) -> None:
    text = f"<?xml version='1.0' encoding='{encoding}'?><DevEUI_uplink>{EUI}<a>{{}}</a></DevEUI_uplink>"
    letter = "" if encoding == "US-ASCII" else "é"
    assert parse_report(text.format(letter).encode(encoding)).fields["a"] == letter


def test_whatever_encoding_is_named_no_codec_is_looked_up() -> None:
    """Python keeps the codec of each name that it was ever asked for."""
    asked: list[str] = []

    def look_up(name: str) -> None:
        asked.append(name)

    codecs.register(look_up)
    try:
        for n, space in enumerate((" ", " " * 200)):
            body = f'<?xml version="1.0"{space}encoding="x{n}{"A" * 500}"?><DevEUI_uplink>{EUI}</DevEUI_uplink>'
            for encoded in (body.encode(), b"\xef\xbb\xbf" + body.encode(), body.encode("utf-16")):
                with suppress(ReportError):
                    parse_report(encoded, "text/xml")
    finally:
        codecs.unregister(look_up)
    assert asked == []


def test_a_long_encoding_name_is_cut() -> None:
    with pytest.raises(ReportError, match="the XML's encoding 'aaaaa") as caught:
        parse_report(f'<?xml version="1.0" encoding="{"a" * 10_000}"?><x/>'.encode())
    assert len(caught.value.message) < 200


def test_namespaces_are_not_expanded_and_what_is_too_much_is_refused() -> None:
    names = f'xmlns="{"u" * 3000}" xmlns:p="{"u" * 3000}"'
    body = f"<DevEUI_uplink {names}>{EUI}{'<p:a/>' * 2000}</DevEUI_uplink>"
    assert len(parse_report(body.encode()).fields["a"]) == 2000
    for refused, why in (
        (f"<DevEUI_uplink>{'<a/>' * MAX_ELEMENTS}</DevEUI_uplink>", "more than 2048 elements"),
        (f'<DevEUI_uplink a="{"u" * MAX_ATTRIBUTES}"/>', "more than 8192 characters of attributes"),
        (f"<x><CustomerData>{'[],' * 20_000}</CustomerData></x>", "more than 16384 values"),
        *((f"<x>{sign * 20_000}</x>", "more than 16384 values") for sign in ("\n", "\r", "&#65;", "<!---->")),
    ):
        with pytest.raises(ReportError, match=why):
            parse_report(refused.encode())


def test_xml_by_its_content_type_alone() -> None:
    body = f'<?xml version="1.0" encoding="utf-16"?><DevEUI_uplink>{EUI}</DevEUI_uplink>'.encode("utf-16")
    assert parse_report(body, "Text/XML; charset=utf-16").lane == "70B3D5E75E00A1C4"
    with pytest.raises(ReportError, match="not well-formed XML: no element found"):
        parse_report(b"", "text/xml")


def test_nesting_is_bounded_in_elements_and_in_json_text() -> None:
    inner = MAX_DEPTH - 1
    assert parse_report(f"<x>{EUI}{'<a>' * inner}{'</a>' * inner}</x>".encode()).kind == "x"
    for depth in (MAX_DEPTH, 8_000):
        with pytest.raises(ReportError, match="nests elements more than 16 deep"):
            parse_report(f"<x>{EUI}{'<a>' * depth}{'</a>' * depth}</x>".encode())
    with pytest.raises(ReportError, match="nests objects and lists more than 64 deep"):
        parse_report(f"<x>{EUI}<CustomerData>{'[' * 900}{']' * 900}</CustomerData></x>".encode())


@settings(deadline=None)
@given(st.data())
def test_damaged_xml_is_a_report_or_an_error(data: st.DataObject) -> None:
    body = bytearray(as_xml("DevEUI_uplink", UPLINK))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        report = parse_report(bytes(body), "text/xml")
    except ReportError as refusal:
        message = refusal.message
    else:
        message = ""
        assert len(report.lane) == 16
    assert message.isprintable()


@settings(deadline=None)
@given(st.text(alphabet="<>/!?&;[]ADVx \"'=-:", max_size=60))
def test_anything_like_xml_is_an_error_of_one_line(text: str) -> None:
    with pytest.raises(ReportError) as caught:
        parse_report(f"<{text}".encode())
    assert caught.value.message.isprintable()
