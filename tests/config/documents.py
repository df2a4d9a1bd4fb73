"""What parsed documents hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tpxd.config.toml_places import Loc


def paths_of(value: Any, path: Loc = ()) -> Iterator[Loc]:
    """Every path of what tomllib parsed."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in items:
        yield from paths_of(inner, (*path, step))
