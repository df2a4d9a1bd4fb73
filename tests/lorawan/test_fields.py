"""Names that are nearly those of a report's fields."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lorawan.samples import uplink
from tpxd.errors import Unresolvable
from tpxd.lorawan.fields import KNOWN, meant
from tpxd.lorawan.patterns import Target, compile_pattern


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("DevEui", "DevEUI"), ("deveui", "DevEUI"), ("DevUEI", "DevEUI"), ("DevEU", "DevEUI"), ("DevEUII", "DevEUI"),
        ("Fport", "FPort"), ("CustomerDatas", "CustomerData"), ("DevEUI", None), ("Spfact", None), ("Lrrid", None),
        ("temperature", None), ("Tine", None), ("mode", None), ("", None),
    ],
)  # fmt: skip
def test_what_was_meant(name: str, known: str | None) -> None:
    assert meant(name) == known


@given(st.sampled_from(sorted(name for name in KNOWN if len(name) > 8)), st.data())
def test_one_letter_is_always_found(name: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(name) - 1))
    letter = data.draw(st.sampled_from(string.ascii_letters))
    slip = data.draw(
        st.sampled_from(
            [name[:at] + name[at + 1 :], name[:at] + letter + name[at:], name[:at] + letter + name[at + 1 :]]
        )
    )
    assert slip in KNOWN or meant(slip) is not None


def test_an_uplink_without_a_field_says_what_may_help() -> None:
    with pytest.raises(Unresolvable) as caught:
        compile_pattern("plant/{DevEui}", Target.MQTT_TOPIC).render(uplink(DevEUI="70B3D5E75E00A1C4"))
    assert caught.value.hint == "did you mean {DevEUI}?"
    with pytest.raises(Unresolvable) as caught:
        compile_pattern("plant/{Vendor}", Target.MQTT_TOPIC).render(uplink())
    assert "such as {CustomerData.name|'none'}" in (caught.value.hint or "")
