"""Reads connection files: one file into a model or its problems, a directory into entries by id.

    connections.d/plant.toml     the connection `plant`
    connections.d/.plant.swp     ignored, as is everything that does not end in .toml
    connections.d/Plant.toml     a stray: its name is no id, which is told and not passed over in silence

Nothing here remembers or decides; `versions` does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, create_model

from tpxd.config.connection_file import ConnectionFile, ConnectorConfig
from tpxd.config.fields import SecretSources
from tpxd.config.problems import MOST, shortened, suggestion, validate
from tpxd.config.secret import Fingerprint, fingerprint, plain
from tpxd.config.toml import MAX_BYTES, TomlSource, check_size, parse_toml, read_bytes
from tpxd.connection.chains import circle
from tpxd.connector import REGISTRY
from tpxd.errors import ConfigError, Problem, unreadable

SUFFIX: Final = ".toml"
RESERVED: Final = frozenset({"live", "ready"})
"""They would hide behind /health/live and /health/ready."""

_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file that is fine.

    Attributes:
        digest: changes when the file or a file that its secrets name does.
        watched: the files that its secrets name, with what they held.
        warnings: what lenient or forgiving sources let pass.
    """

    id: str
    file: ConnectionFile
    source: TomlSource
    content: bytes
    digest: str
    watched: Mapping[Path, Fingerprint]
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that is not; `problems` is never empty.

    Attributes:
        name, connector_id: as the file has them, "" and None where that cannot be read.
    """

    id: str
    problems: tuple[Problem, ...]
    content: bytes
    digest: str
    watched: Mapping[Path, Fingerprint]
    name: str = ""
    connector_id: str | None = None


Entry = Loaded | Broken


@dataclass(frozen=True, slots=True)
class Directory:
    """What a directory holds; strays are files that look like connections and have no id."""

    entries: Mapping[str, Entry]
    strays: tuple[Problem, ...]


def id_problem(id: str) -> str | None:
    """Why this is no id of a connection, None when it is one."""
    if id in RESERVED:
        return f'"{id}" is no id, since the health of the daemon answers to it; rename the file'
    if not _ID.fullmatch(id):
        return f'"{_printable(id)}" is no id; name the file with at most 63 of a-z 0-9 . _ -, such as plant-1.toml'
    return None


def _printable(name: str) -> str:
    """The name on one line, whatever bytes it was made of."""
    return name if name.isprintable() else name.encode("unicode_escape").decode()


def load_directory(path: Path, sources: SecretSources, shown: str) -> Directory:
    """Read every connection file.

    Raises:
        ConfigError: the directory itself cannot be read.
    """
    ids, strays = list_directory(path, shown)
    return Directory({id: load_file(file_of(path, id), sources, f"{shown}/{id}{SUFFIX}") for id in ids}, strays)


def list_directory(path: Path, shown: str) -> tuple[list[str], tuple[Problem, ...]]:
    """The ids of the connection files there are, and the strays.

    Raises:
        ConfigError: the directory cannot be read.
    """
    try:
        names = sorted(name for name in os.listdir(path) if is_connection_name(name))  # noqa: PTH208 - names alone
    except OSError as error:
        raise ConfigError([Problem(str(path), 0, 0, "", f"the directory {unreadable(error)}")]) from error
    problems = {name: id_problem(name.removesuffix(SUFFIX)) for name in names}
    strays = [Problem(f"{shown}/{_printable(name)}", 0, 0, "", fault) for name, fault in problems.items() if fault]
    return [name.removesuffix(SUFFIX) for name, fault in problems.items() if not fault], tuple(strays)


def file_of(directory: Path, id: str) -> Path:
    """Where the file of a connection stands."""
    return directory / f"{id}{SUFFIX}"


def is_connection_name(name: str) -> bool:
    """Whether a file of this name is meant as a connection."""
    return name.endswith(SUFFIX) and not name.startswith(".")


def load_file(
    path: Path, sources: SecretSources, shown: str, known: Entry | None = None, *, most_bytes: int = MAX_BYTES
) -> Entry:
    """Read one connection file, its id is its stem; more than `most_bytes` of it are not even read."""
    id = path.name.removesuffix(SUFFIX)
    try:
        content = read_bytes(path, shown, most_bytes=most_bytes)
    except ConfigError as error:
        return Broken(id, tuple(error.problems), b"", _digest(str(error).encode(), {}), {})
    if known is not None and known.content == content and is_current(known):
        return known
    return parse_file(id, content, sources, shown)


def unread(id: str, problem: Problem) -> Broken:
    """A file of which nothing is known but why it could not be read."""
    return Broken(id, (problem,), b"", _digest(str(problem).encode(), {}), {})


def is_current(entry: Entry) -> bool:
    """Whether the files that the entry's secrets name hold what they held."""
    return all(fingerprint(path) == seen for path, seen in entry.watched.items())


