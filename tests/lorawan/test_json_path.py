"""JSONPath over whatever a report holds: a path that is one never fails, it finds something or nothing."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lorawan.samples import uplink
from tpxd.errors import TooSlow
from tpxd.lorawan import json_path
from tpxd.lorawan.bounded_regex import BoundedRegex, Budget, survey
from tpxd.lorawan.json_path import JsonPath
from tpxd.lorawan.uplink import Uplink

PATHS = [
    "$..t", "$..[?@.t]", "$..[?@.t > 30]", "$..[?@.t <= @.u]", "$..[?@.t == @.u]", "$..[?@.t in 'abc']",
    "$..[?@.t in ['a', 1]]", "$..[?@.t contains 1]", "$..[?@.t contains 'a']", "$..[?@.t contains @.u]",
    "$..[?@.t =~ /a.*/i]", "$..[?length(@.t) > 1]", "$..[?count(@.*) > 1]", "$..[?match(@.t, 'a.*')]",
    "$..[?search(@.t, '[a-c]')]", "$..[?value(@..t) == 1]", "$..[?typeof(@.t) == 'string']",
    "$..[?isinstance(@.t, 'number')]", "$..[?@.t && !@.u || @.t != null]", "$..t[0:9:0]", "$..t[-1]", "$..~",
    "$..[?# == 't']", "$..t | $..u", "$..t & $..u",
]  # fmt: skip

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", "abc", "["]) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("tuv"), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(path=st.sampled_from([JsonPath(path) for path in PATHS]), fields=st.dictionaries(st.sampled_from("tuv"), values))
def test_no_report_makes_a_path_fail(path: JsonPath, fields: dict[str, Any]) -> None:
    for value in path.values(uplink(**fields)):
        assert value is None or isinstance(value, bool | int | float | str | list | dict)


def test_values_come_in_order_up_to_what_cannot_be_compared() -> None:
    report = uplink(tags=["x", "abc", "b", 7, "c"])
    assert list(JsonPath("$..tags[?@ in 'abc']").values(report)) == ["abc", "b"]
    assert list(JsonPath("$..tags[?@ =~ /[a-c]+/]").values(report)) == ["abc", "b", "c"]


@pytest.mark.parametrize(
    "text",
    [
        "$..[", "$..[?@.t =~ /(/]", "$[?@ == 1e9999]", "$[99999999999999999999]", "$ x", "$..[?search(@.t, '[')]",
        "$..[?match(@.t, @.u)]", "$..[?@.t =~ /a{1001}/]", "$..[?@.t =~ /(?:(?:a{99}-){99}){99}/]",
    ],
)  # fmt: skip
def test_what_is_no_path_says_so_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="is no JSONPath: ") as caught:
        JsonPath(text)
    assert "\n" not in str(caught.value)


SLOW = "$..tags[?(@ =~ /(a|aa)+c/)]"
"""An expression that takes minutes on a text of a hundred a."""


def tagged(*tags: str, lane: str = "70B3D5E75E00A1C4") -> Uplink:
    document = {"DevEUI_uplink": {"DevEUI": lane, "tags": tags}}
    return Uplink(1, 0, "DevEUI_uplink", lane, "", orjson.dumps(document))


@pytest.mark.parametrize(
    "path", [SLOW, "$..tags[?match(@, '(a|aa)+c')]", "$..tags[?search(@, '^(a|aa)+c')]", "$..[?@ =~ /(a|aa)+c/] | $.x"]
)
def test_what_would_take_minutes_ends_after_50_ms(path: str) -> None:
    begun = time.thread_time()
    with pytest.raises(TooSlow, match="longer than 50 ms"):
        list(JsonPath(path).values(tagged("a" * 900)))
    assert time.thread_time() - begun < 1


def test_all_expressions_of_an_evaluation_share_the_50_ms() -> None:
    """Each tag alone would take some ms."""
    begun = time.thread_time()
    with pytest.raises(TooSlow):
        list(JsonPath("$..tags[?(@ =~ /(a|aa)+c/)]").values(tagged(*["a" * 22] * 10_000)))
    assert time.thread_time() - begun < 1


def test_three_overruns_give_a_device_ten_minutes_of_rest() -> None:
    now = 0.0
    path = JsonPath(SLOW, monotonic=lambda: now)
    harmless, other = tagged("aac"), tagged("aac", lane="70B3D5E75E00A1C5")

    def overrun() -> None:
        with pytest.raises(TooSlow, match="longer than"):
            list(path.values(tagged("a" * 900)))

    overrun()
    now = 601.0
    overrun()
    overrun()
    assert list(path.values(harmless)) == ["aac"], "the first one is forgotten after ten minutes"
    overrun()
    for later in (602.0, 1_200.0):
        now = later
        with pytest.raises(TooSlow, match="rests"):
            list(path.values(harmless))
        assert list(path.values(other)) == ["aac"]
    now = 1_202.0
    assert list(path.values(harmless)) == ["aac"]


def test_devices_that_overrun_are_forgotten_beyond_a_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_path, "MAX_LANES", 2)
    path = JsonPath(SLOW)
    lanes = [f"70B3D5E75E00A1{n:02X}" for n in range(3)]
    for lane in lanes:
        for _ in range(3):
            with pytest.raises(TooSlow, match="longer"):
                list(path.values(tagged("a" * 900, lane=lane)))
    assert list(path.values(tagged("aac", lane=lanes[0]))) == ["aac"]
    with pytest.raises(TooSlow, match="rests"):
        list(path.values(tagged("aac", lane=lanes[1])))


def test_a_text_is_cut_at_a_thousand_characters() -> None:
    assert list(JsonPath("$..tags[?search(@, 'b')]").values(tagged("a" * 1000 + "b", "a" * 999 + "b"))) == [
        "a" * 999 + "b"
    ]


def test_flags_are_those_of_the_dialect() -> None:
    report = tagged("PARIS", "paris\nx", "pariß")
    assert list(JsonPath("$..tags[?@ =~ /par.s/i]").values(report)) == ["PARIS"]
    assert list(JsonPath("$..tags[?@ =~ /p.*/s]").values(report)) == ["paris\nx", "pariß"]
    assert list(JsonPath("$..tags[?@ =~ /\\w+/a]").values(report)) == ["PARIS"]
    assert list(JsonPath("$..tags[?@ =~ /paris$.x/ms]").values(report)) == ["paris\nx"]


@pytest.mark.parametrize(
    ("pattern", "repeats", "nested"),
    [
        ("(a+)+", 1, True), ("(a|b*)*c", 1, True), ("((a{2,}b)?){3}", 6, True), ("(?:x(?:y+)z){2,3}", 2, True),
        ("a{2}{3}", 6, False), ("(a{2}){3}", 6, False), ("a{2}+", 2, False), ("a+?b*?", 1, False), ("a++", 1, False),
        ("(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", 10, False), ("(a+)?", 1, False), ("[(a+)+]+", 1, False),
        (r"(a\+)+", 1, False), ("(a+)(b+)", 1, False), ("(a{1})*", 1, False), ("a{,3}{x}", 1, False),
        ("[]a+]*", 1, False), ("(a?)*", 1, False), (")(", 1, False), ("", 1, False), ("a{1000}", 1000, False),
    ],
)  # fmt: skip
def test_repetition_inside_of_repetition_is_seen(pattern: str, repeats: int, nested: bool) -> None:
    assert survey(pattern) == (repeats, nested)


@given(st.text("ab(?:)[]^{}2,3+*\\|", max_size=30))
def test_every_expression_is_compiled_at_once_or_refused(pattern: str) -> None:
    begun = time.thread_time()
    with suppress(ValueError):
        BoundedRegex(pattern, 0, Budget())
    assert time.thread_time() - begun < 1
