"""Imports go down only, each foreign library stays in its file, each room says what is in it, tests stand alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tpxd.connector import REGISTRY
from tpxd.connectors import load

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tpxd"
FILES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

GROUND = frozenset(["lorawan", "errors", "events", "log", "sdnotify", "timing"])
"""Open to every room above; `simulate` alone does without most of it."""

ROOMS: dict[str, frozenset[str]] = {
    room: frozenset(below.split())
    for room, below in {
        "__main__": "cli",
        "cli": "demo daemon control reload connectors connector codecs spool config wire simulate",
        "demo": "daemon simulate broker wire",
        "daemon": "control reload connection intake downlinks connectors connector codecs spool config wire broker",
        "control": "reload connection downlinks intake connector codecs spool config wire",
        "reload": "connection downlinks intake connectors connector codecs spool config",
        "connection": "downlinks codecs connector spool config wire",
        "intake": "downlinks codecs spool config wire",
        "downlinks": "codecs connector spool config wire",
        "connectors": "connector wire config",
        "connector": "config wire",
        "codecs": "config",
        "spool": "config",
        "config": "",
        "wire": "",
        "broker": "",
    }.items()
}
"""Room to the rooms that it may import, besides the ground; a room is a directory or a single file at the top."""

ORACLE = {"errors"}
"""All that `simulate` may import: a second opinion shares no code with the first."""

SHARED_BY_CONNECTORS = "parts"
"""The folder of `connectors` that every technology may import, and that imports none of them."""

CONFINED = {
    "quickjs": {"tpxd.codecs.engine"},
    "trio_parallel": {"tpxd.codecs.workers"},
    "asyncio": {"tpxd.broker.process"},
    "amqtt": {"tpxd.broker.process", "tpxd.wire.mqtt.codec"},
    "aiormq": {"tpxd.wire.amqp.codec"},
    "pamqp": {"tpxd.wire.amqp.codec"},
    "trio_websocket": {"tpxd.wire.websocket"},
    "h11": {"tpxd.wire.proxy", "tpxd.wire.websocket"},
    "jsonpath": {"tpxd.lorawan.json_path"},
    "regex": {"tpxd.lorawan.bounded_regex", "tpxd.lorawan.json_path"},
}
"""Foreign package to the modules that may import it."""

BARRIERS = {"tpxd.errors": "a bug ends at the connection, request or peer that reached it"}
"""The only modules that may swallow every exception, with the reason."""


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file.read_text() for file in FILES}


def imports(source: str) -> Iterator[str]:
    """Every imported module, wherever in the file; `from tpxd import log` counts as `tpxd.log`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            module = node.module or ""
            inner = [f"{module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else module for name in inner)


def room_of(module: str) -> str:
    """The room of a module of tpxd; "" for the package itself, which holds the version only."""
    return [*module.split("."), ""][1]


def technology_of(module: str) -> str:
    """What a module of `connectors` is for: a file or a folder each; "" for the room itself."""
    return [*module.split("."), ""][2]


def forbidden(importer: str, imported: str) -> bool:
    here, there = room_of(importer), room_of(imported)
    if there == "":
        return False
    if here == there == "connectors":
        mine, other = technology_of(importer), technology_of(imported)
        return mine not in ("", other) and other != SHARED_BY_CONNECTORS
    if here == there:
        return False
    if here == "simulate":
        return there not in ORACLE
    if there in GROUND:
        return here in GROUND and here != "lorawan" and there == "lorawan"
    return here in GROUND or there not in ROOMS[here]


def swallowers(source: str) -> Iterator[int]:
    """The lines of handlers that catch everything; those that only clean up and raise again are none."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            names = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} if node.type else set()
            last = node.body[-1]
            raises = isinstance(last, ast.Raise) and last.exc is None
            if not raises and (node.type is None or names & {"Exception", "BaseException"}):
                yield node.lineno


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    up = [name for name in imports(MODULES[module]) if name.split(".")[0] == "tpxd" and forbidden(module, name)]
    assert not up, f"{module} must not import {up}"


@pytest.mark.parametrize("module", [module for module in MODULES if room_of(module) != "spool"])
def test_the_spool_is_known_by_its_contract_alone(module: str) -> None:
    inside = [name for name in imports(MODULES[module]) if name.startswith("tpxd.spool.")]
    assert not inside, f"{module} must not import {inside}"
    assert "JournalSpool" not in MODULES[module]


@pytest.mark.parametrize("module", MODULES)
def test_protocol_libraries_stay_in_their_files(module: str) -> None:
    foreign = {name.split(".")[0] for name in imports(MODULES[module])}
    astray = [name for name, allowed in CONFINED.items() if name in foreign and module not in allowed]
    assert not astray, f"{module} must not import {astray}"


OPTION = re.compile(r"[a-z]+(?:[A-Z][a-z]+)+")
"""How options of a connection file are spelled: camelCase, as nothing of our own is."""


def test_wire_names_no_option() -> None:
    load()
    fields = (name for each in REGISTRY.values() for name in each.config.model_fields)
    options = {name for name in fields if OPTION.fullmatch(name)}
    assert len(options) > 30
    named = {module: options & {*OPTION.findall(text)} for module, text in MODULES.items() if room_of(module) == "wire"}
    assert {module: names for module, names in named.items() if names} == {}


@pytest.mark.parametrize("module", MODULES)
def test_only_barriers_catch_everything(module: str) -> None:
    lines = list(swallowers(MODULES[module]))
    assert module in BARRIERS or not lines, f"{module} catches everything in lines {lines}"


def test_every_barrier_is_one() -> None:
    assert [module for module in BARRIERS if not list(swallowers(MODULES[module]))] == []


@pytest.mark.parametrize("room", sorted(name for name in MODULES if (PACKAGE.parent / name.replace(".", "/")).is_dir()))
def test_each_room_says_what_each_of_its_files_is_for(room: str) -> None:
    """The docstring of `__init__` is the room's map: whoever looks for the place of a change begins there."""
    folder = PACKAGE.parent / room.replace(".", "/")
    told = (ast.get_docstring(ast.parse(MODULES[room])) or "").split()
    inside = [path for path in folder.iterdir() if not path.name.startswith("_")]
    here = {path.stem for path in inside if path.suffix == ".py"}
    here |= {f"{path.name}/" for path in inside if (path / "__init__.py").exists()}
    assert here - {word.rstrip(",.") for word in told} == set(), f"the docstring of {room} leaves them out"


def test_every_room_is_in_the_table() -> None:
    inside = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith(("_", "."))}
    assert inside - {"simulate"} == (set(ROOMS) | GROUND) - {"__main__"} - ({"codecs"} - inside)


