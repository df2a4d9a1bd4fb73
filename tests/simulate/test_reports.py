"""What simulated devices report looks like what an LRC sends."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime

import pytest

from tpxd.simulate.reports import MODELS, make_devices

NOW = datetime(2025, 3, 4, 9, 15, 21, 902_000, tzinfo=UTC)


def test_each_model_reports_on_its_port_with_its_tag() -> None:
    devices = make_devices(len(MODELS), seed=1)
    assert len({device.dev_eui for device in devices}) == len(MODELS)
    for device in devices:
        fields = device.uplink(NOW).fields
        assert fields["DevEUI"] == device.dev_eui
        assert fields["FPort"] == device.model.f_port
        assert device.model.tag in fields["CustomerData"]["tags"]
        assert fields["Time"] == "2025-03-04T09:15:21.902+00:00"
        assert bytes.fromhex(fields["payload_hex"])


def test_the_counter_rises_by_one_and_a_join_begins_anew() -> None:
    (device,) = make_devices(1, seed=1)
    first, second = (device.uplink(NOW).fields for _ in range(2))
    assert second["FCntUp"] == first["FCntUp"] + 1
    joined = device.join_request(NOW).fields
    assert joined["MType"] == 0
    assert not {"FPort", "FCntUp", "payload_hex"} & joined.keys()
    third = device.uplink(NOW).fields
    assert third["FCntUp"] == 1
    assert third["DevAddr"] != second["DevAddr"]


def test_a_join_request_holds_the_dev_eui_and_the_mic_as_they_are_on_air() -> None:
    (device,) = make_devices(1, seed=1)
    fields = device.join_request(NOW).fields
    frame = bytes.fromhex(fields["rawJoinRequest"])
    assert len(frame) == 23
    assert frame[0] == 0
    assert frame[9:17][::-1].hex().upper() == device.dev_eui
    assert frame[-4:].hex() == fields["mic_hex"]


def test_the_best_gateway_stands_first_and_above() -> None:
    for device in make_devices(50, seed=3):
        fields = device.uplink(NOW).fields
        heard = fields["Lrrs"]["Lrr"]
        assert fields["Lrrid"] == heard[0]["Lrrid"]
        assert fields["LrrSNR"] == max(lrr["LrrSNR"] for lrr in heard)
        assert len({lrr["Lrrid"] for lrr in heard}) == len(heard) == fields["DevLrrCnt"]


def test_location_writes_the_dev_eui_in_lower_case() -> None:
    (device,) = make_devices(1, seed=1)
    assert device.location(NOW).fields["DevEUI"] == device.dev_eui.lower()


def test_mixed_reports_are_mostly_uplinks_with_some_of_each_other_kind() -> None:
    (device,) = make_devices(1, seed=1)
    kinds = Counter(device.any_report(NOW).kind for _ in range(1_000))
    assert set(kinds) == {"DevEUI_uplink", "DevEUI_downlink_Sent", "DevEUI_location", "DevEUI_notification"}
    assert 700 < kinds["DevEUI_uplink"] < 900


def test_a_seed_decides_everything() -> None:
    first, same, other = (
        [device.any_report(NOW) for device in make_devices(20, seed=seed) for _ in range(5)] for seed in (7, 7, 8)
    )
    assert first == same
    assert first != other


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_payloads_are_always_valid_bytes_of_one_length(model: object) -> None:
    found = next(candidate for candidate in MODELS if candidate is model)
    chance = random.Random(5)
    assert len({len(found.payload(chance)) for _ in range(2_000)}) == 1
