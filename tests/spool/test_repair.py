"""What a repair keeps, what it puts in place of what is lost, and that it may be cut short."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.spool.journals import body_of, drain, store
from tpxd.events import Event
from tpxd.spool import Fate, Ledger, Rejected, SpoolLimits, ledger
from tpxd.spool.damage.repair import salvaged_path
from tpxd.spool.database import Damaged, sidecars
from tpxd.spool.journal import Journal
from tpxd.spool.keeping import Keeping
from tpxd.spool.rows import Hole
from tpxd.spool.starting import start_journal

NOW_S = 1_795_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed spool: 20 uplinks, `ahead` at 10 with a dead letter, `behind` at 3."""
    path = tmp_path / "spool.db"
    journal = start_journal(path, 4_096, lambda: NOW_S, lambda event: None)
    with journal.transaction():
        ledger.ensure(journal, "ahead")
        ledger.ensure(journal, "behind")
        journal.put_meta("remembered.instance", "0badcafe")
    store(journal, [100] * 18)
    store(journal, [9_000, 100_000])
    with journal.transaction():
        fates = [(seq, Fate.DELIVERED) for seq in range(1, 10)]
        ledger.settle(journal, "ahead", [*fates, (10, Rejected("413"))], 0)
        ledger.settle(journal, "behind", fates[:3], 0)
    journal.close()
    return path


def sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def reopen(path: Path, page_size: int = 4_096) -> tuple[Journal, list[Event]]:
    events: list[Event] = []
    return start_journal(path, page_size, lambda: NOW_S, events.append), events


def test_a_broken_schema_costs_nothing(path: Path) -> None:
    sql(path, "CREATE TABLE uninvited(guest)")
    journal, events = reopen(path)
    with closing(journal):
        (event,) = events
        assert (event.more["salvaged"], event.more["lost"], event.more["notesLost"]) == (20, 0, 0)
        assert list(drain(journal, "behind")) == list(range(4, 21))
        assert len(drain(journal, "ahead")[20]) > 100_000
        assert journal.state.ledger(journal.state.cursors["ahead"]) == Ledger(20, 9, 0, 0, 1, 0, 10)
        assert [letter.reason for letter in journal.reader.dead_letters("ahead", 9)[0]] == ["413"]
        assert journal.state.meta["remembered.instance"] == "0badcafe"
    assert Path(event.more["file"]).exists()


@pytest.mark.parametrize("lost", [1, 20])
def test_a_row_that_is_missing_at_either_end_is_found_at_once(path: Path, lost: int) -> None:
    sql(path, f"DELETE FROM journal WHERE seq = {lost}")
    journal, (event,) = reopen(path)
    journal.close()
    assert event.more["lostRanges"] == [[lost, lost]]


def test_a_lost_cursor_begins_at_the_oldest_row(path: Path) -> None:
    sql(path, "DELETE FROM cursors WHERE id = 'behind'", "DELETE FROM journal WHERE seq = 7")
    journal, events = reopen(path)
    with closing(journal):
        (event,) = events
        assert (event.more["cursorsLost"], event.more["lostRanges"]) == (["behind"], [[7, 7]])
        assert list(drain(journal, "behind")) == [*range(1, 7), *range(8, 21)]
        assert journal.state.ledger(journal.state.cursors["behind"]) == Ledger(20, 0, 0, 0, 0, 1, 19)
        assert journal.state.ledger(journal.state.cursors["ahead"]) == Ledger(20, 9, 0, 0, 1, 0, 10)


def test_without_any_list_of_cursors_all_begin_at_the_oldest_row_until_the_next_uplink(path: Path) -> None:
    sql(path, "DELETE FROM cursors", "DELETE FROM meta WHERE key = 'cursors'")
    journal, events = reopen(path)
    with closing(journal):
        assert len(events) == 1
        with journal.transaction():
            ledger.ensure(journal, "behind")
        assert list(drain(journal, "behind")) == list(range(1, 21))
        store(journal, [1])
        with journal.transaction():
            ledger.ensure(journal, "new")
        assert not drain(journal, "new")


def test_what_was_lost_before_is_not_counted_again(path: Path) -> None:
    sql(path, "DELETE FROM journal WHERE seq = 12")
    journal, _ = reopen(path)
    with pytest.raises(Damaged, match="row 12 of the journal is missing"):
        drain(journal, "behind")
    journal.close()
    for time in range(2):
        sql(path, f"CREATE TABLE uninvited{time}(guest)")
        journal, events = reopen(path)
        journal.close()
        assert events[0].more["lost"] == (1 if time == 0 else 0)
        assert journal.state.ledger(journal.state.cursors["behind"]) == Ledger(20, 3, 0, 0, 0, 1, 16)