def test_tests_share_helpers_and_never_import_one_another() -> None:
    taken = {str(file.relative_to(ROOT)): [*imports(file.read_text())] for file in TESTS}
    sideways = {
        name: [each for each in names if each.split(".")[-1].startswith("test_")] for name, names in taken.items()
    }
    assert {name: names for name, names in sideways.items() if names} == {}


@pytest.mark.parametrize(
    ("importer", "imported", "expected"),
    [
        ("tpxd.connection.delivery", "tpxd.spool.journal", False),
        ("tpxd.connection.delivery", "tpxd.control.server", True),
        ("tpxd.connection.delivery", "tpxd.timing", False),
        ("tpxd.connection.connection", "tpxd.simulate.lrc", True),
        ("tpxd.intake.server", "tpxd.control.server", True),
        ("tpxd.intake.server", "tpxd.connection.health", True),
        ("tpxd.config.settings", "tpxd.config.fields", False),
        ("tpxd.wire.streams", "tpxd.config.settings", True),
        ("tpxd.spool.spool", "tpxd.wire.streams", True),
        ("tpxd.connectors.mqtt", "tpxd.connectors.http.connector", True),
        ("tpxd.connectors.mqtt", "tpxd.connectors.parts.mqtt", False),
        ("tpxd.connectors.parts.mqtt", "tpxd.connectors.mqtt", True),
        ("tpxd.connectors.aws_iot.connector", "tpxd.connectors.aws_iot.things", False),
        ("tpxd.connectors.mqtt", "tpxd.spool", True),
        ("tpxd.connectors.mqtt", "tpxd.connector", False),
        ("tpxd.simulate.lrc", "tpxd.lorawan.token", True),
        ("tpxd.simulate.lrc", "tpxd.errors", False),
        ("tpxd.simulate.lrc", "tpxd.simulate.token", False),
        ("tpxd.cli.simulate", "tpxd.simulate.lrc", False),
        ("tpxd.lorawan.reports", "tpxd.errors", False),
        ("tpxd.errors", "tpxd.lorawan.reports", True),
        ("tpxd.errors", "tpxd.config.fields", True),
        ("tpxd.log", "tpxd", False),
    ],
)
def test_the_rule_itself(importer: str, imported: str, expected: bool) -> None:
    assert forbidden(importer, imported) is expected


def test_imports_inside_functions_count() -> None:
    source = "def f():\n    from tpxd import log\n    import asyncio.events\n"
    assert list(imports(source)) == ["tpxd.log", "asyncio.events"]


@pytest.mark.parametrize(
    ("handler", "lines"),
    [
        ("except Exception:\n    pass", [3]),
        ("except:\n    pass", [3]),
        ("except (OSError, BaseException) as e:\n    log(e)", [3]),
        ("except BaseException:\n    close()\n    raise", []),
        ("except OSError:\n    pass", []),
    ],
)
def test_what_catching_everything_means(handler: str, lines: list[int]) -> None:
    assert list(swallowers(f"try:\n    f()\n{handler}\n")) == lines
