"""The simulated LRC's side of downlinks: which it takes, what it says, and what it reports later."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulate.downlinking import DEAF, DEVICES, KEY, NOW_S, PLAIN, lrc, ours, query
from tpxd.simulate.downlink_lrc import (
    AIR_S,
    MAX_QUEUED,
    QUEUE_FULL,
    TOO_OLD,
    Answer,
    Answering,
)
from tpxd.simulate.downlink_rules import QUEUED
from tpxd.simulate.lrc import DEFAULT_AS_ID
from tpxd.simulate.reports import Report
from tpxd.simulate.token import is_signed

# ---- tokens


@given(st.sampled_from(["02ff", "00" * 50]), st.booleans())
def test_what_the_daemon_signs_is_signed(payload: str, confirmed: bool) -> None:
    text = ours(payload_hex=payload, Confirmed=confirmed)
    assert is_signed(text, KEY)
    assert not is_signed(text, KEY[::-1])


@given(st.integers(0, 10_000), st.characters(min_codepoint=33, max_codepoint=126))
def test_whatever_is_changed_is_not_signed_any_more(place: int, character: str) -> None:
    text = ours(CorrelationID="A1", ValidityTime="60")
    changed = text[: place % len(text)] + character + text[place % len(text) + 1 :]
    if unquote(changed) != unquote(text):
        assert not is_signed(changed, KEY)


def test_without_a_token_nothing_is_signed() -> None:
    for text in ("", "Token=", "&Token=", query(), f"{query()}&Token="):
        assert not is_signed(text, KEY)


# ---- rules


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"DevEUI": ""}, "DevEUI is missing"),
        ({"DevEUI": "70B3D5E75EFFFFFF"}, "Unknown DevEUI"),
        ({"FPort": "0"}, "FPort is not allowed"),
        ({"FPort": "225"}, "FPort is not allowed"),
        ({"FPort": "five"}, "FPort is not allowed"),
        ({"FPort": "٥"}, "FPort is not allowed"),
        ({"Payload": ""}, "Payload is missing"),
        ({"Payload": "2ff"}, "Payload is not hexadecimal"),
        ({"Payload": "00" * 243}, "Payload is too long"),
        ({"Confirmed": "yes"}, "Confirmed is not allowed"),
        ({"DevEUI": DEAF, "Confirmed": "1"}, "Confirmed downlinks are not allowed by the connectivity plan"),
        ({"ValidityTime": "tomorrow"}, "ValidityTime is not allowed"),
        ({"CorrelationID": "0" * 17}, "CorrelationID is not a 64-bit number"),
        ({"payload_hex": "00"}, "Unknown parameter payload_hex"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name(fields: dict[str, str], text: str) -> None:
    assert lrc().take(query(**fields), NOW_S) == Answer(350, text)


def test_a_parameter_that_occurs_twice_is_refused() -> None:
    assert lrc().take(f"{query()}&FPort=6", NOW_S) == Answer(350, "A parameter occurs twice")


@pytest.mark.parametrize("fields", [{}, {"Confirmed": "1"}, {"DevEUI": PLAIN.lower()}, {"ValidityTime": "60"}])
def test_right_downlinks_are_queued(fields: dict[str, str]) -> None:
    assert lrc().take(query(**fields), NOW_S) == Answer(200, QUEUED)


def test_security_comes_before_everything_else() -> None:
    strict = lrc(signed=True)
    assert strict.take(ours(), NOW_S) == Answer(200, QUEUED)
    assert strict.take(query(DevEUI=""), NOW_S) == Answer(403, "Security Check. bad AS_ID")
    assert strict.take(query(AS_ID=DEFAULT_AS_ID, FPort="0"), NOW_S) == Answer(401, "Security Check. bad Token")
    for off_s in (-61.0, 61.0):
        assert strict.take(ours(NOW_S + off_s), NOW_S) == Answer(401, "Security Check. bad Time")
    assert strict.counters.to_document() | {"received": 5, "accepted": 1} == strict.counters.to_document()


def test_a_counter_is_used_once_and_the_next_one_is_told() -> None:
    house = lrc()
    first = DEVICES[0].f_cnt_dn
    assert house.take(query(FCntDn=str(first + 5)), NOW_S).status == 200
    said = house.take(query(FCntDn=str(first + 5)), NOW_S)
    assert said == Answer(350, f"Downlink counter value already used. Expected={first + 6}")
    assert house.take(query(AFCntDn=str(first + 6)), NOW_S).status == 200
    assert house.counters.refused == {"Downlink counter value already used.": 1}


# ---- what becomes of them


def fields(report: Report) -> dict[str, Any]:
    assert report.kind == "DevEUI_downlink_Sent"
    return dict(report.fields)


def test_a_device_gets_one_a_second_in_order() -> None:
    house = lrc()
    for n in range(3):
        house.take(query(FPort=str(n + 1), CorrelationID=f"A{n}"), NOW_S)
    house.take(query(DevEUI=DEAF, FPort="9"), NOW_S)
    said = [(moment, fields(report)) for moment in range(5) for report in house.on_air(NOW_S + moment * AIR_S)]
    assert [(moment, one["DevEUI"], one["FPort"]) for moment, one in said] == [
        (0, PLAIN, 1), (0, DEAF, 9), (1, PLAIN, 2), (2, PLAIN, 3),
    ]  # fmt: skip
    assert [one.get("CorrelationID") for _, one in said] == ["A0", None, "A1", "A2"]
    assert all(one["DeliveryStatus"] == 1 for _, one in said)
    assert (house.counters.transmitted, house.counters.accepted) == (4, 4)


def test_what_is_too_old_or_too_many_is_reported_as_not_transmitted() -> None:
    house = lrc()
    house.take(query(ValidityTime="10"), NOW_S)
    (late,) = house.on_air(NOW_S + 11)
    assert (fields(late)["DeliveryStatus"], fields(late)["DeliveryFailedCause1"]) == (0, TOO_OLD)
    for _ in range(MAX_QUEUED + 2):
        house.take(query(), NOW_S + 20)
    causes = [fields(report)["DeliveryFailedCause1"] for report in house.on_air(NOW_S + 20)]
    assert causes == [QUEUE_FULL, QUEUE_FULL, "00"]
    assert house.counters.not_transmitted == {TOO_OLD: 1, QUEUE_FULL: 2}


@given(st.lists(st.tuples(st.sampled_from([PLAIN, DEAF]), st.booleans(), st.integers(0, 3)), max_size=40))
def test_every_accepted_downlink_is_accounted_for(came: list[tuple[str, bool, int]]) -> None:
    house, now_s = lrc(), NOW_S
    for dev_eui, flush, pause_s in came:
        house.take(query(DevEUI=dev_eui, FlushDownlinkQueue="1" if flush else "", ValidityTime="5"), now_s)
        house.on_air(now_s)
        now_s += pause_s
    for _ in range(len(came) + 1):
        now_s += 1
        house.on_air(now_s)
    counters = house.counters
    assert counters.accepted == counters.flushed + counters.transmitted + sum(counters.not_transmitted.values())


def test_a_flush_takes_the_place_of_what_waits() -> None:
    house = lrc()
    for n in range(3):
        house.take(query(FPort=str(n + 1)), NOW_S)
    house.take(query(FPort="9", FlushDownlinkQueue="1"), NOW_S)
    said = [fields(report)["FPort"] for moment in range(5) for report in house.on_air(NOW_S + moment)]
    assert said == [9]
    assert (
        house.counters.to_document() | {"accepted": 4, "flushed": 3, "transmitted": 1} == house.counters.to_document()
    )


def test_doubles_are_counted_by_device_and_correlation_id() -> None:
    house = lrc(answering=Answering.DROP)
    for correlation_id in ("A1", "00000000000000a1", "A2", ""):
        house.take(query(CorrelationID=correlation_id), NOW_S)
    house.take(query(DevEUI=DEAF, CorrelationID="A1"), NOW_S)
    assert (house.counters.accepted, house.counters.doubled, house.counters.unanswered) == (5, 1, 5)


def test_refusing_at_will_queues_nothing() -> None:
    house = lrc(answering=Answering.REFUSE)
    assert house.take(query(), NOW_S).status == 350
    assert house.take(query(FCntDn="9000"), NOW_S).text.endswith("Expected=9001")
    assert house.on_air(NOW_S) == []
    assert (house.counters.received, house.counters.accepted) == (2, 0)
