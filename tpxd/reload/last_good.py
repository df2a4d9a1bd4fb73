"""What must survive a restart about connection files: how many versions were seen, and the last one that was at work.

    last-good/versions.json    {"plant": {"generation": 3, "digest": "…"}}, synced before the versions are acted on
    last-good/plant.toml       the text of the version at work, and its generation in a last line of its own:
                               # kept by tpxd: generation 2

References of secrets stay references. Files are 0600 in a directory of 0700 and replaced as a whole. Keeping a text
does not wait for the disk, since the event loop does it; `sync` does. A text that a power cut tore lacks the last line,
and is none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import orjson

VERSIONS: Final = "versions.json"

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_LAST_LINE: Final = re.compile(rb"\n# kept by tpxd: generation (\d+)\n\Z")


@dataclass(slots=True)
class Versions:
    """What was seen of one id; its owner counts in it.

    Attributes:
        generation: how many versions were seen, bad ones too; never falls.
        digest: of the newest one; "" when the file is gone.
    """

    generation: int = 0
    digest: str = ""


class Kept(NamedTuple):
    """The version that was at work last."""

    generation: int
    text: bytes


class LastGood:
    """The directory of copies. What writes raises OSError when the disk refuses; the former copy stays."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def recall(self) -> dict[str, Versions]:
        """What `remember` was given last; nothing when it is not there or damaged."""
        try:
            records = orjson.loads((self.directory / VERSIONS).read_bytes())
            return {id: Versions(int(each["generation"]), str(each["digest"])) for id, each in records.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def remember(self, versions: Mapping[str, Versions]) -> None:
        """Replace the record of all ids; it is on disk when this returns."""
        self._replace(VERSIONS, orjson.dumps(versions), synced=True)
        self._sync(".")

    def ids(self) -> list[str]:
        """The ids that may have a text."""
        return [path.stem for path in self.directory.glob("[!.]*.toml")]

    def kept(self, id: str) -> Kept | None:
        """The text that was kept, None when there is none that is whole."""
        try:
            content = (self.directory / f"{id}.toml").read_bytes()
        except OSError:
            return None
        last = _LAST_LINE.search(content)
        return Kept(int(last[1]), content[: last.start()]) if last else None

    def keep(self, id: str, kept: Kept) -> None:
        """Replace the text of one id; it outlives the process at once, and a power cut after `sync`."""
        self._replace(f"{id}.toml", b"%b\n# kept by tpxd: generation %d\n" % (kept.text, kept.generation), synced=False)

    def drop(self, id: str) -> None:
        """Delete the text of one id."""
        (self.directory / f"{id}.toml").unlink(missing_ok=True)

    def sync(self, ids: Iterable[str]) -> None:
        """Wait until the texts of these ids are on disk."""
        for id in ids:
            self._sync(f"{id}.toml")
        self._sync(".")

    def _replace(self, name: str, content: bytes, *, synced: bool) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self.directory / f".{name}.new"
        with os.fdopen(os.open(new, _CREATE, 0o600), "wb") as file:
            file.write(content)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        new.replace(self.directory / name)

    def _sync(self, name: str) -> None:
        try:
            descriptor = os.open(self.directory / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # dropped meanwhile
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
