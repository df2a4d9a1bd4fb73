"""Which uplinks a flow takes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from tpxd.config.flow import Flow
from tpxd.lorawan.uplink import Uplink

DEV_EUI = "70B3D5E75E00A1C4"


def report(kind: str = "DevEUI_uplink", **fields: Any) -> Uplink:
    inner = {"DevEUI": DEV_EUI, "FPort": 5, "CustomerData": {"tags": ["ColdChain", "PlantNorth", "Roof"]}} | fields
    return Uplink(1, 0, kind, DEV_EUI, "", orjson.dumps({kind: inner}))


@pytest.mark.parametrize(
    ("matcher", "uplink", "taken"),
    [
        ({"type": "thing", "tags": ["coldchain", "PLANTNORTH"]}, report(), True),
        ({"type": "thing", "tags": ["ColdChain", "PlantSouth"]}, report(), False),
        ({"type": "thing", "tags": ["ColdChain"]}, report(CustomerData={}), False),
        ({"type": "thing", "tags": ["ColdChain"]}, report(CustomerData="no object"), False),
        ({"type": "thing", "tags": ["ColdChain"]}, report(CustomerData={"tags": [7, None]}), False),
        ({"type": "key", "key": "lora:70b3d5e75e00a1c4"}, report(), True),
        ({"type": "key", "key": "LORA:70B3D5E75E00A1C4"}, report(), True),
        ({"type": "key", "key": "lora:70b3d5e75e00a1c5"}, report(), False),
        ({"type": "fPort", "ports": [2, 5]}, report(), True),
        ({"type": "fPort", "ports": [2, 5]}, report(FPort="5"), True),
        ({"type": "fPort", "ports": [2, 3]}, report(), False),
        ({"type": "fPort", "ports": [0]}, report(FPort=None), False),
        ({"type": "report", "reports": ["DevEUI_location"]}, report("DevEUI_location"), True),
        ({"type": "report", "reports": ["deveui_LOCATION"]}, report("DevEUI_location"), True),
        ({"type": "report", "reports": ["DevEUI_location"]}, report(), False),
        ({"type": "jsonPath", "path": "$..payload[?(@.t > 30)]"}, report(payload=[{"t": 31}]), True),
        ({"type": "jsonPath", "path": "$..payload[?(@.t > 30)]"}, report(payload=[{"t": 29}]), False),
        ({"type": "jsonPath", "path": "$..payload[?(@.t > 30)]"}, report(payload=[{"t": "hot"}]), False),
        ({"type": "jsonPath", "path": "$..payload[?(@.t in 'hot')]"}, report(payload=[{"t": "hot"}]), True),
        ({"type": "jsonPath", "path": "$..payload[?(@.t in 'hot')]"}, report(payload=[{"t": 31}]), False),
        ({"type": "jsonPath", "path": "$.DevEUI_uplink.alarm"}, report(alarm=False), False),
        ({"type": "jsonPath", "path": "$.DevEUI_uplink.alarm"}, report(alarm=None), False),
        ({"type": "jsonPath", "path": "$.DevEUI_uplink.alarm"}, report(alarm=0), True),
    ],
)
def test_a_matcher(matcher: dict[str, Any], uplink: Uplink, taken: bool) -> None:
    assert Flow.model_validate({"matchers": [matcher]}).takes(uplink) is taken


def test_one_of_several_matchers_is_enough() -> None:
    matchers = [{"type": "fPort", "ports": [9]}, {"type": "thing", "tags": ["roof"]}]
    assert Flow.model_validate({"matchers": matchers}).takes(report())


def test_without_matchers_everything_goes_through() -> None:
    assert Flow().takes(report())


@pytest.mark.parametrize(
    ("matcher", "names"),
    [
        ({"type": "tag", "tags": ["x"]}, "thing"),
        ({"type": "thing", "tags": []}, "tags"),
        ({"type": "key", "key": "70b3d5e75e00a1c4"}, "lora:"),
        ({"type": "fPort", "ports": [256]}, "ports"),
        ({"type": "jsonPath", "path": "$..["}, "JSONPath"),
        ({"type": "jsonPath", "path": "$[?@ == 1e9999]"}, "JSONPath"),
        ({"type": "thing", "tags": ["x"], "key": "y"}, "key"),
    ],
)
def test_a_wrong_matcher_is_named(matcher: dict[str, Any], names: str) -> None:
    with pytest.raises(ValidationError, match=names):
        Flow.model_validate({"matchers": [matcher]})
