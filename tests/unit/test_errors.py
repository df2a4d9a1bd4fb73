"""What `errors.py` says of the errors of tpxd, against the classes that there are."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module

import tpxd
from tpxd import errors
from tpxd.errors import TpxdError

for _module in pkgutil.walk_packages(tpxd.__path__, "tpxd."):
    if not _module.name.endswith("__main__"):
        import_module(_module.name)


def kinds_of(base: type[TpxdError]) -> Iterator[type[TpxdError]]:
    """All public kinds of an error, in the order in which they were made."""
    for kind in base.__subclasses__():
        if not kind.__name__.startswith("_"):
            yield kind
            yield from kinds_of(kind)


def drawn() -> dict[str, str]:
    """Each error of the tree, and the one above it."""
    above: list[tuple[int, str]] = []
    parents = {}
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr] # it has one
        found = re.match(r"    ([ │├└─]*)(\w+)", line)
        if found and (found[1] or found[2] == "TpxdError"):
            above = [(depth, name) for depth, name in above if depth < len(found[1])]
            parents[found[2]] = above[-1][1] if above else "Exception"
            above.append((len(found[1]), found[2]))
    return parents


def listed() -> set[tuple[str, str]]:
    """The further errors, each with its room."""
    _, _, text = (errors.__doc__ or "").partition("where they are raised:")
    rows = re.findall(r"^    (\w+) +(.+)$", text, re.MULTILINE)
    return {(room, name) for room, names in rows for name in names.split(", ")}


def test_the_tree_of_errors_is_the_one_that_is_drawn() -> None:
    here: list[type[Exception]] = [
        TpxdError,
        *(kind for kind in kinds_of(TpxdError) if kind.__module__ == errors.__name__),
    ]
    assert drawn() == {kind.__name__: kind.__bases__[0].__name__ for kind in here}


def test_every_other_error_is_listed_with_its_room() -> None:
    elsewhere = [kind for kind in kinds_of(TpxdError) if kind.__module__ != errors.__name__]
    assert listed() == {(kind.__module__.split(".")[1], kind.__name__) for kind in elsewhere}