def parse_file(id: str, content: bytes, sources: SecretSources, shown: str) -> Entry:
    """Make a model of a connection file's content, or list everything that is wrong with it."""
    sources = replace(sources, files={})
    said: Mapping[str, Any] = {}
    try:
        if not sources.forgiving:
            check_size(content, shown)
        source = parse_toml(content, shown)
        said = source.document
        if not source.document:
            raise ConfigError([Problem(shown, 1, 1, "connectorId", "is missing; the file is empty")])
        file, warnings = validate(_model_for(source.document.get("connectorId")), source, sources)
    except ConfigError as error:
        digest = _digest(content, sources.files)
        return Broken(id, tuple(error.problems), content, digest, sources.files, *_names(said))
    return Loaded(id, file, source, content, _digest(content, sources.files), sources.files, tuple(warnings))


def _names(document: Mapping[str, Any]) -> tuple[str, str | None]:
    """The name and the connectorId that a document has, as far as they are what they should be."""
    name, connector_id = document.get("name"), document.get("connectorId")
    known = isinstance(connector_id, str) and connector_id in REGISTRY
    return name if isinstance(name, str) else "", connector_id if known else None


def _digest(content: bytes, watched: Mapping[Path, Fingerprint]) -> str:
    digest = sha256(content)
    for path, seen in sorted(watched.items()):
        digest.update(b"\0" + bytes(path) + b"\0" + (seen or b""))
    return digest.hexdigest()


def _registered(connector_id: str) -> str:
    if connector_id not in REGISTRY:
        known = ", ".join(sorted(REGISTRY))
        raise ValueError(f'"{connector_id[:60]}" is not one of {known}{suggestion(connector_id, REGISTRY)}')
    return connector_id


class _OfUnknownConnector(ConnectionFile):
    """Finds what is wrong besides the connectorId; nobody knows what the configuration should be."""

    connectorId: Annotated[str, AfterValidator(_registered)]
    configuration: Any


def _model_for(connector_id: Any) -> type[ConnectionFile]:
    known = REGISTRY.get(connector_id) if isinstance(connector_id, str) else None
    return _OfUnknownConnector if known is None else file_model(known.id, known.config)


@lru_cache(maxsize=256)
def file_model(connector_id: str, config: type[ConnectorConfig]) -> type[ConnectionFile]:
    """The model of a whole file of this connector; always the same one, so that files compare."""
    this_one: Any = Literal[connector_id]
    return create_model(
        f"{config.__name__}File",
        __base__=ConnectionFile,
        connectorId=(this_one, ...),
        configuration=(config, ...),
    )


def clashes(loaded: Iterable[Loaded], ids: Collection[str]) -> dict[str, tuple[Problem, ...]]:
    """What files that are fine by themselves may not say together; earlier ones of `loaded` keep what both want.

    Args:
        ids: all connections that there are, fine or not.
    """
    taken: dict[tuple[str, str], str] = {}
    names: dict[str, list[str]] = {}
    found: dict[str, tuple[Problem, ...]] = {}
    for entry in loaded:
        if problems := _chain_problems(entry, ids, names):
            found[entry.id] = tuple(shortened(problems))
        for path, value in _unique_values(entry.file):
            owner = taken.setdefault((path[-1], value), entry.id)
            if owner != entry.id:
                shown = f'"{value}" ' if path[-1] == "listen" else ""
                message = f"{shown}is taken by the connection {owner}; choose another"
                problem = entry.source.problem(".".join(path), message, entry.source.known(path))
                found[entry.id] = (*found.get(entry.id, ()), problem)
    return found


def _chain_problems(entry: Loaded, ids: Collection[str], names: dict[str, list[str]]) -> list[Problem]:
    """What is wrong with whom a file names; what is right with it is added to `names`."""
    problems: list[Problem] = []
    for index, named in enumerate(entry.file.configuration.chainedWithConnectionIds):
        path = ("configuration", "chainedWithConnectionIds", index)
        fault = None
        if named not in ids:
            hint = (
                suggestion(named, ids) if len(problems) < MOST else ""
            ) or "; name the stem of a file beside this one"
            fault = f"names no connection here{hint}"
        elif way := circle(names | {entry.id: [*names.get(entry.id, ()), named]}, entry.id):
            fault = f"{' -> '.join(way)} is a circle; one of these connections must not name the next"
        if fault is None:
            names.setdefault(entry.id, []).append(named)
        else:
            where = entry.source.known(path)
            problems.append(entry.source.problem("configuration.chainedWithConnectionIds", fault, where))
    return problems


def _unique_values(file: ConnectionFile) -> Iterable[tuple[tuple[str, str], str]]:
    if file.health is not None and not file.health.listen.endswith(":0"):
        yield ("health", "listen"), file.health.listen
    if (uuid := plain(file.configuration.downlinkUuid)) is not None:
        yield ("configuration", "downlinkUuid"), uuid
