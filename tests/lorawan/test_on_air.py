"""What became of a downlink on the air, in words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpxd.lorawan.on_air import CAUSES, cause_in_words, in_words, went_well


@pytest.mark.parametrize(
    ("fields", "well", "words"),
    [
        ({"DeliveryStatus": 1}, True, "transmitted"),
        ({}, True, "transmitted"),
        (
            {"DeliveryStatus": "1", "TransmissionSlot": 2, "DeliveryFailedCause1": "C0", "DeliveryFailedCause2": "00"},
            True,
            "transmitted in RX2: RX1 C0, the LRC chose RX2",
        ),
        (
            {"DeliveryStatus": 0, "DeliveryFailedCause1": "a3", "DeliveryFailedCause3": "DC", "TransmissionSlot": 0},
            False,
            "not transmitted: RX1 a3, the radio is busy; the ping slot DC, no base station with GPS time",
        ),
        (
            {"DeliveryStatus": "0", "DeliveryFailedCause2": "77", "DeliveryFailedCause4": ""},
            False,
            "not transmitted: RX2 77",
        ),
        (
            {"TransmissionStatus": "SUCCESS", "LrrCnt": "3", "LrrSuccessCnt": 3},
            True,
            "transmitted, by 3 of 3 base stations",
        ),
        (
            {"TransmissionStatus": "PARTIAL", "LrrCnt": 9, "LrrSuccessCnt": 1, "LrrFailedDistribution": "A3=2,77=6"},
            False,
            "transmitted in part, by 1 of 9 base stations: 2 × A3, the radio is busy; 6 × 77",
        ),
        ({"TransmissionStatus": "ABORTED"}, False, "given up"),
        ({"TransmissionStatus": "LATER"}, False, "TransmissionStatus LATER"),
    ],
)
def test_reports_in_words(fields: dict[str, Any], well: bool, words: str) -> None:
    assert (went_well(fields), in_words(fields)) == (well, words)


def test_every_documented_code_is_explained() -> None:
    documented = "A0 A1 A2 A3 A4 A5 A6 B0 C0 D0 DA DB DC DD DE DF E0 E1 E2 E3 E4"
    assert documented.split() == list(CAUSES)
    assert cause_in_words("no code") == "no code"


@given(
    st.dictionaries(
        st.sampled_from(["DeliveryStatus", "TransmissionStatus", "DeliveryFailedCause1", "LrrFailedDistribution"]),
        st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.sampled_from(sorted(CAUSES)),
    )
)
def test_whatever_a_report_holds_it_can_be_told(fields: dict[str, Any]) -> None:
    assert in_words(fields)
