"""What is allowed in a connection file and may surprise whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from pydantic import BaseModel

from tpxd.config.connection_file import ConnectionFile
from tpxd.config.flow import JsonPathMatcher
from tpxd.config.problems import dotted, schema_of
from tpxd.config.secret import DASHES
from tpxd.config.toml import TomlSource
from tpxd.config.toml_places import Loc
from tpxd.errors import Problem
from tpxd.lorawan.fields import slips
from tpxd.lorawan.json_path import JsonPath
from tpxd.lorawan.patterns import Pattern, Target

NESTED: Final = (
    "its regular expression has repetition inside of repetition, such as (a+)+, which may take very long; an uplink on"
    " which it takes more than 50 ms is rejected"
)


def remarks(file: ConnectionFile, source: TomlSource) -> Iterator[Problem]:
    """Warnings about a file that is fine."""
    configuration = file.configuration
    by_key = {}
    if getattr(configuration, "qos", None) == 0:
        by_key["qos"] = "0 means that delivered is what was handed to the system; uplinks can get lost on the way"
    for key, text in (by_key | configuration.remarks).items():
        yield _warning(file, source, ("configuration", key), text)
    for key in ("downlinkAsKey", "tunnelInterfaceAuthenticationKey"):
        written = source.document["configuration"].get(key)
        if isinstance(written, str) and "-" in written:
            yield _warning(file, source, ("configuration", key), DASHES)
    for loc, pattern in _patterns(configuration, ("configuration",)):
        for name, known in _slips(pattern.names):
            # a header's value may be a secret, so nothing of it is shown
            nearly = "a field in braces" if pattern.target is Target.HEADER else f'"{name}"'
            yield _warning(file, source, loc, f"{nearly} is no field of a report; did you mean {{{known}}}?")
        if any(JsonPath(name).nested for name in pattern.names if name.startswith("$")):
            yield _warning(file, source, loc, NESTED)
    for index, matcher in enumerate(file.flow.matchers):
        if isinstance(matcher, JsonPathMatcher):
            loc = ("flow", "matchers", index, "path")
            for name, known in slips(matcher.path):
                yield _warning(file, source, loc, f'"{name}" is no field of a report; did you mean {known}?')
            if JsonPath(matcher.path).nested:
                yield _warning(file, source, loc, NESTED)


def _slips(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    return (slip for name in names for slip in slips(name))


def _patterns(part: BaseModel, loc: Loc) -> Iterator[tuple[Loc, Pattern]]:
    """Every pattern of a table and of what it holds, with its place."""
    for key, value in part:
        items: Iterable[tuple[Loc, object]]
        match value:
            case dict():
                items = (((*loc, key, name), each) for name, each in value.items())
            case list() | tuple():
                items = (((*loc, key, index), each) for index, each in enumerate(value))
            case _:
                items = [((*loc, key), value)]
        for place, each in items:
            if isinstance(each, Pattern):
                yield place, each
            elif isinstance(each, BaseModel):
                yield from _patterns(each, place)


def _warning(file: ConnectionFile, source: TomlSource, loc: Loc, text: str) -> Problem:
    there = source.known(loc)
    return source.problem(dotted(loc, schema_of(type(file))), text, there, severity="warning")
