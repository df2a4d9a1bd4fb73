"""Patterns such as `plant/{DevEUI}/uplink`: topics, routing keys and header values made from an uplink.

Whatever a device or its owner writes into a field, a rendered text has the shape of its pattern: no further topic
level, no wildcard, no further header line. Characters that could do so are replaced and counted.

Source: ThingPark X IoT Flow, "About connections", topic patterns; `expressions` has the syntax between the braces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from tpxd.errors import LocalMisuse, PatternError, Unresolvable
from tpxd.lorawan.expressions import DEV_EUI, Expression, pattern_error, split
from tpxd.lorawan.fields import slips
from tpxd.lorawan.uplink import Uplink

_CONTROLS = "\x00-\x1f\x7f-\x9f"
# Brokers close the connection on these (MQTT 3.1.1, 1.5.3), so that one device's name could hold up all others.
_NO_CHARACTERS = "\ud800-\udfff\ufdd0-\ufdef" + "".join(
    chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17)
)
_UNPRINTABLE = re.compile(f"[{_CONTROLS}{_NO_CHARACTERS}]")


class Target(Enum):
    """What a pattern makes."""

    MQTT_TOPIC = "topic"
    AMQP_KEY = "routing key"
    HEADER = "header value"


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a target allows.

    Attributes:
        separator: parts the levels that a value must not add to; None where there are none.
        wildcard: stands for any one level in what a client subscribes to.
        max_bytes: of the whole text in UTF-8.
        unsafe: what a value must not hold, and what stands there instead.
        refused: what the pattern's own text must not hold, besides control characters, which none may.
    """

    separator: str | None
    wildcard: str
    max_bytes: int
    unsafe: tuple[tuple[re.Pattern[str], str], ...]
    refused: re.Pattern[str] | None


_RULES = {
    Target.MQTT_TOPIC: _Rules(
        "/",
        "+",
        65_535,
        ((re.compile(f"[/+#{_CONTROLS}{_NO_CHARACTERS}]"), "_"),),
        re.compile("[+#]"),
    ),
    Target.AMQP_KEY: _Rules(
        ".",
        "*",
        255,
        ((re.compile(f"[.*#{_CONTROLS}{_NO_CHARACTERS}]"), "_"),),
        None,
    ),
    Target.HEADER: _Rules(
        None,
        "",
        65_535,
        ((re.compile(f"[{_CONTROLS}]"), "_"), (re.compile("[^\x00-\xff]"), "?")),
        re.compile("[^\x00-\xff]"),
    ),
}


