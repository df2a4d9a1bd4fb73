"""`tpxd check`: everything that is wrong with files, before the daemon reads them.

connections.d/plant.toml:7:12: configuration.protocol: "SLS" is not one of TCP, SSL, WSS; did you mean "SSL"?
warning: connections.d/plant.toml:9:12: configuration.password: the environment variable PLANT is not set
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from tpxd import connectors
from tpxd.cli.options import DEFAULT_CONFIG, Config
from tpxd.cli.secret_files import open_secrets
from tpxd.config.fields import SecretSources
from tpxd.config.problems import schema_of
from tpxd.config.remarks import remarks
from tpxd.config.settings import FILE_NAME, Settings, check_settings
from tpxd.config.toml import is_missing, read_toml
from tpxd.errors import EXIT_INVALID, ConfigError, Problem
from tpxd.reload.files import (
    SUFFIX,
    Directory,
    Loaded,
    clashes,
    id_problem,
    is_connection_name,
    load_directory,
    load_file,
)

CONNECTIONS: Final = "connections.d"


def check_command(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files or directories; default that of --config.")] = None,
    config: Config = DEFAULT_CONFIG,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Validate tpxd.toml and connection files; exit code 0, or 78 when something is wrong."""
    raise typer.Exit(check(paths or [config], as_json=json))


def check(paths: Sequence[Path], *, as_json: bool = False) -> int:
    """Print every problem of these files and directories, one line each; a last line on standard error counts them.

    Args:
        paths: connection files, `tpxd.toml`, directories of connection files, or configuration directories.
        as_json: `{"files": 1, "problems": [{"path", "line", "column", "field", "message", "severity"}]}` instead.

    Returns:
        The exit code: 0, or 78 when there is an error; warnings alone are none.
    """
    connectors.load()
    findings = Findings()
    for path in paths:
        _look_at(path, findings)
    errors = sum(problem.severity == "error" for problem in findings.problems)
    warnings = len(findings.problems) - errors
    if as_json:
        print(orjson.dumps({"files": findings.files, "problems": [asdict(p) for p in findings.problems]}).decode())
    else:
        for problem in findings.problems:
            print(problem if problem.severity == "error" else f"warning: {problem}")
    counts = [
        _count(findings.files, "file"),
        _count(errors, "error"),
        *([_count(warnings, "warning")] if warnings else []),
    ]
    print(", ".join(counts), file=sys.stderr)
    return EXIT_INVALID if errors else 0


@dataclass(slots=True)
class Findings:
    """What was looked at and found so far."""

    files: int = 0
    problems: list[Problem] = field(default_factory=list)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _look_at(path: Path, findings: Findings) -> None:
    """Find out what kind of path this is, and check it as that."""
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where it may not look
        if os.path.lexists(path / FILE_NAME) or os.path.isdir(path / CONNECTIONS):  # noqa: PTH112
            _config_directory(path, findings)
        else:
            _connections(path, str(path), findings)
    elif is_missing(path):
        findings.problems.append(Problem(str(path), 0, 0, "", "there is no such file or directory"))
    elif path.name == FILE_NAME:
        _settings(path, findings)
    else:
        _one_connection(path, findings)


def _config_directory(path: Path, findings: Findings) -> None:
    """`tpxd.toml`, and the connections where it says that they are, or where they usually are when it is wrong."""
    directory = _settings(path / FILE_NAME, findings) or path / CONNECTIONS
    if not is_missing(directory):
        _connections(directory, os.fspath(directory), findings)
    else:
        message = "there is no such directory yet; the daemon waits for it"
        findings.problems.append(Problem(str(directory), 0, 0, "", message, "warning"))


def _settings(path: Path, findings: Findings) -> Path | None:
    """Check `tpxd.toml`; returns the directory of connections."""
    findings.files += not is_missing(path)
    try:
        settings, warnings = check_settings(path, str(path), _sources(path.parent))
    except ConfigError as error:
        findings.problems += error.problems
        return None
    findings.problems += warnings
    if not is_missing(path):
        source = read_toml(path, str(path))[1]
        findings.problems += open_secrets(source, path.parent, schema_of(Settings))
    return settings.connections_dir


def _connections(path: Path, shown: str, findings: Findings) -> None:
    try:
        directory = load_directory(path, _sources(path), shown)
    except ConfigError as error:
        findings.problems += error.problems
        return
    findings.files += len(directory.entries) + len(directory.strays)
    findings.problems += directory.strays
    _entries(directory, path, findings, directory.entries)


def _one_connection(path: Path, findings: Findings) -> None:
    findings.files += 1
    if problem := id_problem(path.name.removesuffix(".toml")):
        findings.problems.append(Problem(str(path), 0, 0, "", problem))
    entry = load_file(path, _sources(path.parent), str(path))
    beside: set[str] = set()
    with suppress(OSError):  # a directory may open its files and not list them
        beside = {each.name.removesuffix(SUFFIX) for each in path.parent.iterdir() if is_connection_name(each.name)}
    _entries(Directory({entry.id: entry}, ()), path.parent, findings, beside)


def _entries(directory: Directory, path: Path, findings: Findings, ids: Collection[str]) -> None:
    loaded = [entry for entry in directory.entries.values() if isinstance(entry, Loaded)]
    clashing = clashes(loaded, ids)
    for entry in directory.entries.values():
        if isinstance(entry, Loaded):
            findings.problems += (*clashing.get(entry.id, ()), *entry.warnings, *remarks(entry.file, entry.source))
            findings.problems += open_secrets(entry.source, path, schema_of(type(entry.file)))
        else:
            findings.problems += entry.problems


def _sources(directory: Path) -> SecretSources:
    return SecretSources(directory, lenient=True)
