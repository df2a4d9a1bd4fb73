from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpxd.lorawan.durations import MAX_DURATION_S, format_duration, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("5m", 300.0),
        ("72h", 259_200.0),
        ("2d", 172_800.0),
        ("1h30m", 5_400.0),
        ("2h 5m", 7_500.0),
        ("250ms", 0.25),
        ("1m250ms", 60.25),
        ("1.5h", 5_400.0),
        ("0s", 0.0),
        (" 10s ", 10.0),
        ("36500d", 36_500 * 86_400.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "m",
        "5 m",
        "5M",
        "-5s",
        "+5s",
        "5s5",
        "1h  5m",
        "1,5h",
        "1.h",
        "5 minutes",
        "1e3s",
        "٣s",
        "inf",
        "5s.",
        "1..5s",
    ],
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match='is no duration; write it as "90s"'):
        parse_duration(text)


@pytest.mark.parametrize("text", ["30m1h", "1m1m", "1ms1s"])
def test_units_go_from_large_to_small(text: str) -> None:
    with pytest.raises(ValueError, match="out of order or twice"):
        parse_duration(text)


def test_a_duration_has_a_limit() -> None:
    with pytest.raises(ValueError, match="longer than 36500 days"):
        parse_duration("36500d1ms")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (7_500, "2h 5m"),
        (0, "0s"),
        (0.0004, "0s"),
        (-0.0004, "0s"),
        (0.25, "250ms"),
        (59.9996, "1m"),
        (90_061.5, "1d 1h 1m 1s 500ms"),
        (-90, "-1m 30s"),
    ],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@settings(deadline=None)
@given(st.integers(0, MAX_DURATION_S * 1_000))
def test_what_is_written_is_read_as_the_same(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1_000)) == milliseconds / 1_000


@settings(deadline=None)
@given(st.text(alphabet="0123456789.dhms -+e_", max_size=20))
def test_a_duration_is_read_or_refused(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert 0 <= seconds <= MAX_DURATION_S
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=0.0006)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256 KiB", 262_144),
        ("256KiB", 262_144),
        ("1 GiB", 1 << 30),
        ("1.5 MiB", 1_572_864),
        ("64 kB", 64_000),
        ("2 TB", 2 * 10**12),
        ("512 B", 512),
        ("0 B", 0),
        ("1 gib", 1 << 30),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "256", "KiB", "-1 KiB", "1 XiB", "1  KiB", "1 Ki", "1e3 B", "1 KiB 2 B", "1,5 MiB"]
)
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match='is no size; write it as "256 KiB"'):
        parse_size(text)


def test_a_size_has_a_limit() -> None:
    with pytest.raises(ValueError, match="more than any disk holds"):
        parse_size("999999999 TiB")


@settings(deadline=None)
@given(st.integers(0, 1 << 20), st.sampled_from([("B", 1), ("KiB", 1 << 10), ("MB", 10**6), ("GiB", 1 << 30)]))
def test_a_size_is_number_times_unit(number: int, unit: tuple[str, int]) -> None:
    name, factor = unit
    assert parse_size(f"{number} {name}") == parse_size(f"{number}{name.lower()}") == number * factor
