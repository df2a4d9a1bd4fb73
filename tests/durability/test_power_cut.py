"""The power is cut while reports are stored: nothing that was answered is lost, and nobody is alarmed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tests.durability import shim
from tests.durability.images import Disk, Loss, write_image
from tests.durability.recording import Act, Synced, read_record
from tests.durability.survivors import answers_in, examine

LOG = "spool.db-wal"


def recorded(where: Path, count: int) -> tuple[shim.Disk, list[Act]]:
    disk = shim.disk(where, record=True)
    done = disk.python(["-m", "tests.durability.posting", str(disk.root), "1", str(count)])
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert disk.record is not None
    return disk, read_record(disk.record)


def moments(acts: list[Act]) -> Iterator[tuple[int, Disk]]:
    """Each moment just before the log is synced, when all of a commit may or may not be on disk."""
    disk = Disk()
    for at, act in enumerate(acts):
        if isinstance(act, Synced) and act.name == LOG and "answers" in disk.files:
            yield at, disk.copy()
        disk.follow(act)


def test_a_record_followed_to_its_end_is_what_lies_there(in_memory: Path) -> None:
    disk, acts = recorded(in_memory, 60)
    followed = Disk()
    for act in acts:
        followed.follow(act)
    there = {one.name: one.read_bytes() for one in disk.root.iterdir() if one.suffix != ".lock"}
    assert followed.image(Loss.NOTHING, Random(0)) == there
    assert followed.image(Loss.ALL, Random(0))["spool.db"] == there["spool.db"]


def test_a_start_after_a_power_cut_is_ordinary(in_memory: Path) -> None:
    _, acts = recorded(in_memory, 150)
    chance, wrong = Random(1), []
    for at, disk in moments(acts):
        for loss in Loss:
            image = disk.image(loss, chance)
            del image["answers"]
            write_image(image, in_memory / "image")
            found = examine(in_memory / "image" / "spool.db", answers_in(acts[:at]))
            wrong += [f"{loss.name} at {at}: {one}" for one in found.wrong]
            shutil.rmtree(in_memory / "image")
    assert not wrong
