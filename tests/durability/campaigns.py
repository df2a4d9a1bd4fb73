"""Faults, each at one moment after the other: runs `posting` on a disk of the shim, and looks at what it leaves."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.durability import shim
from tests.durability.images import Disk, Loss, write_image
from tests.durability.recording import Act, Renamed, Synced, Written, read_record
from tests.durability.shim import Place
from tests.durability.survivors import Outcome, answered, answers_in, examine

LOG = "spool.db-wal"
REPORTS = 40
MOMENTS = 150
"""Of one record, at which the power is cut."""


def posted(disk: shim.Disk, count: int, first: int = 1, plan: int = 0) -> list[Act]:
    """Post to the end; what was recorded, of earlier runs on this disk too."""
    post(disk, count, first, plan)
    assert disk.record is not None
    return read_record(disk.record)


def post(disk: shim.Disk, count: int, first: int = 1, plan: int = 0) -> bool:
    """Post to the end, or to where the process is killed: then True."""
    arguments = [str(disk.root), str(first), str(count), str(plan)]
    done = disk.python(["-m", "tests.durability.posting", *arguments])
    assert done.returncode in (0, -9), done.stderr
    return done.returncode == -9


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


def moments(acts: list[Act], chosen: Collection[int]) -> Iterator[tuple[int, Disk]]:
    """The disk after so many acts, for each of the numbers."""
    disk = Disk()
    for at, act in enumerate(acts, 1):
        disk.follow(act)
        if at in chosen:
            yield at, disk.copy()


def cut_and_look(
    acts: list[Act], at: int, disk: Disk, loss: Loss, chance: Random, where: Path, *, failed: bool = False
) -> Outcome:
    """Cut the power at a moment, and look at what is left; `where` is used for it and gone afterwards."""
    image = disk.image(loss, chance)
    image.pop("answers", None)
    write_image(image, where)
    try:
        return examine(where / "spool.db", answers_in(acts[:at]), failed=failed)
    finally:
        shutil.rmtree(where)


def look_at_what_lies_there(disk: shim.Disk, *, failed: bool = False) -> Outcome:
    """What a kill left: all that was written is there, synced or not."""
    notes = disk.root / "answers"
    text = notes.read_text() if notes.exists() else ""
    return examine(disk.root / "spool.db", answered(text), failed=failed)


def kills(where: Path, counted: Place, how: int) -> Iterator[Outcome]:
    """Kill at each call of a kind in turn, for one plan after the other.

    Args:
        counted: `CALLS`, `WRITES` or `SYNCS`.
        how: `KILL`, or for writes `TEAR`.
    """
    for plan in count(1):
        for number in count(1):
            with _fresh(where) as disk:
                match counted:
                    case Place.WRITES:
                        disk.fail_writes(how, number)
                    case Place.SYNCS:
                        disk.fail_syncs(how, number)
                    case _:
                        disk.set(Place.KILL_AT, number)
                if not post(disk, REPORTS, plan=plan):
                    break
                found = look_at_what_lies_there(disk)
            yield placed(found, f"plan {plan}, killed at {number}")


def kills_amid_a_copy(where: Path) -> Iterator[Outcome]:
    """A sync fails, and the process is killed at each call in turn of what it does about that."""
    for plan in count(1):
        for number in range(1, 200):
            with _fresh(where) as disk:
                post(disk, 5, plan=plan)
                disk.fail_syncs(errno.EIO, disk.get(Place.SYNCS) + Random(plan).randint(3, 12))
                disk.set(Place.KILL_AFTER, number)
                if not post(disk, REPORTS, 6, plan):
                    break
                found = look_at_what_lies_there(disk, failed=True)
            yield placed(found, f"plan {plan}, killed {number} later")


def cuts(where: Path, loss: Loss) -> Iterator[Outcome]:
    """Cut the power at many moments of one record after the other; in every other one, after a kill and a restart."""
    for plan in count(1):
        chance = Random(plan)
        with _fresh(where, record=True) as disk:
            if plan % 2:
                disk.set(Place.KILL_AT, chance.randint(60, 400))
                post(disk, REPORTS, plan=plan)
            acts = posted(disk, 2 * REPORTS, plan=plan)
        chosen = set(chance.sample(range(1, len(acts) + 1), min(MOMENTS, len(acts))))
        for at, held in moments(acts, chosen):
            found = cut_and_look(acts, at, held, loss, chance, where / "image")
            yield placed(found, f"plan {plan}, {loss.name} at {at}")


def failures(where: Path, counted: Place, why: int) -> Iterator[Outcome]:
    """Let each write or sync in turn fail, once or several times, for one plan after the other."""
    for plan in count(1):
        for number in count(1):
            chance = Random(f"{plan} {number}")
            with _fresh(where, record=True) as disk:
                post(disk, 0, plan=plan)
                first, many = disk.get(counted) + number, chance.choice((1, 1, 2, 5))
                fail = disk.fail_syncs if counted is Place.SYNCS else disk.fail_writes
                fail(why, first, many)
                acts = posted(disk, REPORTS, plan=plan)
                if disk.get(counted) < first:
                    break
                found = look_at_what_lies_there(disk, failed=True)
                found.add(judged_after_failure(acts, chance, where / "image"), "power cut")
            yield placed(found, f"plan {plan}, {many} from {number} on")


def judged_after_failure(acts: list[Act], chance: Random, where: Path, most: int = 4) -> Outcome:
    """Cut the power at some moments after a failure.

    Until a new file is there, what was written before the failure and synced before it is all that is left; from then
    on the new file must hold all, though nothing of the old one can be read.
    """
    failed = next((at for at, act in enumerate(acts) if isinstance(act, Synced) and act.failed), 0)
    renewed = (
        at for at, act in enumerate(acts) if at > failed and isinstance(act, Renamed) and act.after == "spool.db"
    )
    since = next(renewed, None) if failed else failed
    after = [(at, held) for at, held in answers(acts) if at > failed]
    new, old = [one for one in after if since is not None and one[0] > since], after
    outcome = Outcome()
    for chosen, losses in ((new, (Loss.NOTHING, Loss.FAILED)), (old, (Loss.ALL, Loss.SECTORS))):
        for at, held in [*chosen[:most], *chosen[most :: len(chosen) // most + 1]]:
            for loss in losses:
                found = cut_and_look(acts, at, held, loss, chance, where, failed=True)
                outcome.add(found, f"{loss.name} at {at}")
    return outcome


def placed(outcome: Outcome, where: str) -> Outcome:
    """The same, told with where it was."""
    told = Outcome()
    told.add(outcome, where)
    return told


@contextmanager
def _fresh(where: Path, *, record: bool = False) -> Iterator[shim.Disk]:
    with TemporaryDirectory(dir=where) as directory:
        yield shim.disk(Path(directory), record=record)
