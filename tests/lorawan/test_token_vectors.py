"""Tokens of reports and downlinks that are known to be right: the vectors of the tunnel interface."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.lorawan.samples import (
    DOWNLINK_SENT,
    LOCATION,
    NOTIFICATION,
    UPLINK,
    as_json,
    as_xml,
)
from tests.lorawan.signing import AS, KEY_C, KEY_E, Pairs, pairs_of, verify
from tpxd.errors import TokenError
from tpxd.lorawan.reports import parse_report
from tpxd.lorawan.token import TokenCheck, downlink_token, uplink_token

KEY_D = "c6f5e3b263092120b8766b9aed9c41b4"


def _uplink(customer: str, dev_eui: str, port: int, counter: int, payload: str) -> dict[str, Any]:
    return {"CustomerID": customer, "DevEUI": dev_eui, "FPort": port, "FCntUp": counter, "payload_hex": payload}


VECTORS = [
    pytest.param(
        "DevEUI_uplink",
        _uplink(
            "100002167",
            "20635F0108000496",
            17,
            18,
            "032ce4850919d85d4c9f793ad148d24f32f3c6b5488f5a087cbeb1488f5a998c83ab",
        ),
        pairs_of(
            "20635F0108000496",
            17,
            "TWA_100002167.1111.AS-1-111974",
            "TWA_100002167.1111.AS",
            "2021-04-07T08:49:51.551+00:00",
        ),
        "f3203a20a2e8dfaf6686b621f56d05e3",
        "196c22898bf95fcf48b72be198c89256410660b9b514539651344baa594ad74f",
        id="a",
    ),
    pytest.param(
        "DevEUI_uplink",
        _uplink("100000507", "000000000F1D8693", 2, 7011, "0027bd00"),
        pairs_of("000000000F1D8693", 2, "UPHTTP_LAB_LORA", "app1.sample.com", "2016-01-11T14:11:11.333+02:00"),
        KEY_C,
        "fd0b0b00464aa798a59282d64eaa70813e33bff87682880db49638569d096aad",
        id="c",
    ),
    pytest.param(
        "DevEUI_uplink",
        _uplink("100000001", "0059AC0000000001", 1, 1, "000102030405"),
        pairs_of(
            "0059AC0000000001",
            1,
            "TWA_100000001.999.AS-1-12345678",
            "TWA_100000001.999",
            "2018-01-12T10:00:00.000+01:00",
        ),
        KEY_D,
        "5b7ec8b0b2c250fc792c76348de3b16ff04e27050baf8a37c891dcc85e88b0d4",
        id="d1",
    ),
    pytest.param(
        "DevEUI_location",
        {"CustomerID": "100000001", "DevEUI": "0059AC0000000001"},
        pairs_of(
            "0059ac0000000001",
            0,
            "TWA_100000001.999.AS-1-12345678",
            "TWA_100000001.999",
            "2018-01-12T10:00:00.000+01:00",
        ),
        KEY_D,
        "d23b3507663d817c77d124cfbe4f1d5a67ba957e91471b39512b8f103fe46a17",
        id="d3",
    ),
    pytest.param(
        "DevEUI_uplink",
        _uplink("100006356", "0059AC0000180000", 1, 17, "2030"),
        pairs_of("0059AC0000180000", 1, "TWA_100006356.246.AS-1-8402463", "KPN.developer", "2018-02-09T12:21:44.928Z"),
        "c6f5e3b2-6309-2120-b876-6b9aed9c41b4",
        "127804619c039326a75c68327751917e9abc1bfed2d036aa58aca37038583e99",
        id="d4",
    ),
    pytest.param(
        "DevEUI_uplink",
        UPLINK,
        pairs_of("70B3D5E75E00A1C4", 5, f"{AS}-1-884120", AS, "2025-03-04T09:15:22.481+01:00"),
        KEY_E,
        "e4f32380a9c2b5cf19e6011b018f7f0b08ba825b7478970b3459cd15fc006a8b",
        id="e",
    ),
    pytest.param(
        "DevEUI_downlink_Sent",
        DOWNLINK_SENT,
        pairs_of("70B3D5E75E00A1C4", 5, f"{AS}-1-884121", AS, "2025-03-04T09:15:25.007+01:00"),
        KEY_E,
        "bbad642bd60ec27211063584182e935fb3859cf5c83dac66be07b54de59e8aa0",
        id="f",
    ),
    pytest.param(
        "DevEUI_location",
        LOCATION,
        pairs_of("70b3d5e75e00a1c4", 0, f"{AS}-1-884122", AS, "2025-03-04T09:15:31.900+01:00"),
        KEY_E,
        "fe5cc3e51da678107c612a6308ae1c08bacc691566d0137b48b063a3d1e10fe1",
        id="g",
    ),
    pytest.param(
        "DevEUI_notification",
        NOTIFICATION,
        pairs_of("70B3D5E75E00A1C4", 0, f"{AS}-1-884123", AS, "2025-03-04T09:16:00.000+01:00"),
        KEY_E,
        "9dfe451e9c587deb5d50a801c2013029d4ad1b51947e3f5f543c34e4383e8616",
        id="h",
    ),
]


@pytest.mark.parametrize(("kind", "fields", "pairs", "key", "token"), VECTORS)
def test_the_vectors_of_the_tunnel_interface(
    kind: str, fields: dict[str, Any], pairs: Pairs, key: str, token: str
) -> None:
    assert uplink_token(kind, fields, pairs, key) == token
    as_id, time = pairs[3][1], pairs[4][1]
    check = TokenCheck({"other": KEY_C, as_id: key}, 0.0)
    query = urlencode([*pairs, ("Token", token)])
    now_s = datetime.fromisoformat(time).timestamp()
    for body in (as_json(kind, fields), as_xml(kind, fields)):
        verify(check, query, parse_report(body), now_s)
    with pytest.raises(TokenError, match=f"Token of AS_ID '{as_id}' does not fit this {kind}"):
        verify(check, query.replace("LrnInfos=", "LrnInfos=x"), parse_report(as_json(kind, fields)), now_s)


def test_the_request_as_it_is_written_in_the_documentation() -> None:
    query = (
        "LrnDevEui=70B3D5E75E00A1C4&LrnFPort=5&LrnInfos=TWA_100009421.77.AS-1-884120&AS_ID=TWA_100009421.77.AS"
        "&Time=2025-03-04T09%3A15%3A22.481%2B01%3A00"
        "&Token=e4f32380a9c2b5cf19e6011b018f7f0b08ba825b7478970b3459cd15fc006a8b"
    )
    verify(TokenCheck({AS: KEY_E}, 60.0), query, parse_report(as_json("DevEUI_uplink", UPLINK)), 1741076122.0)


@pytest.mark.parametrize(
    ("pairs", "key", "token"),
    [
        (
            "DevEUI=000000000F1D8693&FPort=1&Payload=00&AS_ID=app1.sample.com&Time=2016-01-11T14:28:00.333+02:00",
            KEY_C,
            "ea8f31d2299cbece8e180a3012766c4df15fe3cf2e142d9fdf4035b5894ec886",
        ),
        (
            f"DevEUI=70B3D5E75E00A1C4&FPort=5&Payload=02ff&AS_ID={AS}&Time=2025-03-04T09:20:00.000+01:00",
            KEY_E,
            "28017bf2edf388d383a117ed18170f7e9268b4779400809ef32acd3d363b951a",
        ),
        (
            (
                "DevEUI=70B3D5E75E00A1C4&FPort=5&Payload=02ff&Confirmed=1&FlushDownlinkQueue=1"
                "&AS_ID=TWA_100009421.77.AS&Time=2025-03-04T08:20:00.000+00:00&CorrelationID=0000A1B2C3D4E5F6"
            ),
            KEY_E,
            "1601ee7ab0d29dcb494c37855f04524c5ccf31e75c50c649d33b046a21bab747",
        ),
    ],
)
def test_the_vectors_of_downlinks(pairs: str, key: str, token: str) -> None:
    assert (
        downlink_token([(name, value) for name, _, value in (p.partition("=") for p in pairs.split("&"))], key) == token
    )
