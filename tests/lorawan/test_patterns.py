"""Patterns as people write them, what they make of uplinks, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lorawan.samples import BASE_STATION_ALARM, UPLINK, uplink
from tpxd.errors import PatternError, Unresolvable
from tpxd.lorawan.patterns import Rendered, Target, compile_pattern

FRIDGE = uplink(DevEUI="70B3D5E75E00A1C4", FPort=5, CustomerData={"name": "Fridge 12", "tags": ["Paris:Nord", "cold"]})


def _topic(text: str, **fields: Any) -> Rendered:
    return compile_pattern(text, Target.MQTT_TOPIC).render(uplink(**fields) if fields else FRIDGE)


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        ("/mqtt/{DevEUI}/uplink", "/mqtt/70B3D5E75E00A1C4/uplink"),
        ("mqtt/thing/{DevEUI}/uplink", "mqtt/thing/70B3D5E75E00A1C4/uplink"),
        ("mqtt/thing/{DevEUI}/{FPort}/uplink", "mqtt/thing/70B3D5E75E00A1C4/5/uplink"),
        (
            "iot/devices/{DevEUI}/tags/{$..CustomerData.tags[?(@ =~ /Paris:.*/)]}",
            "iot/devices/70B3D5E75E00A1C4/tags/Paris:Nord",
        ),
        ("mqtt/things/{CustomerData.name|DevEUI|'None'}/uplink", "mqtt/things/Fridge 12/uplink"),
        ("tpx/things/{DevEUI}/uplink", "tpx/things/70B3D5E75E00A1C4/uplink"),
        ("{CustomerData.tags[0]}", "Paris:Nord"),
        ("constant/topic", "constant/topic"),
        ("100%/{FPort}%s", "100%/5%s"),
        ("{DevEUI}{FPort}", "70B3D5E75E00A1C45"),
        ("{ DevEUI }", "70B3D5E75E00A1C4"),
        ("$aws/rules/r/{DevEUI}", "$aws/rules/r/70B3D5E75E00A1C4"),
    ],
)
def test_documented_patterns(text: str, topic: str) -> None:
    assert _topic(text) == (topic, 0)


def test_a_routing_key_and_a_header() -> None:
    key = compile_pattern("amqp.things.{DevEUI}.uplink", Target.AMQP_KEY)
    assert key.render(FRIDGE).text == "amqp.things.70B3D5E75E00A1C4.uplink"
    assert compile_pattern(" {DevEUI}; x ", Target.HEADER).render(FRIDGE).text == "70B3D5E75E00A1C4; x"
    assert compile_pattern("", Target.HEADER).render(FRIDGE).text == ""


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("{$.DevEUI_uplink.FPort}", "5"),
        ("{$.FPort}", "5"),
        ("{$['DevEUI_uplink']['CustomerData']['name']}", "Fridge 12"),
        ("{$..tags[-1:]}", "cold"),
        ("{$..tags[?(@ =~ /PARIS:.*/i)]}", "Paris:Nord"),
        ("{$..tags[?(@ =~ /Paris:\\w{4}|x}/)]}", "Paris:Nord"),
        ("{$..tags[?(@ == 'cold' || @ == '}|{')]}", "cold"),
        ("{$..tags[?(@ =~ /aris:.*/)]|'other'}", "other"),
        ("{$..CustomerData|FPort}", "5"),
        ("{$..tags[?(@ < 3)]|$..name|DevEUI}", "Fridge 12"),
        ("{$..nothing|nothing|'it''s'}", None),
        ("{nothing|'it\\'s {here} | \\\\'}", "it's {here} | \\"),
        ("{'{'}", "{"),
        ("{CustomerData.tags[2]|FPort}", "5"),
        ("{CustomerData[0]|FPort}", "5"),
        ("{CustomerData.tags.name|FPort}", "5"),
        ("{DevEUI.length|FPort}", "5"),
    ],
)
def test_expressions(expression: str, text: str | None) -> None:
    if text is None:
        with pytest.raises(PatternError, match="names no field"):
            compile_pattern(expression, Target.HEADER)
    else:
        assert compile_pattern(expression, Target.HEADER).render(FRIDGE).text == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (7, "7"),
        (-7, "-7"),
        (18446744073709551615, "18446744073709551615"),
        (7.0, "7.0"),
        (-93.25, "-93.25"),
        (1.5e-7, "1.5e-7"),
        (True, "true"),
        (False, "false"),
    ],
)
def test_values_are_written_as_json_does(value: Any, text: str) -> None:
    assert _topic("a/{v}", v=value) == (f"a/{text}", 0)
    assert _topic("a/{$.v}", v=value) == (f"a/{text}", 0)
    assert _topic("a/{v|'x'}", v=value) == (f"a/{text}", 0)


@pytest.mark.parametrize("value", ["", "  ", None, [], {}, ["x"], {"x": 1}])
def test_what_names_nothing_is_unresolvable(value: Any) -> None:
    for expression in ("v", "$.v[?(@.y)]", "w|v"):
        with pytest.raises(Unresolvable) as caught:
            _topic(f"a/{{{expression}}}", v=value)
        assert caught.value.name == expression
    assert _topic("a/{v|'none'}", v=value).text == "a/none"


def test_a_base_station_has_no_dev_eui() -> None:
    with pytest.raises(Unresolvable) as caught:
        compile_pattern("a/{DevEUI}", Target.MQTT_TOPIC).render(uplink("BS_alarm", **BASE_STATION_ALARM))
    assert caught.value.name == "DevEUI"


@pytest.mark.parametrize(
    ("target", "value", "text", "replaced"),
    [
        (Target.MQTT_TOPIC, "a/b+c#d\0e\nf\x7fg\x85h", "a_b_c_d_e_f_g_h", 7),
        (Target.MQTT_TOPIC, "\ufdd0\ufffe\uffff\U0001fffe\U0010ffff", "_____", 5),
        (Target.MQTT_TOPIC, "$SYS", "_SYS", 1),
        (Target.MQTT_TOPIC, 1e22, "1e_22", 1),
        (Target.MQTT_TOPIC, "caf\u00e9.\u2603 \U0001f600*", "caf\u00e9.\u2603 \U0001f600*", 0),
        (Target.AMQP_KEY, "a.b*c#d\0e\nf", "a_b_c_d_e_f", 5),
        (Target.AMQP_KEY, "$a/b+c caf\u00e9", "$a/b+c caf\u00e9", 0),
        (Target.HEADER, "a\r\nSet-Cookie: b\0", "a__Set-Cookie: b_", 3),
        (Target.HEADER, "caf\u00e9 \u2603\U0001f600\x85", "caf\u00e9 ??_", 3),
        (Target.HEADER, "  a  ", "a", 0),
    ],
)
def test_what_could_do_harm_is_replaced_and_counted(target: Target, value: Any, text: str, replaced: int) -> None:
    for expression in ("{v}", "{$.v}", "{w|v}"):
        assert compile_pattern(expression, target).render(uplink(v=value)) == (text, replaced)


def test_a_dollar_is_harmless_behind_the_beginning() -> None:
    assert _topic("a{v}", v="$SYS") == ("a$SYS", 0)
    assert _topic("{a}{v}", a="1", v="$SYS") == ("1$SYS", 0)


def test_a_result_has_a_limit() -> None:
    key = compile_pattern("a.{v}", Target.AMQP_KEY)
    assert key.render(uplink(v="x" * 253)).text == "a." + "x" * 253
    for value in ("x" * 254, "\u2603" * 85):
        with pytest.raises(PatternError, match=r'"a\.{v}" makes a routing key too long: 25[67] bytes, 255 are allowed'):
            key.render(uplink(v=value))
    compile_pattern("x" * 254 + "{v}", Target.AMQP_KEY)
    for text in ("x" * 256, "x" * 255 + "{v}", "x" * 254 + "{v}{v}", "\u2603" * 86):
        with pytest.raises(PatternError, match=r"makes a routing key too long: 25[68] bytes at least"):
            compile_pattern(text, Target.AMQP_KEY)
    assert len(_topic("a/{v}", v="x" * 65_533).text) == 65_535
    with pytest.raises(PatternError, match="makes a topic too long: 65536 bytes, 65535 are allowed"):
        _topic("a/{v}", v="x" * 65_534)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the topic is empty"),
        ("a/{", 'position 3 of "a/{": this "{" has no "}"'),
        ("a/{DevEUI", 'position 3 of "a/{DevEUI": this "{" has no "}"'),
        ("a}", 'position 2 of "a}": this "}" closes nothing'),
        ("{{DevEUI}}", 'position 2 .* a "{" within braces'),
        ("{DevEUI}}", 'position 9 .* this "}" closes nothing'),
        ("{}", "position 2 .* a field's name is expected, such as {DevEUI}"),
        ("{  }", "a field's name is expected"),
        ("{a|}", "position 4 .* a field's name is expected"),
        ("{a||b}", "position 4 .* a field's name is expected"),
        ("{Dev EUI}", 'position 2 .* "Dev EUI" names no field'),
        ("{a..b}", "names no field"),
        ("{.a}", "names no field"),
        ("{a.}", "names no field"),
        ("{a[x]}", "names no field"),
        ("{a[0}", 'position 3 .* this "\\[" is not closed'),
        ("{a]}", 'position 3 .* this "\\]" closes nothing'),
        ("{upper(DevEUI)}", "names no field"),
        ("{'x}", "position 2 .* this quote has no end"),
        ("{''}", "position 2 .* the text in quotes is empty"),
        ("{'x'|a}", "position 6 .* nothing can follow a text in quotes"),
        ("{a|'x'|'y'}", "position 8 .* nothing can follow a text in quotes"),
        ("{'x'y}", "names no field"),
        ("{$.}", 'position 2 .* "\\$." is no JSONPath: expected a shorthand selector'),
        ("{a| $..[?(@ =~ /(/)]}", "position 5 .* is no JSONPath: missing \\)"),
        ("{$.x[99999999999999999999]}", "is no JSONPath: index out of range"),
        ("a/+/b", "position 3 .* a topic cannot hold '\\+' here; write {DevEUI} where"),
        ("{DevEUI}/#", "position 10 .* a topic cannot hold '#' here"),
        ("a\0", "position 2 .* a pattern cannot hold '.*x00'"),
        ("{a}\ud800", "position 4 .* a pattern cannot hold"),
        ("{a\n|b}", "position 3 .* a pattern cannot hold"),
        ("{$.a[?(@ =~ /a{99999999999}/)]}", "is no JSONPath: a regular expression repeats more than 1000 times"),
        ("{$..[1e9991e999]}", "is no JSONPath: invalid literal"),
        ("{$" + "[?(" * 500 + ")]" * 500 + "}", "is no JSONPath"),
        ("{$..[?(" + "!" * 5_000 + "@)]}", "is no JSONPath: maximum recursion depth exceeded"),
        ("a/{b|'c/d'}", "position 3 .* the text in quotes cannot hold '/' in a topic"),
    ],
)
def test_what_is_no_pattern_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(PatternError, match=message) as caught:
        compile_pattern(text, Target.MQTT_TOPIC)
    assert caught.value.message.isprintable()


def test_each_target_refuses_what_it_cannot_hold() -> None:
    assert compile_pattern("a.*.#", Target.AMQP_KEY).subscription == "a.*.#"
    for target, text in [
        (Target.AMQP_KEY, "a\n"),
        (Target.AMQP_KEY, "{a|'b.c'}"),
        (Target.HEADER, "a\r\nb"),
        (Target.HEADER, "\u2603"),
        (Target.HEADER, "{a|'\u2603'}"),
        (Target.AMQP_KEY, ""),
    ]:
        with pytest.raises(PatternError):
            compile_pattern(text, target)


def test_patterns_are_compared_by_text_and_target() -> None:
    pattern = compile_pattern("a/{$..b|DevEUI|'x'}/{FPort}", Target.MQTT_TOPIC)
    assert pattern == compile_pattern(pattern.text, Target.MQTT_TOPIC)
    assert hash(pattern) == hash(compile_pattern(pattern.text, Target.MQTT_TOPIC))
    assert pattern != compile_pattern(pattern.text, Target.AMQP_KEY)
    assert pattern != compile_pattern("a", Target.MQTT_TOPIC)
    assert pattern.names == ("$..b", "DevEUI", "FPort")


NASTY = st.text(
    alphabet=st.one_of(st.sampled_from("/+#$.*\0\r\n \x85\ufffe"), st.characters(exclude_categories=["Cs"])),
    max_size=12,
)
SCALARS = NASTY | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
LITERALS = st.text(alphabet="ab$./ %s", max_size=5)
EXPRESSIONS = st.sampled_from(["{v}", "{w|v|'none'}", "{o.v|'none'}", "{$..v|'none'}", "{l[1]|'none'}", "{v}{w|'x'}"])


@settings(deadline=None)
@given(
    st.lists(LITERALS | EXPRESSIONS, min_size=1, max_size=6).map("".join).filter(str.strip),
    st.fixed_dictionaries(
        {"v": SCALARS}, optional={"w": SCALARS, "o": st.fixed_dictionaries({"v": SCALARS}), "l": st.lists(SCALARS)}
    ),
)
def test_no_value_changes_the_shape_of_what_is_made(text: str, fields: dict[str, Any]) -> None:
    for target, separator, forbidden in [
        (Target.MQTT_TOPIC, "/", "+#\0\r\n"),
        (Target.AMQP_KEY, ".", "*#\0\r\n"),
        (Target.HEADER, "", "\0\r\n"),
    ]:
        pattern = compile_pattern(text, target)
        try:
            rendered = pattern.render(uplink(**fields)).text
        except PatternError:
            continue
        assert not set(forbidden) & set(rendered)
        if separator:
            wildcard, levels = "+" if separator == "/" else "*", pattern.subscription.split(separator)
            assert len(rendered.split(separator)) == len(levels)
            assert all(level in (wildcard, made) for level, made in zip(levels, rendered.split(separator), strict=True))
            assert pattern.fits(rendered)
            assert not pattern.fits(f"{rendered}{separator}x")
        else:
            rendered.encode("latin-1")
        if text.startswith("{") and target is Target.MQTT_TOPIC:
            assert not rendered.startswith("$")


@settings(deadline=None)
@given(SCALARS)
def test_the_short_way_and_the_careful_way_agree(value: Any) -> None:
    for target in Target:
        made = []
        for text in ("x{v}y", "x{ v }y"):
            try:
                made.append(str(compile_pattern(text, target).render(uplink(v=value))))
            except Unresolvable as error:
                made.append(error.name.strip())
        assert made[0] == made[1]


@settings(deadline=None)
@given(st.text(alphabet="{}[]()|'$.@?=~/\\a0 +*\n\u2028", max_size=25))
def test_any_text_is_a_pattern_or_an_error(text: str) -> None:
    for target in Target:
        message = ""
        try:
            compile_pattern(text, target).render(uplink(a="x", b=UPLINK))
        except PatternError as error:
            # Of an expression that cannot be resolved, the text itself is named.
            message = "" if isinstance(error, Unresolvable) else error.message
        assert message.isprintable()


@pytest.mark.parametrize(
    "text",
    ["{DevEUI}", "x{DevEUI|FPort}", "{$.DevEUI_location.DevEUI}", "{$..DevEUI}", "{$..['DevEUI']}", '{$..["DevEUI"]}'],
)
@pytest.mark.parametrize("dev_eui", ["70b3d5e75e00a1c4", "70B3D5E75E00A1C4"])
def test_one_device_is_one_topic_however_a_report_type_writes_its_dev_eui(text: str, dev_eui: str) -> None:
    location = uplink("DevEUI_location", DevEUI=dev_eui, CustomerData={"name": "abc"})
    topic = compile_pattern(f"{text}/{{CustomerData.name}}", Target.MQTT_TOPIC).render(location).text
    assert topic.removeprefix("x") == "70B3D5E75E00A1C4/abc"
    assert compile_pattern(text, Target.HEADER).render(location).text.removeprefix("x") == "70B3D5E75E00A1C4"


def test_reports_without_a_device_take_their_base_station() -> None:
    alarm = uplink("BS_alarm", **BASE_STATION_ALARM)
    assert compile_pattern("plant/{DevEUI|LrrID}", Target.MQTT_TOPIC).render(alarm).text == "plant/1000a7f2"
