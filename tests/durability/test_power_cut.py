"""The power is cut while reports are stored: nothing that was answered is lost, and nobody is alarmed."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.durability import shim
from tests.durability.campaigns import answers, cut_and_look, log_syncs, posted
from tests.durability.images import Disk, Loss


def test_a_record_followed_to_its_end_is_what_lies_there(in_memory: Path) -> None:
    disk = shim.disk(in_memory, record=True)
    followed = Disk()
    for act in posted(disk, 60):
        followed.follow(act)
    there = {one.name: one.read_bytes() for one in disk.root.iterdir()}
    assert followed.image(Loss.NOTHING, Random(0)) == there
    assert followed.image(Loss.ALL, Random(0))["spool.db"] == there["spool.db"]


def test_a_start_after_a_power_cut_is_ordinary(in_memory: Path) -> None:
    acts = posted(shim.disk(in_memory, record=True), 60)
    chance, wrong = Random(1), []
    for at, disk in log_syncs(acts):
        for loss in Loss:
            found = cut_and_look(acts, at, disk, loss, chance, in_memory / "image")
            wrong += [f"{loss.name} at {at}: {one}" for one in found.wrong]
    assert not wrong


def test_what_a_start_finds_is_on_disk_before_it_is_answered_for(in_memory: Path) -> None:
    """A commit that was written and not synced looks whole after a kill; its reports are answered as duplicates."""
    wrong = []
    for sync in (10, 19):
        disk = shim.disk(in_memory / f"killed at sync {sync}", record=True)
        disk.fail_syncs(shim.KILL, sync)
        killed = posted(disk, 30)
        acts = posted(disk, 30)
        for at, held in answers(acts):
            if at > len(killed):
                found = cut_and_look(acts, at, held, Loss.ALL, Random(0), in_memory / "image")
                wrong += [f"killed at sync {sync}, cut at {at}: {one}" for one in found.wrong]
    assert not wrong
