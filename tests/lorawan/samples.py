"""Reports as an LRC sends them, JSON and XML of the same, composed after the public documentation."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

import orjson

from tpxd.lorawan.uplink import Uplink

UPLINK: dict[str, Any] = {
    "Time": "2025-03-04T09:15:21.902+01:00",
    "DevEUI": "70B3D5E75E00A1C4",
    "FPort": 5,
    "FCntUp": 4211,
    "LostUplinksAS": 0,
    "ADRbit": 1,
    "MType": 2,
    "FCntDn": 318,
    "payload_hex": "016700f1026855",
    "mic_hex": "9c01be47",
    "Lrcid": "000000D3",
    "LrrRSSI": -93.0,
    "LrrSNR": 6.25,
    "LrrESP": -93.92,
    "SpFact": 8,
    "SubBand": "G1",
    "Channel": "LC3",
    "Lrrid": "1000A7F2",
    "Late": 0,
    "LrrLAT": 50.846557,
    "LrrLON": 4.351697,
    "Lrrs": {
        "Lrr": [
            {"Lrrid": "1000A7F2", "Chain": 0, "LrrRSSI": -93.0, "LrrSNR": 6.25, "LrrESP": -93.92},
            {"Lrrid": "1000A801", "Chain": 0, "LrrRSSI": -111.0, "LrrSNR": -3.5, "LrrESP": -116.11},
        ]
    },
    "DevLrrCnt": 2,
    "CustomerID": "100009421",
    "CustomerData": {
        "loc": {"lat": "50.8467", "lon": "4.3525"},
        "alr": {"pro": "ACME/THR", "ver": "2"},
        "tags": ["ColdChain", "PlantNorth"],
        "doms": [{"n": "Belgium/Brussels", "g": "Site"}],
        "name": "Fridge 12",
    },
    "BaseStationData": {"doms": [], "name": "Roof GW 3"},
    "ModelCfg": "1:TPX_3f0c9b1e-6f1d-4d25-9c5f-52b6a7a1d0e8",
    "DriverCfg": {
        "mod": {"pId": "acme", "mId": "thr", "ver": "2"},
        "app": {"pId": "acme", "mId": "thr", "ver": "2"},
    },
    "InstantPER": 0.0,
    "MeanPER": 0.011905,
    "DevAddr": "04A17C3E",
    "AckRequested": 0,
    "rawMacCommands": "",
    "TxPower": 12.0,
    "NbTrans": 1,
    "Frequency": 868.5,
    "DynamicClass": "A",
    "PayloadEncryption": 0,
}

JOIN_REQUEST: dict[str, Any] = {
    "Time": "2025-03-04T06:02:10.118+01:00",
    "DevEUI": "70B3D5E75E00A1C4",
    "rawJoinRequest": "00010000d07ed5b370c4a1005ee7d5b3703a0c5d1f77aa",
    "Lrrid": "1000A7F2",
    "Chain": 0,
    "Channel": "LC1",
    "Spfact": 12,
    "SubBand": "G0",
    "MType": 0,
    "mic_hex": "5d1f77aa",
    "airtime": 1.482752,
    "Late": 0,
    "Lrrs": {"Lrr": [{"Lrrid": "1000A7F2", "LrrRSSI": -70.0, "LrrSNR": 8.0, "LrrESP": -70.64}]},
    "CustomerID": "100009421",
    "CustomerData": {"alr": {"pro": "ACME/THR", "ver": "2"}},
    "ModelCfg": "0",
}

DOWNLINK_SENT: dict[str, Any] = {
    "Time": "2025-03-04T09:15:24.950+01:00",
    "DevEUI": "70B3D5E75E00A1C4",
    "FPort": 5,
    "FCntDn": 318,
    "FCntUp": 4211,
    "Lrcid": "000000D3",
    "SpFact": 12,
    "SubBand": "G3",
    "Channel": "LC254",
    "Lrrid": "1000A7F2",
    "DeliveryStatus": 1,
    "DeliveryFailedCause1": "C0",
    "DeliveryFailedCause2": "00",
    "DeliveryFailedCause3": "00",
    "CustomerID": "100009421",
    "CustomerData": {"alr": {"pro": "ACME/THR", "ver": "2"}, "name": "Fridge 12"},
    "TransmissionSlot": 2,
    "Frequency": 869.525,
    "CorrelationID": "0000A1B2C3D4E5F6",
}

DOWNLINK_REJECTED: dict[str, Any] = {
    "Time": "2025-03-04T09:20:00.412+01:00",
    "DevEUI": "70B3D5E75E00A1C4",
    "FPort": 5,
    "DeliveryStatus": 350,
    "DownlinkRejectionCause": "Downlink counter value already used. Expected=319",
    "CustomerID": "100009421",
}

LOCATION: dict[str, Any] = {
    "DevEUI": "70b3d5e75e00a1c4",
    "DevAddr": "04A17C3E",
    "Lrcid": "000000D3",
    "NwGeolocAlgo": 2,
    "NwGeolocAlgoUsed": 0,
    "Time": "2025-03-04T09:15:30.120+01:00",
    "DevLocTime": "2025-03-04T09:15:21.902+01:00",
    "DevLAT": 50.84672,
    "DevLON": 4.35248,
    "DevAlt": 31,
    "DevLocRadius": 120,
    "DevAltRadius": 40,
    "DevUlFCntUpUsed": 4211,
    "DevLocDilution": 3,
    "DevAltDilution": 0,
    "DevNorthVel": 0,
    "DevEastVel": 0,
    "CustomerID": "100009421",
    "CustomerData": {"name": "Fridge 12"},
    "ModelCfg": "0",
}

NOTIFICATION: dict[str, Any] = {
    "Time": "2025-03-04T09:16:00.004+01:00",
    "DevEUI": "70B3D5E75E00A1C4",
    "Lrcid": "000000D3",
    "DevAddr": "04A17C3E",
    "CustomerID": "100009421",
    "CustomerData": {"name": "Fridge 12"},
    "ModelCfg": "0",
    "FCntDn": 318,
    "Type": "devstatusans",
    "Var1": "212",
    "Var2": "",
}

MULTICAST_SUMMARY: dict[str, Any] = {
    "Time": "2025-03-04T10:00:02.510+01:00",
    "DevEUI": "70B3D5E75E0000FF",
    "DevAddr": "04FF0001",
    "FPort": 3,
    "FCntDn": 17,
    "Lrcid": "000000D3",
    "TransmissionStatus": "PARTIAL",
    "LrrCnt": 24,
    "LrrSuccessCnt": 21,
    "LrrFailedCnt": 3,
    "LrrFailedDistribution": "A3=1,D0=2",
    "CorrelationID": "0000A1B2C3D4E5F7",
    "CustomerID": "100009421",
    "CustomerData": {"name": "Lamps A"},
}

DEVICE_ALARM: dict[str, Any] = {
    "ID": "104",
    "State": "3",
    "CreationTime": "2025-03-04T10:00:00.000+01:00",
    "DevEUI": "70B3D5E75E00A1C4",
    "CustomerID": "100009421",
    "CustomerData": {"name": "Fridge 12"},
}

BASE_STATION_ALARM: dict[str, Any] = {
    "ID": "201",
    "State": "2",
    "CreationTime": "2025-03-04T10:00:00.000+01:00",
    "LrrID": "1000a7f2",
    "PartnerID": "tpe",
    "BaseStationData": {"doms": [], "name": "Roof GW 3"},
}

REPORTS: list[tuple[str, dict[str, Any]]] = [
    ("DevEUI_uplink", UPLINK),
    ("DevEUI_uplink", JOIN_REQUEST),
    ("DevEUI_downlink_Sent", DOWNLINK_SENT),
    ("DevEUI_downlink_Rejected", DOWNLINK_REJECTED),
    ("DevEUI_location", LOCATION),
    ("DevEUI_notification", NOTIFICATION),
    ("DevEUI_multicast_summary", MULTICAST_SUMMARY),
    ("DevEUI_alarm", DEVICE_ALARM),
    ("BS_alarm", BASE_STATION_ALARM),
    ("DevEUI_of_tomorrow", {"DevEUI": "70B3D5E75E00A1C4", "News": "x"}),
]


def as_json(kind: str, fields: dict[str, Any]) -> bytes:
    """The report as the LRC's JSON."""
    return orjson.dumps({kind: fields})


def as_xml(kind: str, fields: dict[str, Any]) -> bytes:
    """The report as the LRC's XML: numbers with six decimals, customers' data as JSON text."""
    inner = "".join(_element(name, value) for name, value in fields.items())
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    return f'{head}<{kind} xmlns="http://uri.actility.com/lora">{inner}</{kind}>'.encode()


def _element(name: str, value: Any) -> str:
    match value:
        case list():
            return "".join(_element(name, item) for item in value)
        case dict() if name in {"CustomerData", "DriverCfg", "BaseStationData"}:
            text = escape(orjson.dumps(value).decode())
        case dict():
            text = "".join(_element(inner, item) for inner, item in value.items())
        case float():
            text = f"{value:.6f}"
        case _:
            text = escape(str(value))
    return f"<{name}>{text}</{name}>"


def uplink(kind: str = "DevEUI_uplink", **fields: Any) -> Uplink:
    """A stored report with these fields."""
    return Uplink(1, 0, kind, "70B3D5E75E00A1C4", "", orjson.dumps({kind: fields}))
