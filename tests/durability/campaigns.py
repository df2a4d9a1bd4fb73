"""Runs `posting` on a disk of the shim, and follows what it leaves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tests.durability import shim
from tests.durability.images import Disk, Loss, write_image
from tests.durability.recording import Act, Synced, Written, read_record
from tests.durability.survivors import Outcome, answers_in, examine

LOG = "spool.db-wal"


def posted(disk: shim.Disk, count: int, first: int = 1) -> list[Act]:
    """Post to the end; what was recorded, of earlier runs on this disk too."""
    done = disk.python(["-m", "tests.durability.posting", str(disk.root), str(first), str(count)])
    assert done.returncode in (0, -9), done.stderr
    assert disk.record is not None
    return read_record(disk.record)


def log_syncs(acts: list[Act]) -> Iterator[tuple[int, Disk]]:
    """Each moment just before the log is synced, when all of a commit may or may not be on disk."""
    disk = Disk()
    for at, act in enumerate(acts):
        if isinstance(act, Synced) and act.name == LOG and "answers" in disk.files:
            yield at, disk.copy()
        disk.follow(act)


def answers(acts: list[Act]) -> Iterator[tuple[int, Disk]]:
    """Each moment just after somebody got an answer."""
    disk = Disk()
    for at, act in enumerate(acts):
        disk.follow(act)
        if isinstance(act, Written) and act.name == "answers":
            yield at + 1, disk.copy()


def cut_and_look(acts: list[Act], at: int, disk: Disk, loss: Loss, chance: Random, where: Path) -> Outcome:
    """Cut the power at a moment, and look at what is left; `where` is used for it and gone afterwards."""
    image = disk.image(loss, chance)
    image.pop("answers", None)
    write_image(image, where)
    try:
        return examine(where / "spool.db", answers_in(acts[:at]))
    finally:
        shutil.rmtree(where)