class Rendered(NamedTuple):
    """A pattern's text for one uplink, and how many characters of its values were replaced."""

    text: str
    replaced: int


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern; made by `compile_pattern`. Two of the same text and target are equal.

    Attributes:
        text: as it was written.
        names: what it asks an uplink for, alternatives one by one.
    """

    text: str
    target: Target
    names: tuple[str, ...] = field(compare=False)
    _parts: tuple[str | Expression, ...] = field(compare=False, repr=False)
    _rules: _Rules = field(compare=False, repr=False)
    # For patterns that ask for nothing but fields directly inside the root key: a %-template of these fields.
    _fields: tuple[str, ...] | None = field(compare=False, repr=False)
    _template: str = field(compare=False, repr=False)
    _plain_characters: int = field(compare=False, repr=False)

    def render(self, uplink: Uplink) -> Rendered:
        """The topic, routing key or header value for this uplink; a header value fits into latin-1.

        Raises:
            Unresolvable: the uplink has no value for an expression; its name is the expression.
            TooSlow: a regular expression in it takes too long on this uplink.
            PatternError: the result is longer than the target allows.
        """
        if self._fields is not None:
            fields = uplink.fields
            values: list[str | int] = []
            for name in self._fields:
                value = fields.get(name)
                if name == DEV_EUI and type(value) is str:
                    value = value.upper()
                if type(value) is int or (type(value) is str and value.isalnum() and value.isascii()):
                    values.append(value)
                else:
                    break
            else:
                text = self._template % tuple(values)
                if len(text) <= self._plain_characters:
                    return Rendered(text, 0)
        return self._render_with_care(uplink)

    def _render_with_care(self, uplink: Uplink) -> Rendered:
        text = ""
        replaced = 0
        for part in self._parts:
            if isinstance(part, str):
                text += part
                continue
            value = part.resolve(uplink)
            if not value:
                raise Unresolvable(part.text, hint=_missing_hint(part))
            for unsafe, substitute in self._rules.unsafe:
                value, count = unsafe.subn(substitute, value)
                replaced += count
            if not text and value[0] == "$" and self.target is Target.MQTT_TOPIC:
                # Topics that begin with $ are the broker's own (MQTT 3.1.1, 4.7.2).
                value = "_" + value[1:]
                replaced += 1
            text += value
        if self.target is Target.HEADER:
            text = text.strip()
        size = len(text.encode())
        if size > self._rules.max_bytes:
            most = self._rules.max_bytes
            raise PatternError(f'"{self.text}" makes a {self.target.value} too long: {size} bytes, {most} are allowed')
        return Rendered(text, replaced)

    @property
    def may_take_long(self) -> bool:
        """Whether rendering it for many uplinks should let others go on now and then."""
        return any(name.startswith("$") for name in self.names)

    @property
    def literal(self) -> str:
        """The text outside of braces, which is a part of everything made from this pattern."""
        return "".join(part for part in self._parts if isinstance(part, str))

    @property
    def subscription(self) -> str:
        """The topic filter or binding key that fits all that this can become: a wildcard for each level with braces."""
        return self._separator.join(self._levels)

    def fits(self, text: str) -> bool:
        """Whether the filter of `subscription` fits a topic or routing key; "#", as AMQP has it, fits any levels."""
        words = text.split(self._separator)
        ends = {0}
        for level in self._levels:
            if level == "#":
                ends = set(range(min(ends), len(words) + 1))
            else:
                ends = {end + 1 for end in ends if end < len(words) and level in (self._rules.wildcard, words[end])}
            if not ends:
                return False
        return len(words) in ends

    def meets(self, other: Pattern) -> bool:
        """Whether some topic or routing key fits the filters of both; "#" as in `fits`."""
        others, wildcard = other._levels, self._rules.wildcard
        ends = _beyond_hashes({0}, others)
        for level in self._levels:
            if level == "#":
                ends = set(range(min(ends), len(others) + 1))
            else:
                within = [end for end in ends if end < len(others)]
                stay = {end for end in within if others[end] == "#"}
                ends = stay | {end + 1 for end in within if level == wildcard or others[end] in (level, wildcard)}
                ends = _beyond_hashes(ends, others)
            if not ends:
                return False
        return len(others) in ends

    @property
    def _levels(self) -> list[str]:
        marked = "".join(part if isinstance(part, str) else "\0" for part in self._parts)
        return [self._rules.wildcard if "\0" in level else level for level in marked.split(self._separator)]

    @property
    def _separator(self) -> str:
        if self._rules.separator is None:
            raise LocalMisuse("nobody subscribes to a header value")
        return self._rules.separator


def _beyond_hashes(ends: set[int], levels: list[str]) -> set[int]:
    """These places, and those that "#" leads to where it stands for no level."""
    while more := {end + 1 for end in ends if levels[end : end + 1] == ["#"]} - ends:
        ends = ends | more
    return ends


def _missing_hint(expression: Expression) -> str:
    """What may help where an uplink has no value."""
    for name in expression.names:
        for _, known in slips(name):
            return f"did you mean {{{known}}}?"
    return "a text in quotes after | stands for what an uplink lacks, such as {CustomerData.name|'none'}"


def compile_pattern(text: str, target: Target, *, forgiving: bool = False) -> Pattern:
    """Compile a pattern, once, when its file is read. `forgiving` is for `JsonPath`.

    Raises:
        PatternError: what is wrong, at which position, and what is expected there.
    """
    rules = _RULES[target]
    written = text.strip() if target is Target.HEADER else text
    if not written and target is not Target.HEADER:
        raise PatternError(f"the {target.value} is empty; write at least one level, such as {{DevEUI}}")
    if found := _UNPRINTABLE.search(written):
        raise pattern_error(written, found.start(), f"a pattern cannot hold {found[0]!r}")
    parts = split(written, forgiving=forgiving)
    _refuse_unsafe(written, parts, target, rules)
    # an expression becomes one character at least, as a level with braces does in what a client subscribes to
    least = sum(len(part.encode()) if isinstance(part, str) else 1 for part in parts)
    if least > rules.max_bytes:
        raise PatternError(f"makes a {target.value} too long: {least} bytes at least, {rules.max_bytes} are allowed")
    expressions = [part for part in parts if isinstance(part, Expression)]
    fields = [expression.field for expression in expressions]
    return Pattern(
        text=text,
        target=target,
        names=tuple(name for expression in expressions for name in expression.names),
        _parts=tuple(parts),
        _rules=rules,
        _fields=None if None in fields else tuple(name for name in fields if name is not None),
        _template="".join(part.replace("%", "%%") if isinstance(part, str) else "%s" for part in parts),
        # A character is four bytes of UTF-8 at most.
        _plain_characters=rules.max_bytes // 4,
    )


def _refuse_unsafe(text: str, parts: list[str | Expression], target: Target, rules: _Rules) -> None:
    """Refuse what would break everything made from this pattern."""
    begin = 0
    for part in parts:
        if isinstance(part, str):
            if rules.refused and (found := rules.refused.search(part)):
                advice = "; write {DevEUI} where it differs from device to device" if found[0] in "+#" else ""
                message = f"a {target.value} cannot hold {found[0]!r} here{advice}"
                raise pattern_error(text, begin + found.start(), message)
            begin += len(part)
        else:
            for unsafe, _ in rules.unsafe:
                if part.literal is not None and (found := unsafe.search(part.literal)):
                    raise pattern_error(text, begin, f"the text in quotes cannot hold {found[0]!r} in a {target.value}")
            begin += len(part.text) + 2