def test_what_was_lost_is_let_go_with_the_rows_around_it(path: Path) -> None:
    sql(path, "DELETE FROM journal WHERE seq IN (7, 19)", "CREATE TABLE uninvited(guest)")
    journal, _ = reopen(path)
    with journal.transaction():
        for id in ("ahead", "behind"):
            first = journal.state.cursors[id].position + 1
            ledger.settle(journal, id, [(seq, Fate.DELIVERED) for seq in range(first, 19) if seq != 7], 0)
    keeping = Keeping(SpoolLimits(retention_s=60.0), path, lambda: NOW_S + 61, lambda directory: 1 << 40)
    while keeping.tick(journal):
        pass
    assert (journal.state.first_seq, journal.state.holes) == (19, (Hole(19, 19),))
    journal.close()
    journal, events = reopen(path)
    with closing(journal):
        assert (journal.state.first_seq, journal.state.holes, events) == (19, (Hole(19, 19),), [])
        assert journal.state.ledger(journal.state.cursors["behind"]) == Ledger(20, 17, 0, 0, 0, 2, 1)


def test_a_repair_that_was_cut_short_goes_on(path: Path) -> None:
    whole = path.read_bytes()
    salvaged_path(path).write_bytes(whole)
    path.write_bytes(b"damaged")
    sidecars(path)[0].write_bytes(b"the old log must never meet the new file")
    journal, events = reopen(path)
    with closing(journal):
        assert [event.kind for event in events] == ["damage"]
        assert list(drain(journal, "behind")) == list(range(4, 21))
    assert not salvaged_path(path).exists()
    assert sorted(one.suffix for one in path.parent.glob("*.damaged-*")) == sorted(
        [".damaged-20261118110640", ".damaged-20261118110640-wal"]
    )


def test_a_log_without_its_database(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    journal = start_journal(path, 4_096, lambda: NOW_S, lambda event: None)
    with journal.transaction():
        ledger.ensure(journal, "plant")
    bodies = store(journal, [10, 20, 30])
    log = sidecars(path)[0].read_bytes()
    journal.close()
    path.unlink()
    sidecars(path)[0].write_bytes(log)
    journal, events = reopen(path)
    with closing(journal):
        assert len(events) == 1
        with journal.transaction():
            ledger.ensure(journal, "plant")
        assert drain(journal, "plant") == bodies


def test_large_bodies_leave_time_to_search_where_rows_may_be(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpxd.spool.damage.scan.MAX_TRIED", 4_096)
    journal, _ = reopen(path)
    store(journal, [50_000] * 20)
    store(journal, [300] * 20)
    journal.close()
    content = bytearray(path.read_bytes())
    content[content.index(body_of(55, 300)) // 4_096 * 4_096] ^= 1  # the page does not say any more that it is a leaf
    path.write_bytes(content)
    journal, (event,) = reopen(path)
    with closing(journal):
        assert (event.more["salvaged"], event.more["lost"]) == (60, 0)


def recognised(journal: Journal) -> set[int]:
    return {digest for digests, _, _ in journal.reader.digests(0, 9_999) for digest in digests}


def test_a_report_whose_row_is_lost_is_not_taken_for_a_duplicate(path: Path) -> None:
    journal, _ = reopen(path)
    before = recognised(journal)
    journal.close()
    sql(path, "DELETE FROM journal WHERE seq = 12", "CREATE TABLE uninvited(guest)")
    journal, (event,) = reopen(path)
    with closing(journal):
        assert event.more["lostRanges"] == [[12, 12]]
        assert recognised(journal) & before == before - {hash(body_of(12, 100))}


def test_a_commit_behind_a_break_of_the_log_is_salvaged_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    journal = start_journal(path, 512, lambda: NOW_S, lambda event: None)
    with journal.transaction():
        ledger.ensure(journal, "plant")
    store(journal, [10, 3_000])
    ends = [sidecars(path)[0].stat().st_size]
    for sizes in ([3_000, 20], [3_000, 3_000], [30]):
        store(journal, sizes)
        ends.append(sidecars(path)[0].stat().st_size)
    database, log = path.read_bytes(), sidecars(path)[0].read_bytes()
    whole = drain(journal, "plant")
    journal.close()
    for broken in range(ends[0] + 100, ends[1], 536):
        path.write_bytes(database)
        sidecars(path)[0].write_bytes(log[:broken] + bytes([log[broken] ^ 1]) + log[broken + 1 :])
        journal, (event,) = reopen(path, 512)
        with closing(journal):
            with journal.transaction():
                ledger.ensure(journal, "plant")
            kept = drain(journal, "plant")
            assert kept.keys() - {3, 4} == whole.keys() - {3, 4}, "what stands before and behind is whole"
            assert (3 in kept) == (4 in kept)
            assert kept.items() <= whole.items()
            assert (hash(body_of(3, 3_000)) in recognised(journal)) == (3 in kept)
            assert event.more["lost"] == len(whole) - len(kept)
