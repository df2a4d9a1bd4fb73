"""What must survive a restart about connection files: how many versions were seen, and the last one that was at work.

    last-good/plant.toml     the text of that version, byte for byte; references of secrets stay references
    last-good/plant.json     {"generation": 3, "digest": "…", "accepted": 2}

Files are 0600 in a directory of 0700, and replaced as a whole: a crash leaves the old one or the new one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


@dataclass(slots=True)
class Versions:
    """What was seen of one id; changed by its owner, who then saves it.

    Attributes:
        generation: how many versions were seen, bad ones too; never falls.
        digest: of the newest one; "" when the file is gone.
        accepted: the generation whose text is kept, 0 when none ever was at work.
    """

    generation: int = 0
    digest: str = ""
    accepted: int = 0


class LastGood:
    """The directory of copies."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def recall(self) -> dict[str, Versions]:
        """Everything that was saved; a damaged record begins anew behind its copy."""
        if not self.directory.exists():
            return {}
        return {path.stem: _versions(path) for path in self.directory.glob("[!.]*.json")}

    def text(self, id: str) -> bytes | None:
        """The kept text, None when there is none that can be read."""
        try:
            return (self.directory / f"{id}.toml").read_bytes()
        except OSError:
            return None

    def save(self, id: str, versions: Versions, text: bytes | None = None) -> None:
        """Keep the record, and the text where one is given; both are on disk when this returns.

        Raises:
            OSError: the disk refuses; what was kept before is untouched.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if text is not None:
            self._replace(f"{id}.toml", text)
        record = {"generation": versions.generation, "digest": versions.digest, "accepted": versions.accepted}
        self._replace(f"{id}.json", orjson.dumps(record))
        self._sync()

    def drop(self, id: str) -> None:
        """Delete the text; the record stays, so that the count goes on.

        Raises:
            OSError: the disk refuses.
        """
        (self.directory / f"{id}.toml").unlink(missing_ok=True)

    def _replace(self, name: str, content: bytes) -> None:
        new = self.directory / f".{name}.new"
        with os.fdopen(os.open(new, _CREATE, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.directory / name)

    def _sync(self) -> None:
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _versions(path: Path) -> Versions:
    try:
        record = orjson.loads(path.read_bytes())
        return Versions(int(record["generation"]), str(record["digest"]), int(record["accepted"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Versions()
