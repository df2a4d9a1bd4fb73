"""The writer's thread without a thread: how it shares a commit among those that come close together."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.spool.journals import body_of, uplink
from tpxd.spool.journal import Journal
from tpxd.spool.keeping import Keeping, SpoolLimits, free_bytes
from tpxd.spool.memories import Pending
from tpxd.spool.rounds import Round
from tpxd.spool.starting import start_journal
from tpxd.spool.writer import CROWD, Writer


def pendings(first: int, count: int) -> list[Pending]:
    return [Pending(uplink(body_of(number, 20)), number, []) for number in range(first, first + count)]


def unbroken(journal: Journal, why: Exception, alive: object) -> Journal:
    raise AssertionError(why)


def commits(path: Path, monkeypatch: pytest.MonkeyPatch, waiting: int, again: int, late: int) -> list[int]:
    """How many uplinks each commit held: some wait at the beginning, `again` come when those were answered and `late`
    follow in the moment that a commit may leave them."""
    journal = start_journal(path, 4_096, time.time, lambda event: None)
    keeping = Keeping(SpoolLimits(), path, time.time, free_bytes)
    keeping.measure(journal)
    sizes: list[int] = []

    def answered(done: Round) -> None:
        if done.appended:
            sizes.append(len(done.appended))
            if sum(sizes) == waiting:
                writer.inbox += pendings(100, again)

    def moment(delay_s: float) -> None:
        if sum(sizes) == waiting and len(writer.inbox) == again:
            writer.inbox += pendings(200, late)

    monkeypatch.setattr("tpxd.spool.writer.time.sleep", moment)
    writer = Writer(journal, keeping, unbroken, time.time, answered)
    writer.inbox += pendings(0, waiting)
    writer.stop()
    writer.run()
    return sizes


def test_the_first_that_comes_again_after_a_crowd_does_not_go_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commits(tmp_path / "spool.db", monkeypatch, waiting=CROWD, again=1, late=7) == [CROWD, 8]


def test_a_single_one_waits_for_nobody_where_there_was_no_crowd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commits(tmp_path / "spool.db", monkeypatch, waiting=CROWD - 1, again=1, late=7) == [CROWD - 1, 1]
