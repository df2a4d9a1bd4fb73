"""JSONPath over whatever a report holds: a path that is one never fails, it finds something or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpxd.lorawan.json_path import JsonPath

PATHS = [
    "$..t", "$..[?@.t]", "$..[?@.t > 30]", "$..[?@.t <= @.u]", "$..[?@.t == @.u]", "$..[?@.t in 'abc']",
    "$..[?@.t in ['a', 1]]", "$..[?@.t contains 1]", "$..[?@.t contains 'a']", "$..[?@.t contains @.u]",
    "$..[?@.t =~ /a.*/i]", "$..[?length(@.t) > 1]", "$..[?count(@.*) > 1]", "$..[?match(@.t, @.u)]",
    "$..[?search(@.t, '[')]", "$..[?value(@..t) == 1]", "$..[?typeof(@.t) == 'string']",
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
    for value in path.values({"DevEUI_uplink": fields}):
        assert value is None or isinstance(value, bool | int | float | str | list | dict)


def test_values_come_in_order_up_to_what_cannot_be_compared() -> None:
    document = {"tags": ["x", "abc", "b", 7, "c"]}
    assert list(JsonPath("$.tags[?@ in 'abc']").values(document)) == ["abc", "b"]
    assert list(JsonPath("$.tags[?@ =~ /[a-c]+/]").values(document)) == ["abc", "b", "c"]


@pytest.mark.parametrize("text", ["$..[", "$..[?@.t =~ /(/]", "$[?@ == 1e9999]", "$[99999999999999999999]", "$ x"])
def test_what_is_no_path_says_so_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="is no JSONPath: ") as caught:
        JsonPath(text)
    assert "\n" not in str(caught.value)
