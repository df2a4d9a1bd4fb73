"""The LRC's XML, turned into what it writes when an AS asks for JSON.

Namespaces are dropped; numbers are numbers where the JSON form has numbers; an element that occurs more than once is a
list, `Lrr` always; CustomerData, DriverCfg and BaseStationData hold JSON as text. Source: LRC tunnel interface, message
formats. DTDs and entities, which no LRC sends, are refused.
"""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import orjson
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from tpxd.errors import ReportError

MAX_DEPTH = 16

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
        ReportError: it is not well-formed, it has a DTD, or it is nested too deep.
    """
    try:
        root: Element = fromstring(body, forbid_dtd=True)
    except ParseError as error:
        raise ReportError(f"the body is not well-formed XML: {error}") from error
    except DefusedXmlException as error:
        raise ReportError("the XML has a DTD or entities, which no LRC sends") from error
    except (LookupError, ValueError) as error:
        raise ReportError(f"the XML's encoding cannot be read: {error}") from error
    return {_name(root): _value(root, _name(root), depth=1)}


def _value(element: Element, name: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ReportError(f"the XML nests elements more than {MAX_DEPTH} deep")
    if len(element):
        return _fields(element, depth)
    text = (element.text or "").strip()
    if name in _JSON_TEXT:
        return _from_json(text)
    if name in _NUMBERS:
        return _number(text)
    if depth == 1 or name == "Lrrs":
        return {}
    return text


def _fields(element: Element, depth: int) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    repeated = set(_LISTS)
    for child in element:
        name = _name(child)
        value = _value(child, name, depth + 1)
        if name not in fields:
            fields[name] = [value] if name in _LISTS else value
        elif name in repeated:
            fields[name].append(value)
        else:
            fields[name] = [fields[name], value]
            repeated.add(name)
    return fields


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


def _name(element: Element) -> str:
    name: str = element.tag
    return name.rpartition("}")[2]
