"""Devices that do not exist, and what an LRC reports of them.

Field names, order and types are those of an LRC's typed JSON. Each device keeps its counters, its radio and its
sensor from report to report, and the same seed gives the same devices.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

CUSTOMER_ID = "100009421"
LRC_ID = "000000D3"
CHANNELS_MHZ = (868.1, 868.3, 868.5, 867.1, 867.3, 867.5, 867.7, 867.9)
GATEWAYS = (
    ("1000A7F2", "Roof GW 3", 50.846557, 4.351697),
    ("1000A801", "Water tower", 50.85301, 4.36014),
    ("1000A8C4", "Hall 2", 50.84102, 4.34488),
)


@dataclass(frozen=True, slots=True)
class Report:
    """One report, ready to be signed: `fields` stands inside the root key `kind`."""

    kind: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Model:
    """A kind of device: where it reports and what it says, as bytes of its own format.

    Attributes:
        acked_downlinks: its connectivity plan has `ackedDownlinkFrame`, so that downlinks to it may be confirmed.
    """

    name: str
    f_port: int
    tag: str
    payload: Callable[[random.Random], bytes]
    acked_downlinks: bool = True


def _climate(chance: random.Random) -> bytes:
    """Cayenne LPP: temperature on channel 1 in 0.1 °C, humidity on channel 2 in 0.5 %."""
    temperature, humidity = round(chance.gauss(215, 30)), round(chance.uniform(60, 140))
    return bytes([1, 0x67]) + temperature.to_bytes(2, "big", signed=True) + bytes([2, 0x68, humidity])


def _door(chance: random.Random) -> bytes:
    """One status byte (bit 0: open) and a 24-bit count of openings."""
    return bytes([chance.randrange(2)]) + chance.randrange(1 << 16).to_bytes(3, "little")


def _meter(chance: random.Random) -> bytes:
    """Energy in Wh and power in W, 32 bits each, big-endian."""
    return chance.randrange(1 << 31).to_bytes(4, "big") + chance.randrange(4_000).to_bytes(4, "big")


def _tracker(chance: random.Random) -> bytes:
    """Latitude and longitude in 1e-5 degrees, 32 bits each, and the battery in 100 mV."""
    latitude, longitude = round(chance.gauss(5_084_670, 900)), round(chance.gauss(435_240, 900))
    return latitude.to_bytes(4, "big") + longitude.to_bytes(4, "big") + bytes([chance.randrange(30, 43)])


MODELS = (
    Model("climate", 2, "Climate", _climate),
    Model("door", 10, "Door", _door),
    Model("meter", 5, "Energy", _meter),
    Model("tracker", 18, "Tracker", _tracker, acked_downlinks=False),
)


def iso_time(moment: datetime) -> str:
    """A moment as the LRC writes it: milliseconds and offset."""
    return moment.isoformat(timespec="milliseconds")


@dataclass(slots=True)
class Device:
    """One device; `number` tells it from the others and chooses its model."""

    number: int
    chance: random.Random
    f_cnt_up: int = 0
    f_cnt_dn: int = 0
    dev_addr: str = field(init=False)

    def __post_init__(self) -> None:
        self._assign_address()
        self.f_cnt_up = self.chance.randrange(1, 5_000)
        self.f_cnt_dn = self.f_cnt_up // 12

    @property
    def dev_eui(self) -> str:
        """Sixteen upper-case hex digits."""
        return f"70B3D5E75E{self.number:06X}"

    @property
    def model(self) -> Model:
        """What it is."""
        return MODELS[self.number % len(MODELS)]

    @property
    def name(self) -> str:
        """What its owner calls it."""
        return f"{self.model.name} {self.number}"

    def uplink(self, now: datetime) -> Report:
        """The next uplink: a higher FCntUp, a new payload, the radio as it happens to be."""
        self.f_cnt_up += 1
        chance = self.chance
        gateways = self._gateways()
        best = gateways[0]
        fields: dict[str, Any] = {
            "Time": iso_time(now),
            "DevEUI": self.dev_eui,
            "FPort": self.model.f_port,
            "FCntUp": self.f_cnt_up,
            "LostUplinksAS": 0,
            "ADRbit": 1,
            "MType": 2,
            "FCntDn": self.f_cnt_dn,
            "payload_hex": self.model.payload(chance).hex(),
            "mic_hex": f"{chance.getrandbits(32):08x}",
            "Lrcid": LRC_ID,
            "LrrRSSI": best["LrrRSSI"],
            "LrrSNR": best["LrrSNR"],
            "LrrESP": best["LrrESP"],
            **self._radio(),
            "Lrrid": best["Lrrid"],
            "Late": 0,
            **self._gateway_place(best["Lrrid"]),
            "Lrrs": {"Lrr": gateways},
            "DevLrrCnt": len(gateways),
            **self._customer(),
            "InstantPER": 0.0,
            "MeanPER": round(chance.uniform(0, 0.02), 6),
            "DevAddr": self.dev_addr,
            "AckRequested": 0,
            "rawMacCommands": "",
            "TxPower": 12.0,
            "NbTrans": 1,
            "Frequency": chance.choice(CHANNELS_MHZ),
            "DynamicClass": "A",
            "PayloadEncryption": 0,
        }
        return Report("DevEUI_uplink", fields)

    def join_request(self, now: datetime) -> Report:
        """A join request: new address, counters from zero. It has no FPort, FCntUp and payload_hex."""
        self._assign_address()
        self.f_cnt_up = self.f_cnt_dn = 0
        eui_on_air = bytes.fromhex(self.dev_eui)[::-1].hex()
        nonce, mic = f"{self.chance.getrandbits(16):04x}", f"{self.chance.getrandbits(32):08x}"
        radio = self._radio()
        gateways = self._gateways()
        fields: dict[str, Any] = {
            "Time": iso_time(now),
            "DevEUI": self.dev_eui,
            "rawJoinRequest": f"00010000d07ed5b370{eui_on_air}{nonce}{mic}",
            "Lrrid": gateways[0]["Lrrid"],
            "Chain": 0,
            "Channel": radio["Channel"],
            "Spfact": radio["SpFact"],
            "SubBand": radio["SubBand"],
            "MType": 0,
            "mic_hex": mic,
            "airtime": 1.482752,
            "Late": 0,
            **self._gateway_place(gateways[0]["Lrrid"]),
            "Lrrs": {"Lrr": gateways},
            **self._customer(),
        }
        return Report("DevEUI_uplink", fields)

    def downlink_sent(self, now: datetime) -> Report:
        """A downlink of some application went on air in RX1."""
        return self.any_downlink_sent(now, self.model.f_port, f"{self.chance.getrandbits(64):016X}")

    def any_downlink_sent(
        self, now: datetime, f_port: int, correlation_id: str | None, *, encrypted: bool = False, failure: str = ""
    ) -> Report:
        """What became of a downlink on air.

        Args:
            encrypted: the application chose the counter and encrypted with it, so that it is counted already.
            failure: the code of why it never was transmitted, such as E3 (its validity ended); "" it went out in RX1.
        """
        if not encrypted and not failure:
            self.f_cnt_dn += 1
        fields: dict[str, Any] = {
            "Time": iso_time(now),
            "DevEUI": self.dev_eui,
            "FPort": f_port,
            "FCntDn": self.f_cnt_dn,
            "FCntUp": self.f_cnt_up,
            "Lrcid": LRC_ID,
            **self._radio(),
            "Lrrid": GATEWAYS[0][0],
            "DeliveryStatus": 0 if failure else 1,
            "DeliveryFailedCause1": failure or "00",
            "DeliveryFailedCause2": failure or "00",
            "DeliveryFailedCause3": failure or "00",
            "CustomerID": CUSTOMER_ID,
            "CustomerData": self._customer()["CustomerData"],
            "TransmissionSlot": 0 if failure else 1,
            "Frequency": self.chance.choice(CHANNELS_MHZ),
        }
        if correlation_id is not None:
            fields["CorrelationID"] = correlation_id
        return Report("DevEUI_downlink_Sent", fields)

    def location(self, now: datetime) -> Report:
        """The network located the device; these reports write its DevEUI in lower case."""
        fields: dict[str, Any] = {
            "DevEUI": self.dev_eui.lower(),
            "DevAddr": self.dev_addr,
            "Lrcid": LRC_ID,
            "NwGeolocAlgo": 2,
            "NwGeolocAlgoUsed": 0,
            "Time": iso_time(now),
            "DevLocTime": iso_time(now),
            "DevLAT": round(self.chance.gauss(50.8467, 0.001), 6),
            "DevLON": round(self.chance.gauss(4.3524, 0.001), 6),
            "DevAlt": 31,
            "DevLocRadius": self.chance.randrange(40, 400),
            "DevAltRadius": 40,
            "DevUlFCntUpUsed": self.f_cnt_up,
            "DevLocDilution": 3,
            "DevAltDilution": 0,
            "DevNorthVel": 0,
            "DevEastVel": 0,
            "CustomerID": CUSTOMER_ID,
            "CustomerData": self._customer()["CustomerData"],
            "ModelCfg": "0",
        }
        return Report("DevEUI_location", fields)

    def notification(self, now: datetime) -> Report:
        """The device answered DevStatusReq: battery 0 to 255 and margin in dB, both as text."""
        fields: dict[str, Any] = {
            "Time": iso_time(now),
            "DevEUI": self.dev_eui,
            "Lrcid": LRC_ID,
            "DevAddr": self.dev_addr,
            "CustomerID": CUSTOMER_ID,
            "CustomerData": self._customer()["CustomerData"],
            "ModelCfg": "0",
            "FCntDn": self.f_cnt_dn,
            "Type": "devstatusans",
            "Var1": str(self.chance.randrange(256)),
            "Var2": str(self.chance.randrange(-32, 32)),
        }
        return Report("DevEUI_notification", fields)

    def any_report(self, now: datetime) -> Report:
        """Mostly uplinks; sometimes one of the other reports."""
        others = (self.join_request, self.downlink_sent, self.location, self.notification)
        makers = (self.uplink, *others)
        return self.chance.choices(makers, weights=(80, 2, 6, 6, 6))[0](now)

    def _assign_address(self) -> None:
        self.dev_addr = f"04{self.chance.getrandbits(24):06X}"

    def _radio(self) -> dict[str, Any]:
        return {
            "SpFact": self.chance.randint(7, 12),
            "SubBand": f"G{self.chance.randrange(2)}",
            "Channel": f"LC{self.chance.randint(1, 8)}",
        }

    def _gateways(self) -> list[dict[str, Any]]:
        """One to three gateways that heard it, best SNR first."""
        heard = self.chance.sample(GATEWAYS, self.chance.randint(1, len(GATEWAYS)))
        snr_db = sorted((round(self.chance.uniform(-12, 10), 2) for _ in heard), reverse=True)
        return [_reception(lrr_id, snr) for (lrr_id, *_), snr in zip(heard, snr_db, strict=True)]

    @staticmethod
    def _gateway_place(lrr_id: str) -> dict[str, float]:
        return next({"LrrLAT": lat, "LrrLON": lon} for known, _, lat, lon in GATEWAYS if known == lrr_id)

    def _customer(self) -> dict[str, Any]:
        model = self.model
        product = {"pId": "example", "mId": model.name, "ver": "1"}
        return {
            "CustomerID": CUSTOMER_ID,
            "CustomerData": {
                "loc": {"lat": "50.8467", "lon": "4.3525"},
                "alr": {"pro": f"EXAMPLE/{model.name.upper()}", "ver": "1"},
                "tags": [model.tag, "Simulated"],
                "doms": [{"n": "Belgium/Brussels", "g": "Site"}],
                "name": self.name,
            },
            "ModelCfg": "0",
            "DriverCfg": {"mod": product, "app": product},
        }


def _reception(lrr_id: str, snr_db: float) -> dict[str, Any]:
    rssi_dbm = float(round(2 * snr_db - 100))
    return {"Lrrid": lrr_id, "Chain": 0, "LrrRSSI": rssi_dbm, "LrrSNR": snr_db, "LrrESP": round(rssi_dbm - 1.5, 2)}


def make_devices(count: int, seed: int) -> list[Device]:
    """So many devices; equal seeds give equal devices with equal reports."""
    return [Device(number, random.Random(f"{seed}/{number}")) for number in range(1, count + 1)]  # noqa: S311
