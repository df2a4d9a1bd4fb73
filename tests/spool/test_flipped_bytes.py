"""Every byte of a spool is changed in turn: it opens, returns nothing that was not stored, and says what is gone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.spool.journals import drain, store
from tpxd.events import Event
from tpxd.spool import Fate, Rejected, ledger
from tpxd.spool.database import Damaged, sidecars
from tpxd.spool.journal import Journal
from tpxd.spool.rows import CursorRow
from tpxd.spool.starting import renew_journal, start_journal

PAGE = 512
NOW_S = 1_795_000_000.0


@dataclass(frozen=True)
class Sample:
    """A small spool: its files by name, what was in it, and what each queue still waits for.

    Attributes:
        before: the same without the last commit, which begins in the log at `last_commit`.
    """

    files: dict[str, bytes]
    bodies: dict[int, bytes]
    rows: dict[str, CursorRow]
    waiting: dict[str, set[int]]
    before: Sample | None = None
    last_commit: int = 0

    def after_a_flip(self, name: str, at: int) -> Sample:
        """What there is once a byte was changed: a last commit that does not hold never happened."""
        return self.before if self.before is not None and name.endswith("-wal") and at >= self.last_commit else self


def take_sample(directory: Path, *, killed: bool) -> Sample:
    directory.mkdir()
    path = directory / "spool.db"
    journal = start_journal(path, PAGE, lambda: NOW_S, lambda event: None)
    bodies: dict[int, bytes] = {}
    with journal.transaction():
        ledger.ensure(journal, "behind")
        ledger.ensure(journal, "ahead")
        journal.put_meta("remembered.instance", "0badcafe")
    bodies |= store(journal, [40, 3, 90])
    bodies |= store(journal, [700])
    bodies |= store(journal, [120, 50, 60, 70])
    with journal.transaction():
        ledger.settle(journal, "ahead", [(1, Fate.DELIVERED), (2, Rejected("no such topic")), (3, Fate.EXPIRED)], 5)
        ledger.settle(journal, "behind", [(1, Fate.FILTERED)], 5)
    waiting = {"behind": set(range(2, 9)), "ahead": set(range(4, 9))}
    before = Sample({}, bodies, dict(journal.state.cursors), waiting)
    last_commit = sidecars(path)[0].stat().st_size
    with journal.transaction():
        ledger.settle(journal, "behind", [(4, Fate.DELIVERED), (6, Fate.DELIVERED)], 5, in_order=False)
    waiting = {**waiting, "behind": {2, 3, 5, 7, 8}}
    rows = dict(journal.state.cursors)
    if killed:
        files = {one.name: one.read_bytes() for one in (path, sidecars(path)[0])}
        journal.close()
    else:
        journal.close()
        files = {path.name: path.read_bytes()}
    return Sample(files, bodies, rows, waiting, before, last_commit)


def flips(sample: Sample, name: str) -> Iterator[tuple[dict[str, bytes], Sample]]:
    """The files with each byte changed in turn, and what they should hold."""
    for at in range(len(sample.files[name])):
        content = bytearray(sample.files[name])
        content[at] ^= 0xFF
        yield {**sample.files, name: bytes(content)}, sample.after_a_flip(name, at)


def repair_again(journal: Journal, reason: str, events: list[Event]) -> Journal:
    return renew_journal(
        journal,
        Damaged(reason),
        lambda text: None,
        page_size=PAGE,
        wall_clock=lambda: NOW_S,
        note=events.append,
        measure_free=lambda directory: 1 << 40,
    )


def survive(directory: Path, files: dict[str, bytes], sample: Sample) -> bool:
    """Open the changed files and use them; returns whether anything was reported."""
    for name, content in files.items():
        (directory / name).write_bytes(content)
    events: list[Event] = []
    journal = start_journal(directory / "spool.db", PAGE, lambda: NOW_S, events.append)
    for id in ("behind", "ahead"):
        with journal.transaction():
            ledger.ensure(journal, id)

    seen: dict[str, dict[int, bytes]] = {}
    for id in ("behind", "ahead"):
        try:
            seen[id] = drain(journal, id)
        except Damaged as damaged:
            journal = repair_again(journal, str(damaged), events)
            seen[id] = drain(journal, id)
    for id, waiting in sample.waiting.items():
        for seq, body in seen[id].items():
            assert sample.bodies[seq] == body
        row = journal.state.cursors[id]
        assert journal.state.ledger(row).imbalance == 0
        missing = waiting - seen[id].keys()
        assert not missing or events or row.dropped >= len(missing)
        assert seen[id].keys() <= waiting or events, "what was settled ahead is not sent again without a word"
        if row.to_row() != sample.rows[id].to_row():
            assert events or row.dropped

    more = store(journal, [33])
    for id in ("behind", "ahead"):
        assert {seq: body for seq, body in drain(journal, id).items() if seq in more} == more
    journal.close()
    return bool(events)


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A directory where syncing costs nothing, when there is one."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


NAMES = pytest.mark.parametrize("name", ["spool.db", "killed spool.db", "killed spool.db-wal"])


@NAMES
def test_some_bytes(in_memory: Path, name: str) -> None:
    flip_every(23, in_memory, name)


@pytest.mark.broker
@NAMES
def test_every_byte(in_memory: Path, name: str) -> None:
    """A minute's work, hence not part of the quick tests."""
    flip_every(1, in_memory, name)


def flip_every(stride: int, in_memory: Path, name: str) -> None:
    killed = name.startswith("killed ")
    sample = take_sample(in_memory / "sample", killed=killed)
    reported = 0
    for files, held in islice(flips(sample, name.removeprefix("killed ")), 0, None, stride):
        directory = in_memory / "flipped"
        directory.mkdir()
        reported += survive(directory, files, held)
        shutil.rmtree(directory)
    assert reported


def test_without_a_change_nothing_is_reported(tmp_path: Path) -> None:
    for killed in (False, True):
        sample = take_sample(tmp_path / f"sample-{killed}", killed=killed)
        directory = tmp_path / f"same-{killed}"
        directory.mkdir()
        assert not survive(directory, sample.files, sample)
