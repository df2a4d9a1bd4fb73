"""Filters that fit what patterns become: which texts fit them, and which other filters they meet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpxd.errors import LocalMisuse
from tpxd.lorawan.patterns import Target, compile_pattern


@pytest.mark.parametrize(
    ("text", "target", "subscription"),
    [
        ("tpx/things/{DevEUI}/uplink", Target.MQTT_TOPIC, "tpx/things/+/uplink"),
        ("/a/dev-{DevEUI}/{FPort}{x}", Target.MQTT_TOPIC, "/a/+/+"),
        ("a/{$..b[?(@ =~ /c\\/d.*/)]|'x'}/e", Target.MQTT_TOPIC, "a/+/e"),
        ("constant/topic", Target.MQTT_TOPIC, "constant/topic"),
        ("{DevEUI}", Target.MQTT_TOPIC, "+"),
        ("amqp.things.{CustomerData.name}.downlink", Target.AMQP_KEY, "amqp.things.*.downlink"),
    ],
)
def test_a_downlink_pattern_becomes_a_filter(text: str, target: Target, subscription: str) -> None:
    assert compile_pattern(text, target).subscription == subscription


@pytest.mark.parametrize(
    ("text", "fitting", "other"),
    [
        ("plant.{DevEUI}.down", ["plant.1.down", "plant..down"], ["plant.down", "plant.1.2.down", "Plant.1.down"]),
        ("plant.*.down", ["plant.1.down"], ["plant.1.2.down"]),
        ("plant.#", ["plant", "plant.1", "plant.1.2"], ["plan", ""]),
        ("#.{FPort}.#.down", ["1.down", "a.b.c.down", "1.down.down"], ["down", "1.down.x"]),
        ("#", ["", "a", "a.b"], []),
    ],
)
def test_what_a_filter_fits(text: str, fitting: list[str], other: list[str]) -> None:
    pattern = compile_pattern(text, Target.AMQP_KEY)
    assert [key for key in (*fitting, *other) if pattern.fits(key)] == fitting


def test_a_star_is_no_wildcard_in_a_topic() -> None:
    pattern = compile_pattern("plant/*/{DevEUI}", Target.MQTT_TOPIC)
    assert pattern.fits("plant/*/1")
    assert not pattern.fits("plant/x/1")


@pytest.mark.parametrize(
    ("text", "meeting", "other"),
    [
        (
            "plant.{DevEUI}.down",
            ["plant.1.down", "{a}.{b}.{c}", "plant.#", "#.down", "#"],
            ["plant.{a}.up", "{a}.down"],
        ),
        ("plant.#", ["plant", "plant.{DevEUI}.up", "#.up", "{a}.#.{b}"], ["other.#", "down.plant"]),
        ("plant.#.#.down", ["plant.down", "#.#", "plant.{DevEUI}.x.down"], ["down", "plant.#.up"]),
    ],
)
def test_filters_that_meet(text: str, meeting: list[str], other: list[str]) -> None:
    pattern = compile_pattern(text, Target.AMQP_KEY)
    for one in (*meeting, *other):
        there = compile_pattern(one, Target.AMQP_KEY)
        assert (pattern.meets(there), there.meets(pattern)) == (one in meeting, one in meeting), one


LEVELS = st.lists(st.sampled_from(["a", "b", "{c}", "#"]), min_size=1, max_size=4).map(".".join)


@given(LEVELS, LEVELS, st.lists(st.sampled_from("ab"), min_size=1, max_size=5).map(".".join))
def test_what_fits_two_filters_shows_that_they_meet(one: str, two: str, key: str) -> None:
    some, others = compile_pattern(one, Target.AMQP_KEY), compile_pattern(two, Target.AMQP_KEY)
    assert some.meets(others) == others.meets(some)
    assert some.meets(others) or not (some.fits(key) and others.fits(key))


def test_nobody_subscribes_to_headers() -> None:
    with pytest.raises(LocalMisuse):
        _ = compile_pattern("{DevEUI}", Target.HEADER).subscription
