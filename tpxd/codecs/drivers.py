"""Drivers as people have them, read from `drivers_dir`; nothing of a script runs here.

    thermo.js                      a plain script; its signature shows in the functions that it has
    acme-thr/driver.yaml           a package of Actility's device catalogue, with its `package.json`
    vendor/thermo-codec.yaml       a codec of The Things Network's device repository

A driver is found by its file's path in the directory, by its id `producer:name:version`, or by the `protocolId` that
its package states. Folders are looked through to a depth of six, so that a whole catalogue may be put there.

Sources: the driver guide of Actility's device catalogue; the README of TTN's device repository.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
import yaml

from tpxd.codecs.engine import Operation, Signature
from tpxd.errors import ConfigError, Problem, unreadable

MAX_SCRIPT_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 6
MAX_DRIVERS: Final = 5_000

OPERATIONS: Final[tuple[Operation, ...]] = (
    "decodeUplink",
    "encodeDownlink",
    "decodeDownlink",
    "extractPoints",
    "names",
)
"""What a driver in one script may be asked for."""

SIGNATURES: Final[Mapping[str, Signature]] = {
    "": "lora-alliance",
    "lora-alliance": "lora-alliance",
    "actility": "actility",
    "thingpark-x-js": "actility",
    "ttn": "ttn",
    "chirpstack": "chirpstack",
}
"""What a `driver.yaml` may call its signature."""

TTN_PARTS: Final[Mapping[str, Operation]] = {
    "uplinkDecoder": "decodeUplink",
    "downlinkEncoder": "encodeDownlink",
    "downlinkDecoder": "decodeDownlink",
}


POINTS: Final = "extractPoints.js"
"""Packages may have this function in a script of its own."""


class PlainLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML's plain types; what looks like a time stays text, as in JSON."""


PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in PlainLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver, read and not yet run.

    Attributes:
        id: what it is called in messages and lists.
        names: everything it is found by, in lower case.
        path: the script's file, or of a codec in several files, the one that describes it.
        sources: the script for each operation; `names` stands for what is there.
        uses_context: it wants what its device kept from the last call.
        files: everything it was read from; of its scripts, each with its text.
        functions: what its scripts have, once that was looked at.
    """

    id: str
    names: frozenset[str]
    path: Path
    signature: Signature
    sources: Mapping[Operation, str]
    uses_context: bool = False
    files: Mapping[Path, str | None] = field(default_factory=dict)
    functions: frozenset[str] = frozenset()

    def source(self, operation: Operation) -> str | None:
        """The script that has this operation; None where the driver has none."""
        return self.sources.get(operation)


@dataclass(frozen=True, slots=True)
class Found:
    """What stands below a directory.

    Attributes:
        drivers: by the file that describes each.
        broken: what is wrong with each of the others.
        strays: what is wrong besides.
        folders: all that were looked through.
    """

    drivers: Mapping[Path, Driver]
    broken: Mapping[Path, Sequence[Problem]]
    strays: Sequence[Problem]
    folders: Sequence[Path]

    @property
    def problems(self) -> list[Problem]:
        """Everything that is wrong."""
        return [*self.strays, *(problem for problems in self.broken.values() for problem in problems)]


def read_drivers(directory: Path, unchanged: Callable[[Path], Driver | None] = lambda path: None) -> Found:
    """Read every driver below a directory; a directory that does not exist holds none.

    Args:
        unchanged: what is known already of the driver that a file describes; None: it has to be read.
    """
    drivers: dict[Path, Driver] = {}
    broken: dict[Path, Sequence[Problem]] = {}
    strays: list[Problem] = []
    folders: list[Path] = []
    for path in _descriptions(directory, strays, folders):
        if len(drivers) + len(broken) >= MAX_DRIVERS:
            text = f"more than {MAX_DRIVERS} drivers; the others are left out"
            strays.append(Problem(str(directory), 0, 0, "", text))
            break
        try:
            drivers[path] = unchanged(path) or read_driver(path, directory)
        except ConfigError as error:
            broken[path] = tuple(error.problems)
    return Found(drivers, broken, tuple(strays), tuple(folders))


def read_driver(path: Path, root: Path | None = None) -> Driver:
    """Read one driver.

    Args:
        path: a script, a `driver.yaml` or `*-codec.yaml`, or the folder of a package.
        root: what it may not lead out of; default the folder it is in.

    Raises:
        ConfigError: it cannot be read, or is no driver.
    """
    if path.is_dir():
        path = _description_in(path)
    root = (root or path.parent).resolve()
    if path.suffix == ".js":
        return _script(path, root)
    if path.name == "driver.yaml":
        return _package(path, root)
    if path.name.endswith("-codec.yaml"):
        return _ttn_codec(path, root)
    raise _error(path, "is no driver; a driver is a .js file, a driver.yaml or a *-codec.yaml")


def names_in(report: Mapping[str, Any]) -> list[str]:
    """Which drivers an uplink names: by its `DriverCfg`, else by the `alr` of its `CustomerData`; best first.

    A generic profile says nothing about what a payload means, so it names none.
    """
    names = []
    config = report.get("DriverCfg")
    if isinstance(config, dict):
        if isinstance(config.get("id"), str):
            names.append(config["id"])
        for part in ("app", "mod"):
            match config.get(part):
                case {"pId": str(producer), "mId": str(module), "ver": str() | int() as version}:
                    names.append(f"{producer}:{module}:{version}")
    match report.get("CustomerData"):
        case {"alr": {"pro": str(product), "ver": str() | int() as version}} if not names:
            names.append(f"{product.replace('/', ':', 1)}:{version}")
    return [name for name in dict.fromkeys(map(str.lower, names)) if not _GENERIC.match(name)]


_GENERIC: Final = re.compile(r"(?:generic:|lora:generic)")


def _descriptions(directory: Path, problems: list[Problem], folders: list[Path]) -> Iterator[Path]:
    """What describes a driver each: of a package its description alone, not the scripts beside it."""
    root = directory.resolve()
    waiting = [(directory, 0)]
    while waiting:
        folder, depth = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(Problem(str(folder), 0, 0, "", unreadable(error)))
            continue
        folders.append(folder)
        here = [Path(entry.path) for entry in entries if not entry.name.startswith(".")]
        described = [path for path in here if path.name == "driver.yaml" or path.name.endswith("-codec.yaml")]
        for path in here:
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                problems.append(Problem(str(path), 0, 0, "", f"leads out of {directory}; copy the driver instead"))
            elif path in described or (path.suffix == ".js" and not described):
                if not is_reference(path):
                    yield path
            elif path.is_dir() and path.name != "node_modules" and depth < MAX_DEPTH and not described:
                waiting.append((path, depth + 1))


def is_reference(path: Path) -> bool:
    """Whether a `driver.yaml` stands alone: catalogues refer so to drivers that are not public."""
    if path.name != "driver.yaml":
        return False
    return not any(other.suffix in (".js", ".json") for other in path.parent.iterdir())


def _description_in(folder: Path) -> Path:
    if (folder / "driver.yaml").exists():
        return folder / "driver.yaml"
    found = sorted(folder.glob("*-codec.yaml")) or sorted(folder.glob("*.js"))
    if len(found) != 1:
        raise _error(folder, "holds no driver.yaml; name the driver's own file")
    return found[0]


def _script(path: Path, root: Path) -> Driver:
    source = _read(path, root)
    if not re.search(r"\b(decodeUplink|Decoder|Decode|encodeDownlink|Encoder|Encode)\b", source):
        raise _error(path, "has none of decodeUplink, Decoder, Decode, encodeDownlink, Encoder and Encode")
    id = _inside(path, root)
    sources = dict.fromkeys(OPERATIONS, source)
    return Driver(id, frozenset({id.lower()}), path, "lora-alliance", sources, files={path: source})


def _package(path: Path, root: Path) -> Driver:
    description = _mapping(path, root)
    folder = path.parent
    about: dict[str, Any] = {}
    if (folder / "package.json").exists():
        try:
            about = orjson.loads(_read(folder / "package.json", root))
        except orjson.JSONDecodeError as error:
            raise _error(folder / "package.json", f"is no JSON: {error.msg}", error.lineno, error.colno) from None
        if not isinstance(about, dict):
            raise _error(folder / "package.json", "is no JSON object")
    named = description.get("signature")
    signature = SIGNATURES.get(str(named or ""))
    if signature is None:
        raise _error(path, f'signature: "{str(named)[:60]}" is not one of lora-alliance, actility, ttn, chirpstack')
    main = about.get("main") if isinstance(about.get("main"), str) else "index.js"
    script = folder / str(main)
    if script.is_dir():
        script /= "index.js"
    source = _read(script, root)
    protocol = description.get("protocolId")
    names = {_inside(folder, root).lower(), *([protocol.lower()] if isinstance(protocol, str) else [])}
    if id := _package_id(about):
        names.add(id.lower())
    shown = id or (protocol if isinstance(protocol, str) else _inside(folder, root))
    uses_context = description.get("useContext") is True
    sources = dict.fromkeys(OPERATIONS, source)
    files = {path: None, folder / "package.json": None, script: source, (points := folder / POINTS): None}
    if points.exists():
        files[points] = sources["extractPoints"] = _read(points, root)
    return Driver(shown, frozenset(names), script, signature, sources, uses_context, files)


def _package_id(about: Mapping[str, Any]) -> str | None:
    """`producer:name:major`, as IoT Flow calls a driver."""
    match about:
        case {"name": str(name), "version": str(version), "driver": {"producerId": str(producer)}}:
            return f"{producer}:{name.rpartition('/')[2]}:{version.partition('.')[0]}"
    return None


def _ttn_codec(path: Path, root: Path) -> Driver:
    description = _mapping(path, root)
    sources: dict[Operation, str] = {}
    files: dict[Path, str | None] = {path: None}
    for part, operation in TTN_PARTS.items():
        match description.get(part):
            case {"fileName": str(name)}:
                files[path.parent / name] = sources[operation] = _read(path.parent / name, root)
    if not sources:
        raise _error(path, "names no uplinkDecoder, downlinkEncoder or downlinkDecoder with a fileName")
    sources["names"] = next(iter(sources.values()))
    id = _inside(path, root).removesuffix(".yaml")
    return Driver(id, frozenset({id.lower(), f"{id}.yaml".lower()}), path, "lora-alliance", sources, files=files)


def _mapping(path: Path, root: Path) -> dict[str, Any]:
    text = _read(path, root)
    try:
        found = yaml.load(text, Loader=PlainLoader)  # noqa: S506 - a safe loader, but for times, which stay text
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise _error(
            path, f"is no YAML: {getattr(error, 'problem', None) or 'it cannot be read'}", line, column
        ) from None
    if not isinstance(found, dict):
        raise _error(path, "is no mapping of names to values")
    return found


def _read(path: Path, root: Path) -> str:
    """The text of a file that really lies below `root`."""
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(root):
            raise _error(path, f"leads out of {root}; copy the file instead")
        with real.open("rb") as file:
            content = file.read(MAX_SCRIPT_BYTES + 1)
    except OSError as error:
        raise _error(path, unreadable(error)) from None
    if len(content) > MAX_SCRIPT_BYTES:
        raise _error(path, f"is longer than {MAX_SCRIPT_BYTES >> 20} MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _error(path, "is not UTF-8 from here on", line, 1) from None


def _inside(path: Path, root: Path) -> str:
    resolved = path.resolve()
    return resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else path.name


def _error(path: Path, message: str, line: int = 0, column: int = 0) -> ConfigError:
    return ConfigError([Problem(str(path), line, column, "", message)])
