"""Spools that earlier versions wrote, kept in `formats`: each opens as what it was, wherever the upgrade is cut short.

All hold the same eight reports: 4 and 6 were handed on to `office`, 5 is for `plant` and 8 for nobody at work. `plant`
had settled 1 to 3, the second as a dead letter, and `office` 1; in format 2 also 4 and 7, ahead of its position. One
was left by a process that was killed.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.spool.house import House, report, take
from tests.spool.journals import drain, renewed
from tpxd.errors import SpoolUnavailable
from tpxd.events import Event
from tpxd.spool import Fate, Ledger, Outcome, ledger
from tpxd.spool.database import Damaged
from tpxd.spool.journal import Journal
from tpxd.spool.starting import start_journal

KEPT = Path(__file__).parent / "formats"
NOW_S = 1_795_000_000.0
PAGE = 512
WHOM = {
    1: ("TWA-1;x", None, False),
    2: ("", None, False),
    3: ("TWA-1;y", None, False),
    4: ("TWA-1;x", "office", True),
    5: ("", "plant", False),
    6: ("", "office", True),
    7: ("TWA-1;z", None, False),
    8: ("", "", False),
}
"""(lrn_infos, recipient, handed on) of each."""

FORMATS = pytest.mark.parametrize("name", ["1", "2", "2-killed"])


def copied(name: str, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "spool.db"
    for end in ("", "-wal"):
        if (kept := KEPT / f"{name}.db{end}").exists():
            shutil.copy(kept, f"{path}{end}")
    return path


def opened(path: Path, events: list[Event]) -> Journal:
    return start_journal(path, PAGE, lambda: NOW_S, events.append)


def is_as_it_was(path: Path, name: str) -> None:
    events: list[Event] = []
    with closing(opened(path, events)) as journal:
        state = journal.state
        page = journal.reader.page(state, 0)
        assert {each.seq: (each.lrn_infos, each.recipient, each.handed_on) for each in page.uplinks} == WHOM
        assert page.damaged == []
        ahead = 0 if name == "1" else 2
        assert state.ledger(state.cursors["plant"]) == Ledger(8, 1, 1, 0, 1, 0, 5)
        assert state.ledger(state.cursors["office"]) == Ledger(8, ahead // 2, ahead // 2, 1, 0, 0, 7 - ahead)
        assert [letter.reason for letter in journal.reader.dead_letters("plant", 9)[0]] == ["413 too large"]
        assert [list(digests) for digests, _, _ in journal.reader.digests(0, 99)] == [
            [11, 12, 13, 14],
            [15, 16, 17, 18],
        ]
        assert (state.meta["remembered.instance"], state.meta["format"]) == ("0badcafe", "3")
        assert events == []


@FORMATS
def test_it_opens_as_what_it_was_and_again(tmp_path: Path, name: str) -> None:
    path = copied(name, tmp_path)
    is_as_it_was(path, name)
    before = path.read_bytes()
    is_as_it_was(path, name)
    assert path.read_bytes() == before


@FORMATS
async def test_what_became_of_its_uplinks_is_unknown_and_of_new_ones_known(tmp_path: Path, name: str) -> None:
    path = copied(name, tmp_path)
    async with House(path, now_s=NOW_S).open() as spool:
        plant = await spool.cursor("plant")
        before = await spool.fates_of([1, 2, 3, 8])
        assert before[1] == {"office": Outcome("unknown"), "plant": Outcome("unknown")}
        assert [before[seq]["plant"].word for seq in (2, 3, 8)] == ["unknown", "unknown", "waiting"]
        await spool.append(report(1))
        uplinks = await take(plant, 6)
        await plant.commit([(each.seq, Fate.DELIVERED) for each in uplinks])
        assert (await spool.fates_of([9]))[9] == {"office": Outcome("waiting"), "plant": Outcome("delivered")}


KILLED_AT_EACH_STATEMENT = """
import os, shutil, signal, sqlite3, sys
from itertools import count
from pathlib import Path
from tpxd.spool.starting import start_journal

kept, directory, now_s, page = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
connect = sqlite3.connect

class Killed(sqlite3.Connection):
    left = 0
    def execute(self, *arguments):
        if Killed.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        Killed.left -= 1
        return super().execute(*arguments)

sqlite3.connect = lambda *arguments, **options: connect(*arguments, factory=Killed, **options)
for k in count():
    path = directory / str(k) / "spool.db"
    path.parent.mkdir(parents=True)
    for end in ("", "-wal"):
        if os.path.exists(kept + end):
            shutil.copy(kept + end, str(path) + end)
    if (pid := os.fork()) == 0:
        Killed.left = k
        start_journal(path, page, lambda: now_s, print)
        os._exit(0)
    if os.waitpid(pid, 0)[1] == 0:
        break
"""


@FORMATS
def test_an_upgrade_that_is_killed_at_any_statement_goes_on(tmp_path: Path, name: str) -> None:
    kept, directory = str(KEPT / f"{name}.db"), tmp_path / "killed"
    words = [sys.executable, "-c", KILLED_AT_EACH_STATEMENT, kept, str(directory), str(NOW_S), str(PAGE)]
    subprocess.run(words, check=True, timeout=60)
    killed = sorted(directory.iterdir())
    assert len(killed) > 25
    for one in killed:
        is_as_it_was(one / "spool.db", name)


class Full(sqlite3.Connection):
    """A connection whose disk is full at one statement, and from then on."""

    left = 0

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        if statement.startswith(("BEGIN", "CREATE", "ALTER", "REPLACE", "COMMIT")) or "user_version =" in statement:
            Full.left -= 1
            if Full.left < 0 and not statement.startswith("BEGIN"):
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error
        return super().execute(statement, *values)  # type: ignore[arg-type]


@FORMATS
def test_an_upgrade_without_room_says_so_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    connect = sqlite3.connect
    for left in range(1, 8):
        path = copied(name, tmp_path / str(left))
        Full.left = left
        with monkeypatch.context() as patched:
            patched.setattr("sqlite3.connect", lambda path, **options: connect(path, factory=Full, **options))
            with pytest.raises(SpoolUnavailable, match="full") as caught:
                opened(path, []).close()
        assert caught.value.hint == "free some space on this disk"
        is_as_it_was(path, name)


@FORMATS
def test_a_changed_byte_costs_what_it_hits_and_nobody_gets_what_was_not_for_him(tmp_path: Path, name: str) -> None:
    path = copied(name, tmp_path)
    files = {each: each.read_bytes() for each in path.parent.iterdir()}
    for each, content in files.items():
        for at in range(0, len(content), 61):
            for other in path.parent.iterdir():
                other.unlink()
            for one, whole in files.items():
                one.write_bytes(whole)
            each.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
            uses(path)


def uses(path: Path) -> None:
    events: list[Event] = []
    journal = opened(path, events)
    try:
        drain_all(journal)
    except Damaged as damaged:
        journal = renewed(journal, damaged, PAGE)
        drain_all(journal)
    journal.close()


def drain_all(journal: Journal) -> None:
    for id in ("plant", "office"):
        with journal.transaction():
            ledger.ensure(journal, id)
        drain(journal, id)
        assert journal.state.ledger(journal.state.cursors[id]).imbalance == 0
    for uplink in journal.reader.page(journal.state, 0).uplinks:
        assert (uplink.lrn_infos, uplink.recipient, uplink.handed_on) == WHOM[uplink.seq]
