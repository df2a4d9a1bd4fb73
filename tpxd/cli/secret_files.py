"""Whether the files that secrets are in may be read by everyone."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tpxd.config.problems import dotted
from tpxd.config.toml import TomlSource
from tpxd.config.toml_places import Loc
from tpxd.errors import Problem

PUBLIC: Final = frozenset({"certificate", "trustedCaCertificate", "trustedCaCertficate"})
"""Keys whose files hold what every peer is shown anyway."""


def open_secrets(source: TomlSource, directory: Path, schema: Mapping[str, Any]) -> Iterator[Problem]:
    """A warning for each secret of a document whose file every user of this machine may read.

    Args:
        directory: what a relative `file` is relative to.
        schema: the document's JSON Schema.
    """
    for loc, name in _files(source.document, ()):
        path = directory / name
        if loc[-1] not in PUBLIC and _is_open(path):
            message = f"every user of this machine may read {path}; chmod o-r takes that away"
            yield source.problem(dotted(loc, schema), message, loc, severity="warning")


def _files(part: object, loc: Loc) -> Iterator[tuple[Loc, str]]:
    """Where secrets refer to files, and to which."""
    match part:
        case {"file": str(name), **rest} if not rest:
            yield loc, name
        case dict():
            for key, value in part.items():
                if key == "tls_private_key" and isinstance(value, str) and value:
                    yield (*loc, key), value
                yield from _files(value, (*loc, key))
        case list():
            for index, value in enumerate(part):
                yield from _files(value, (*loc, index))


def _is_open(path: Path) -> bool:
    try:
        whole = path.resolve(strict=True)
        ways = all(parent.stat().st_mode & stat.S_IXOTH for parent in whole.parents)
        return ways and bool(whole.stat().st_mode & stat.S_IROTH)
    except (OSError, ValueError):
        return False
