"""Imports go down only, each foreign library stays in its file, tests stand alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tpxd"
FILES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

LEVELS: tuple[frozenset[str], ...] = tuple(
    frozenset(rooms.split())
    for rooms in (
        "__main__",
        "cli",
        "demo",
        "daemon daemon_state embedded_broker",
        "control intake",
        "engine",
        "connectors",
        "aws_iot_config aws_things connector left_at_broker mqtt_transport topics",
        "codecs spool",
        (
            "alarms config connection_file flow link_config log problems remarks "
            "secret settings tls_config toml_places toml_source"
        ),
        "wire",
        "barrier errors events lifeline lorawan masking open_files sdnotify timing",
    )
)
"""Highest first; a room is a directory or a single file at the top."""

APART = {"simulate": {"errors"}, "broker": {"lifeline"}}
"""Rooms beside the others, and all that they may import: they stand for programs that share no code with tpxd."""

PEERS_OF_NONE = {"connectors": {"spool"}}
"""Rooms whose files never import one another, and further rooms they never import."""

CONFINED = {
    "quickjs": {"tpxd.codecs.engine"},
    "trio_parallel": {"tpxd.codecs.workers"},
    "asyncio": {"tpxd.broker"},
    "amqtt": {"tpxd.broker", "tpxd.wire.mqtt_codec"},
    "aiormq": {"tpxd.wire.amqp_codec"},
    "pamqp": {"tpxd.wire.amqp_codec"},
    "trio_websocket": {"tpxd.wire.websocket"},
    "h11": {"tpxd.wire.proxy", "tpxd.wire.websocket"},
    "jsonpath": {"tpxd.lorawan.json_path"},
    "regex": {"tpxd.lorawan.bounded_regex", "tpxd.lorawan.json_path"},
}
"""Foreign package to the modules that may import it."""

BARRIERS = {"tpxd.barrier": "a bug ends at the connection, request or peer that reached it"}
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


def level_of(room: str) -> int:
    found = [level for level, rooms in enumerate(LEVELS) if room in rooms]
    assert found, f"{room} has no place yet: give it one in LEVELS"
    return found[0]


def forbidden(importer: str, imported: str) -> bool:
    here, there = room_of(importer), room_of(imported)
    if importer == imported or there == "":
        return False
    if here in PEERS_OF_NONE and (there in PEERS_OF_NONE[here] or there == here):
        return importer != f"tpxd.{here}"
    if here == there:
        return False
    if here in APART:
        return there not in APART[here]
    if there in APART:
        return level_of(here) > level_of("demo")
    single_file = f"tpxd.{there}" in MODULES and not (PACKAGE / there).is_dir()
    return level_of(there) < level_of(here) or (level_of(there) == level_of(here) and not single_file)


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


@pytest.mark.parametrize("module", MODULES)
def test_protocol_libraries_stay_in_their_files(module: str) -> None:
    foreign = {name.split(".")[0] for name in imports(MODULES[module])}
    astray = [name for name, allowed in CONFINED.items() if name in foreign and module not in allowed]
    assert not astray, f"{module} must not import {astray}"


@pytest.mark.parametrize("module", MODULES)
def test_only_barriers_catch_everything(module: str) -> None:
    lines = list(swallowers(MODULES[module]))
    assert module in BARRIERS or not lines, f"{module} catches everything in lines {lines}"


def test_every_barrier_is_one() -> None:
    assert [module for module in BARRIERS if not list(swallowers(MODULES[module]))] == []


def test_tests_share_helpers_and_never_import_one_another() -> None:
    taken = {str(file.relative_to(ROOT)): [*imports(file.read_text())] for file in TESTS}
    sideways = {
        name: [each for each in names if each.split(".")[-1].startswith("test_")] for name, names in taken.items()
    }
    assert {name: names for name, names in sideways.items() if names} == {}


@pytest.mark.parametrize(
    ("importer", "imported", "expected"),
    [
        ("tpxd.engine.delivery", "tpxd.spool.journal", False),
        ("tpxd.engine.delivery", "tpxd.control.server", True),
        ("tpxd.intake.server", "tpxd.control.server", True),
        ("tpxd.settings", "tpxd.config", False),
        ("tpxd.wire.streams", "tpxd.settings", True),
        ("tpxd.connectors.mqtt", "tpxd.connectors.http", True),
        ("tpxd.connectors.mqtt", "tpxd.spool", True),
        ("tpxd.connectors.mqtt", "tpxd.connector", False),
        ("tpxd.simulate.lrc", "tpxd.lorawan.token", True),
        ("tpxd.simulate.lrc", "tpxd.simulate.token", False),
        ("tpxd.engine.connection", "tpxd.simulate.lrc", True),
        ("tpxd.cli.simulate", "tpxd.simulate.lrc", False),
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
