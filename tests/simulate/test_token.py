"""The simulated LRC signs as the published samples do."""

from __future__ import annotations

from typing import Any

import pytest

from tpxd.simulate.token import is_signed, sign

KPN_KEY = "c6f5e3b263092120b8766b9aed9c41b4"
OWN_KEY = "7d1e9a40c3b85f2206e4d7913ab6f85c"
KPN = {"CustomerID": "100000001", "DevEUI": "0059AC0000000001"}
FRIDGE = {"CustomerID": "100009421", "DevEUI": "70B3D5E75E00A1C4", "FPort": 5}


def query(dev_eui: str, f_port: int, infos: str, as_id: str, time: str) -> list[tuple[str, str]]:
    return [("LrnDevEui", dev_eui), ("LrnFPort", str(f_port)), ("LrnInfos", infos), ("AS_ID", as_id), ("Time", time)]


def fridge_query(f_port: int, number: int, time: str, dev_eui: str = "70B3D5E75E00A1C4") -> list[tuple[str, str]]:
    as_id = "TWA_100009421.77.AS"
    return query(dev_eui, f_port, f"{as_id}-1-{number}", as_id, f"2025-03-04T09:{time}+01:00")


VECTORS = {
    "Actility's integration samples": (
        "DevEUI_uplink",
        {
            "CustomerID": "100002167",
            "DevEUI": "20635F0108000496",
            "FPort": 17,
            "FCntUp": 18,
            "payload_hex": "032ce4850919d85d4c9f793ad148d24f32f3c6b5488f5a087cbeb1488f5a998c83ab",
        },
        query(
            "20635F0108000496",
            17,
            "TWA_100002167.1111.AS-1-111974",
            "TWA_100002167.1111.AS",
            "2021-04-07T08:49:51.551+00:00",
        ),
        "f3203a20a2e8dfaf6686b621f56d05e3",
        "196c22898bf95fcf48b72be198c89256410660b9b514539651344baa594ad74f",
    ),
    "the tunnel guide, a key in mixed case": (
        "DevEUI_uplink",
        {
            "CustomerID": "100000507",
            "DevEUI": "000000000F1D8693",
            "FPort": 2,
            "FCntUp": 7011,
            "payload_hex": "0027bd00",
        },
        query("000000000F1D8693", 2, "UPHTTP_LAB_LORA", "app1.sample.com", "2016-01-11T14:11:11.333+02:00"),
        "46ab678cd45df4a4e4b375Eacd096acc",
        "fd0b0b00464aa798a59282d64eaa70813e33bff87682880db49638569d096aad",
    ),
    "KPN, uplink": (
        "DevEUI_uplink",
        {**KPN, "FPort": 1, "FCntUp": 1, "payload_hex": "000102030405"},
        query(
            "0059AC0000000001",
            1,
            "TWA_100000001.999.AS-1-12345678",
            "TWA_100000001.999",
            "2018-01-12T10:00:00.000+01:00",
        ),
        KPN_KEY,
        "5b7ec8b0b2c250fc792c76348de3b16ff04e27050baf8a37c891dcc85e88b0d4",
    ),
    "KPN, location": (
        "DevEUI_location",
        KPN,
        query(
            "0059ac0000000001",
            0,
            "TWA_100000001.999.AS-1-12345678",
            "TWA_100000001.999",
            "2018-01-12T10:00:00.000+01:00",
        ),
        KPN_KEY,
        "d23b3507663d817c77d124cfbe4f1d5a67ba957e91471b39512b8f103fe46a17",
    ),
    "uplink": (
        "DevEUI_uplink",
        {**FRIDGE, "FCntUp": 4211, "payload_hex": "016700f1026855"},
        fridge_query(5, 884120, "15:22.481"),
        OWN_KEY,
        "e4f32380a9c2b5cf19e6011b018f7f0b08ba825b7478970b3459cd15fc006a8b",
    ),
    "sent downlink": (
        "DevEUI_downlink_Sent",
        {**FRIDGE, "FCntDn": 318},
        fridge_query(5, 884121, "15:25.007"),
        OWN_KEY,
        "bbad642bd60ec27211063584182e935fb3859cf5c83dac66be07b54de59e8aa0",
    ),
    "location": (
        "DevEUI_location",
        FRIDGE,
        fridge_query(0, 884122, "15:31.900", dev_eui="70b3d5e75e00a1c4"),
        OWN_KEY,
        "fe5cc3e51da678107c612a6308ae1c08bacc691566d0137b48b063a3d1e10fe1",
    ),
    "notification": (
        "DevEUI_notification",
        FRIDGE,
        fridge_query(0, 884123, "16:00.000"),
        OWN_KEY,
        "9dfe451e9c587deb5d50a801c2013029d4ad1b51947e3f5f543c34e4383e8616",
    ),
}


@pytest.mark.parametrize(("kind", "fields", "pairs", "key", "token"), VECTORS.values(), ids=VECTORS.keys())
def test_published_vectors(
    kind: str, fields: dict[str, Any], pairs: list[tuple[str, str]], key: str, token: str
) -> None:
    assert sign(kind, fields, pairs, key) == token


COMMANDS = {
    "the classic guide's sample": (
        "DevEUI=000000000F1D8693&FPort=1&Payload=00&AS_ID=app1.sample.com&Time=2016-01-11T14:28:00.333+02:00",
        "46ab678cd45df4a4e4b375Eacd096acc",
        "ea8f31d2299cbece8e180a3012766c4df15fe3cf2e142d9fdf4035b5894ec886",
    ),
    "all flags": (
        (
            "DevEUI=70B3D5E75E00A1C4&FPort=5&Payload=02ff&Confirmed=1&FlushDownlinkQueue=1&AS_ID=TWA_100009421.77.AS&"
            "Time=2025-03-04T08:20:00.000+00:00&CorrelationID=0000A1B2C3D4E5F6"
        ),
        OWN_KEY,
        "1601ee7ab0d29dcb494c37855f04524c5ccf31e75c50c649d33b046a21bab747",
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_tokens_of_downlinks(name: str) -> None:
    pairs, key, token = COMMANDS[name]
    assert is_signed(f"{pairs.replace(':', '%3A').replace('+', '%2B')}&Token={token}", key)
    assert not is_signed(f"{pairs}&Token={token}", key), "a plus that is not encoded is a space"
