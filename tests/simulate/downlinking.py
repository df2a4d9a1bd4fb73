"""A simulated LRC that takes downlinks, and downlinks as tpxd and strangers send them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson

from tpxd.lorawan.downlink_request import Signing, downlink_query
from tpxd.lorawan.downlinks import Downlink as Asked
from tpxd.lorawan.downlinks import parse_downlink
from tpxd.simulate.downlink_lrc import (
    Answering,
    DownlinkCounters,
    DownlinkLrc,
)
from tpxd.simulate.downlink_rules import Rules
from tpxd.simulate.lrc import DEFAULT_AS_ID, Signature
from tpxd.simulate.reports import make_devices

KEY = "7d1e9a40c3b85f2206e4d7913ab6f85c"
NOW_S = 1_795_000_000.0
DEVICES = make_devices(8, 1)
PLAIN, DEAF = "70B3D5E75E000001", "70B3D5E75E000003"
"""A device whose plan takes confirmed downlinks, and one whose plan does not."""


def lrc(*, signed: bool = False, answering: Answering = Answering.OK) -> DownlinkLrc:
    devices = {device.dev_eui: device for device in make_devices(8, 1)}
    signature = Signature(DEFAULT_AS_ID, KEY) if signed else None
    return DownlinkLrc(Rules(devices, signature), DownlinkCounters(), answering)


def query(**fields: str) -> str:
    named = {"DevEUI": PLAIN, "FPort": "5", "Payload": "02ff"} | fields
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in named.items() if value)


def ours(now_s: float = NOW_S, **fields: Any) -> str:
    """What tpxd itself would send, signed."""
    asked = {"DevEUI": PLAIN, "FPort": 5, "payload_hex": "02ff"} | fields
    wanted = parse_downlink(orjson.dumps({"DevEUI_downlink": asked}), default_port=None, now_s=now_s)
    assert isinstance(wanted, Asked)
    return downlink_query(wanted, Signing(DEFAULT_AS_ID, KEY), now_s)
