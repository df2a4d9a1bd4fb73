"""The query that imitates the LRC, judged by the check that intake uses and by a published vector."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import parse_qsl

import orjson
import pytest

from tests.lorawan.signing import verify
from tpxd.lorawan.reports import parse_report
from tpxd.lorawan.token import TokenCheck, tunnel_query
from tpxd.lorawan.uplink import Uplink

KEY = "f3203a20a2e8dfaf6686b621f56d05e3"
AS_ID = "TWA_100002167.1111.AS"
FIELDS = {
    "CustomerID": "100002167",
    "DevEUI": "20635F0108000496",
    "FPort": 17,
    "FCntUp": 18,
    "payload_hex": "032ce4850919d85d4c9f793ad148d24f32f3c6b5488f5a087cbeb1488f5a998c83ab",
}
AT = datetime.fromisoformat("2021-04-07T08:49:51.551+00:00")


def stored(kind: str = "DevEUI_uplink", infos: str = f"{AS_ID}-1-111974", **more: object) -> Uplink:
    body = orjson.dumps({kind: FIELDS | more})
    report = parse_report(body)
    return Uplink(7, 0, report.kind, report.lane, infos, body)


def test_signs_as_the_published_sample() -> None:
    query = tunnel_query(stored(), as_id=AS_ID, key=KEY, now=AT)
    assert [name for name, _ in parse_qsl(query)] == ["LrnDevEui", "LrnFPort", "LrnInfos", "AS_ID", "Time", "Token"]
    assert dict(parse_qsl(query))["Token"] == "196c22898bf95fcf48b72be198c89256410660b9b514539651344baa594ad74f"
    assert "%2B00%3A00" in query


@pytest.mark.parametrize("kind", ["DevEUI_uplink", "DevEUI_location", "DevEUI_notification", "DevEUI_downlink_Sent"])
def test_a_server_that_checks_tokens_lets_it_in(kind: str) -> None:
    uplink = stored(kind, FCntDn=3)
    query = tunnel_query(uplink, as_id=AS_ID, key=KEY, now=AT)
    verify(TokenCheck({AS_ID: KEY}, 60.0), query, parse_report(uplink.body), AT.timestamp())


def test_without_a_key_it_is_not_signed() -> None:
    assert [n for n, _ in parse_qsl(tunnel_query(stored(), as_id="", key=None))] == [
        "LrnDevEui",
        "LrnFPort",
        "LrnInfos",
    ]


def test_what_the_lrc_did_not_say_is_made_up() -> None:
    assert dict(parse_qsl(tunnel_query(stored(infos=""), as_id=AS_ID, key=None)))["LrnInfos"] == f"{AS_ID}-1-7"
