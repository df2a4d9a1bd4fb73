"""The LRC's XML, turned into what it writes when an AS asks for JSON.

Namespaces and attributes are dropped; numbers are numbers where the JSON form has numbers; an element that occurs more
than once is a list, `Lrr` always; CustomerData, DriverCfg and BaseStationData hold JSON as text. Source: LRC tunnel
interface, message formats.

Theory of operation. expat calls for each element as it reads, so that what no LRC sends is refused where it begins:
DTDs, entities, more elements, depth or attributes than a report has. Prefixes are cut off instead of being expanded,
which costs the length of the namespace for each element. The encoding is chosen here, from a short list: the codecs of
whatever name a stranger thinks up would stay in memory for ever.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Final
from xml.parsers import expat

import orjson

from tpxd.errors import ReportError

MAX_DEPTH: Final = 16
MAX_ELEMENTS: Final = 2_048
MAX_ATTRIBUTES: Final = 8_192
"""Characters of all names and values of attributes together."""

MARKUP: Final = b"<&=\r\n"
"""Where expat begins anew: each costs it time, whatever comes of it."""

ENCODINGS: Final = frozenset({"utf-8", "us-ascii", "iso-8859-1", "windows-1252", "utf-16"})
_DECLARED: Final = re.compile(rb"""<\?xml\s[^>]{0,100}?\sencoding\s*=\s*["']([^"'>]*)""")
_BYTE_ORDER_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")

# fmt: off
_NUMBERS = frozenset({
    "FPort", "FCntUp", "FCntDn", "AFCntDn", "LostUplinksAS", "ADRbit", "ACKbit", "AckRequested", "MType", "SpFact",
    "Spfact", "DevLrrCnt", "Late", "Chain", "NbTrans", "LrrRSSI", "LrrSNR", "LrrESP", "LrrLAT", "LrrLON", "DevLAT",
    "DevLON", "DevAlt", "DevAcc", "DevLocRadius", "DevAltRadius", "DevUlFCntUpUsed", "DevLocDilution", "DevAltDilution",
    "DevNorthVel", "DevEastVel", "NwGeolocAlgo", "NwGeolocAlgoUsed", "NwGeolocTdoaOpt", "InstantPER", "MeanPER",
    "TxPower", "Frequency", "ClassBPeriodicity", "UplinkDC", "UplinkDCSubBand", "MaxWaitASResps", "PayloadEncryption",
    "BatteryLevel", "Margin", "airtime", "DeliveryStatus", "TransmissionSlot", "LrrCnt", "LrrSuccessCnt",
    "LrrFailedCnt",
})
# fmt: on
_JSON_TEXT = frozenset({"CustomerData", "DriverCfg", "BaseStationData"})
_LISTS = frozenset({"Lrr"})
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_DECIMAL = re.compile(r"-?[0-9]{1,40}\.[0-9]{1,40}")


def document_from_xml(body: bytes) -> dict[str, Any]:
    """The document that the JSON form of this XML would parse to.

    Raises:
        ReportError: it is not well-formed, it has a DTD, its encoding is not known, or it is larger than any report.
    """
    reader = _Reader()
    parser = expat.ParserCreate(_encoding(body))
    parser.buffer_text = True
    parser.ordered_attributes = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise ReportError(f"the body is not well-formed XML: {error}") from error
    return reader.document


def _encoding(body: bytes) -> str:
    """What the document is read as, whatever expat would make of its declaration."""
    if body.startswith(_BYTE_ORDER_MARKS):
        return "utf-16"
    declared = _DECLARED.match(body.removeprefix(b"\xef\xbb\xbf"))
    name = "utf-8" if declared is None else declared[1].decode("latin-1").lower()
    if name not in ENCODINGS:
        shown = ascii(name if len(name) <= 40 else name[:37] + "...")
        raise ReportError(f"the XML's encoding {shown} is none of {', '.join(sorted(ENCODINGS))}")
    return name


def _refuse_doctype(*_: object) -> None:
    raise ReportError("the XML has a DTD or entities, which no LRC sends")


@dataclass(slots=True)
class _Element:
    """An element that is open; `fields` is what its children became, None while it has none."""

    name: str
    text: list[str] = field(default_factory=list)
    fields: dict[str, Any] | None = None
    repeated: set[str] = field(default_factory=set)

    def add(self, name: str, value: Any) -> None:
        """Take a child in."""
        if self.fields is None:
            self.fields = {}
        if name not in self.fields:
            self.fields[name] = [value] if name in _LISTS else value
        elif name in _LISTS or name in self.repeated:
            self.fields[name].append(value)
        else:
            self.fields[name] = [self.fields[name], value]
            self.repeated.add(name)

    def value(self, depth: int) -> Any:
        """What it is in JSON."""
        if self.fields is not None:
            return self.fields
        text = "".join(self.text).strip()
        if self.name in _JSON_TEXT:
            return _from_json(text)
        if self.name in _NUMBERS:
            return _number(text)
        if depth == 1 or self.name == "Lrrs":
            return {}
        return text


class _Reader:
    """What expat calls."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {}
        self._open: list[_Element] = []
        self._elements = 0
        self._attributes = 0

    def start(self, name: str, attributes: list[str]) -> None:
        """An element begins."""
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise ReportError(f"the XML has more than {MAX_ELEMENTS} elements")
        if len(self._open) >= MAX_DEPTH:
            raise ReportError(f"the XML nests elements more than {MAX_DEPTH} deep")
        if attributes:
            self._attributes += sum(map(len, attributes))
            if self._attributes > MAX_ATTRIBUTES:
                raise ReportError(f"the XML has more than {MAX_ATTRIBUTES} characters of attributes")
        self._open.append(_Element(name.rpartition(":")[2]))

    def text(self, text: str) -> None:
        """Text of the element that is open."""
        self._open[-1].text.append(text)

    def end(self, _: str) -> None:
        """The element that is open ends."""
        value = self._open[-1].value(len(self._open))
        element = self._open.pop()
        if self._open:
            self._open[-1].add(element.name, value)
        else:
            self.document = {element.name: value}


def _from_json(text: str) -> Any:
    """Data that a customer typed; where it is no JSON, it is carried as the text it is."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _number(text: str) -> int | float | str:
    """A number as the JSON form has it; what is none stays text, for the checks that follow."""
    if _INTEGER.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text
