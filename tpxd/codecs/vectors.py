"""The examples that driver packages bring along: read, and compared with what the driver gives.

    examples.json, examples/*.examples.json     packages of Actility's device catalogue
    *-codec.yaml                                codecs of The Things Network's device repository
    test_decode_*.json, test_encode_*.json      ChirpStack's device profiles

Two results are the same when they are as JSON, numbers up to a billionth of their size; lists of errors or warnings
that are empty are as good as none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import yaml

from tpxd.codecs.drivers import TTN_PARTS, Driver, PlainLoader, is_reference, read_driver
from tpxd.codecs.engine import Call, Operation, Outcome, Signature
from tpxd.errors import ConfigError, Problem, unreadable

TOLERANCE: Final = 1e-9
TYPES: Final[Mapping[str, Operation]] = {
    "uplink": "decodeUplink",
    "downlink-encode": "encodeDownlink",
    "downlink-decode": "decodeDownlink",
}


@dataclass(frozen=True, slots=True)
class Example:
    """One example: what a function gets, and what it has to give."""

    case: str
    operation: Operation
    input: Mapping[str, Any]
    expected: Any


@dataclass(frozen=True, slots=True)
class Package:
    """A driver with its examples."""

    path: Path
    driver: Driver
    examples: tuple[Example, ...]


def find_packages(directory: Path) -> Iterator[Package | Problem]:
    """Every package below a directory that has examples; in the order of their paths."""
    for path in sorted(directory.rglob("*")):
        if "node_modules" in path.parts:
            continue
        try:
            if is_reference(path):
                continue
            if path.name == "driver.yaml":
                yield Package(path.parent, read_driver(path), tuple(_actility(path.parent)))
            elif path.name.endswith("-codec.yaml"):
                yield Package(path, read_driver(path), tuple(_ttn(path)))
            elif path.suffix == ".js" and (tests := _chirpstack_tests(path)):
                yield Package(path, read_driver(path), tuple(_chirpstack(tests)))
        except ConfigError as error:
            yield from error.problems


def call_of(driver: Driver, example: Example) -> Call | None:
    """The call that an example makes; None where its driver has no script for it."""
    source = driver.source(example.operation)
    context: list[Any] | None = None
    if driver.uses_context:
        given = example.input.get("context")
        context = given if isinstance(given, list) else []
    return None if source is None else Call(source, driver.signature, example.operation, example.input, context)


def given_by(outcome: Outcome, signature: Signature) -> Any:
    """What a driver gave, in the form that examples have for its signature."""
    if outcome.failure is not None and outcome.failure.kind != "told":
        return {"error": outcome.failure.text}
    result = outcome.result
    if signature in ("actility", "ttn", "chirpstack") and isinstance(result, dict) and "data" in result:
        return result["data"]
    return result


def same(expected: Any, got: Any) -> bool:
    """Whether two results are the same; see the module."""
    match expected, got:
        case bool() | None | str(), _:
            return type(expected) is type(got) and expected == got
        case ((int() | float()), (int() | float())) if not isinstance(got, bool):
            return math.isclose(expected, got, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        case list(), list():
            return len(expected) == len(got) and all(map(same, expected, got))
        case dict(), dict():
            left, right = _told(expected), _told(got)
            return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
        case _:
            return False


def _told(result: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if not (key in ("errors", "warnings") and not value)}


def _actility(folder: Path) -> Iterator[Example]:
    if (folder / "examples.json").exists():
        for entry in _list(folder / "examples.json"):
            match entry:
                case {"type": str(kind), "input": dict(given), "output": output} if kind in TYPES:
                    yield Example(_case(entry), TYPES[kind], _with_bytes(given), _with_bytes(output))
        return
    for path in sorted(folder.glob("examples/*.examples.json")):
        for entry in _list(path):
            yield from _legacy(entry)


def _legacy(entry: Any) -> Iterator[Example]:
    """The older form, of one entry for both ways of a downlink."""
    match entry:
        case {"type": "uplink", "data": data}:
            yield Example(
                _case(entry), "decodeUplink", _with_bytes(_parts(entry, "bytes", "fPort", "time", "thing")), data
            )
        case {"type": "downlink", "data": data}:
            output = _with_bytes(_parts(entry, "bytes", "fPort"))
            yield Example(_case(entry), "encodeDownlink", {"data": data, **_parts(entry, "fPort")}, output)


def _ttn(path: Path) -> Iterator[Example]:
    description = yaml.load(path.read_text(), Loader=PlainLoader)  # noqa: S506 - see there
    for part, operation in TTN_PARTS.items():
        examples = (description.get(part) or {}).get("examples")
        for entry in examples if isinstance(examples, list) else ():
            match entry:
                case {"input": dict(given), "output": output}:
                    yield Example(_case(entry), operation, given, output)


def _chirpstack_tests(script: Path) -> list[Path]:
    names = (f"test_decode_{script.stem}.json", f"test_encode_{script.stem}.json")
    return [script.with_name(name) for name in names if script.with_name(name).exists()]


def _chirpstack(tests: list[Path]) -> Iterator[Example]:
    for path in tests:
        operation: Operation = "decodeUplink" if path.name.startswith("test_decode_") else "encodeDownlink"
        for entry in _list(path):
            match entry:
                case {"input": dict(given), "expected": expected}:
                    yield Example(_case(entry), operation, given, expected)


def _list(path: Path) -> list[Any]:
    try:
        found = orjson.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError([Problem(str(path), 0, 0, "", unreadable(error))]) from None
    except orjson.JSONDecodeError as error:
        raise ConfigError([Problem(str(path), error.lineno, error.colno, "", f"is no JSON: {error.msg}")]) from None
    return found if isinstance(found, list) else [found]


def _case(entry: Mapping[str, Any]) -> str:
    return str(entry.get("description") or entry.get("name") or "without a description")


def _parts(entry: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: entry[name] for name in names if name in entry}


def _with_bytes(value: Any) -> Any:
    """Examples write bytes as a list, or as hex digits."""
    if isinstance(value, dict) and isinstance(value.get("bytes"), str):
        return {**value, "bytes": list(bytes.fromhex(value["bytes"]))}
    return value
