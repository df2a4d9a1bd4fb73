"""What is settled beyond a cursor's position: it is not sent again, not counted twice, and never lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.spool.journals import drain, store
from tpxd.events import Event
from tpxd.spool import Fate, Ledger, Rejected, Settled, SpoolLimits, ledger
from tpxd.spool.database import sidecars
from tpxd.spool.journal import Journal
from tpxd.spool.keeping import Keeping
from tpxd.spool.rows import BLOCK, NOTHING, Ahead, Field, Hole, with_crc
from tpxd.spool.starting import start_journal

NOW_S = 1_795_000_000.0
SEQS = st.integers(1, 3 * BLOCK) | st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK])


@given(seqs=st.lists(st.lists(SEQS)), cuts=st.lists(st.tuples(SEQS, SEQS)), ask=st.tuples(SEQS, SEQS))
def test_it_is_a_set(seqs: list[list[int]], cuts: list[tuple[int, int]], ask: tuple[int, int]) -> None:
    ahead, expected = NOTHING, set[int]()
    for added, (after, through) in zip(seqs, [*cuts, *[(0, 0)] * len(seqs)], strict=False):
        ahead = ahead.adding(added).without(after, through)
        expected = {seq for seq in expected | set(added) if not after < seq <= through}
    assert ahead.count == len(expected)
    assert all((seq in ahead) == (seq in expected) for seq in (*expected, *ask))
    assert ahead.within(*ask) == sum(ask[0] < seq <= ask[1] for seq in expected)
    assert Ahead.of(ahead.blocks) == ahead


@given(after=SEQS, length=st.integers(0, 2 * BLOCK))
def test_a_run_is_followed_over_the_ends_of_blocks(after: int, length: int) -> None:
    ahead = NOTHING.adding([*range(after + 1, after + length + 1), after + length + 2])
    assert ahead.run_from(after) == after + length
    assert ahead.run_from(after + length) == after + length


@dataclass
class House:
    """A spool of 20 uplinks that is opened again and again; `plant` waits for all of them."""

    path: Path
    journal: Journal
    events: list[Event] = field(default_factory=list)

    def settle(self, *seqs: int, in_order: bool = False) -> None:
        with self.journal.transaction():
            fates = [(seq, Fate.DELIVERED) for seq in seqs]
            ledger.settle(self.journal, "plant", fates, 0, in_order=in_order)

    def reopen(self, *statements: str) -> None:
        self.journal.close()
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)
        self.journal = start_journal(self.path, 4_096, lambda: NOW_S, self.events.append)

    def crash(self) -> None:
        """Go on with the files as they are on the disk now."""
        files = [(one, one.read_bytes()) for one in (self.path, sidecars(self.path)[0])]
        self.journal.close()
        for one, content in files:
            one.write_bytes(content)
        self.journal = start_journal(self.path, 4_096, lambda: NOW_S, self.events.append)

    @property
    def ledger(self) -> Ledger:
        return self.journal.state.ledger(self.journal.state.cursors["plant"])

    @property
    def waiting(self) -> list[int]:
        return list(drain(self.journal, "plant"))

    @property
    def stored_blocks(self) -> int:
        ((count,),) = self.journal._connection.execute("SELECT count(*) FROM ahead").fetchall()
        return int(count)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    path = tmp_path / "spool.db"
    made = House(path, start_journal(path, 4_096, lambda: NOW_S, lambda event: None))
    with made.journal.transaction():
        ledger.ensure(made.journal, "plant")
    store(made.journal, [1_000] * 20)
    yield made
    made.journal.close()


def test_it_outlives_a_crash_and_vanishes_when_the_position_has_come_after(house: House) -> None:
    house.settle(5, 7, 6, 10)
    house.settle(6, 7, 10)
    house.crash()
    assert house.ledger == Ledger(20, 4, 0, 0, 0, 0, 16)
    assert house.waiting == [1, 2, 3, 4, 8, 9, *range(11, 21)]
    house.settle(2, 1, 3, 4)
    assert house.journal.state.cursors["plant"].position == 7
    house.settle(9, 8)
    house.crash()
    row = house.journal.state.cursors["plant"]
    assert (row.position, row.ahead, house.stored_blocks) == (10, NOTHING, 0)
    assert house.ledger == Ledger(20, 10, 0, 0, 0, 0, 10)
    assert not house.events


def test_in_order_goes_over_it_without_counting_it_again(house: House) -> None:
    house.settle(3, 5)
    house.settle(1, 2, 3, 4, 6, in_order=True)
    assert house.ledger == Ledger(20, 6, 0, 0, 0, 0, 14)
    assert house.journal.state.cursors["plant"].position == 6


def test_a_failed_transaction_changes_nothing(house: House) -> None:
    house.settle(5)
    fates: list[tuple[int, Settled]] = [(8, Fate.DELIVERED), (1, Rejected("no"))]
    with suppress(ZeroDivisionError), house.journal.transaction():
        ledger.settle(house.journal, "plant", fates, 0, in_order=False)
        raise ZeroDivisionError
    house.settle(9)
    house.crash()
    assert house.ledger == Ledger(20, 2, 0, 0, 0, 0, 18)
    assert {5, 9}.isdisjoint(house.waiting)


def test_a_full_spool_drops_only_what_waits(house: House) -> None:
    house.settle(2, 3, 12)
    with house.journal.transaction():
        assert ledger.pass_over(house.journal, 4, expired=False) == {"plant": 2}
    assert house.ledger == Ledger(20, 3, 0, 0, 0, 2, 15)
    with house.journal.transaction():
        assert ledger.pass_over(house.journal, 11, expired=True) == {"plant": 7}
    assert house.ledger == Ledger(20, 3, 0, 7, 0, 2, 8)
    assert house.journal.state.cursors["plant"].position == 12, "the next one was settled ahead"
    house.crash()
    assert house.waiting == list(range(13, 21))


def test_rows_in_holes_are_not_settled(house: House) -> None:
    with house.journal.transaction():
        house.journal.add_hole(Hole(3, 4))
    before = house.ledger
    for in_order in (False, True):
        with house.journal.transaction():
            fates = [(seq, Fate.DELIVERED) for seq in (3, 4)]
            assert not ledger.settle(house.journal, "plant", fates, 0, in_order=in_order)
    assert house.ledger == before
    house.settle(1, 2, 3, 4, 5)
    assert (house.ledger.delivered, house.ledger.dropped, house.ledger.imbalance) == (3, 2, 0)


def test_room_is_made_and_rows_are_recounted_beside_it(house: House) -> None:
    house.settle(1, 2, 4, 5, 15)
    limits = SpoolLimits(max_bytes=house.journal.reader.used_bytes(), min_free_bytes=0)
    keeping = Keeping(limits, house.path, lambda: NOW_S, lambda directory: 1 << 40)
    keeping.measure(house.journal)
    with house.journal.transaction():
        assert keeping.make_room(house.journal, 10_000) is None
    while keeping.tick(house.journal):
        pass
    gone = house.journal.state.first_seq - 1
    assert 5 < gone < 15
    assert house.ledger == Ledger(20, 5, 0, 0, 0, gone - 4, 20 - gone - 1)
    assert [event.kind for event in keeping.events] == ["dropped"]


def test_a_damaged_row_that_was_settled_ahead_is_nobodys_loss(house: House) -> None:
    house.settle(1, 3, 4, 6)
    with house.journal.transaction():
        house.journal.add_hole(Hole(4, 4))
        house.journal.add_hole(Hole(2, 2))
    assert house.ledger == Ledger(20, 4, 0, 0, 0, 1, 15)
    assert house.journal.state.cursors["plant"].position == 4
    house.settle(5)
    house.crash()
    assert house.journal.state.cursors["plant"].position == 6
    assert house.ledger == Ledger(20, 5, 0, 0, 0, 1, 14)


def test_a_queue_that_was_forgotten_leaves_nothing_for_the_next_of_its_name(house: House) -> None:
    house.settle(5, 15)
    with house.journal.transaction():
        assert ledger.forget(house.journal, "plant") == 18
        ledger.ensure(house.journal, "plant")
    store(house.journal, [10] * 3)
    house.settle(22)
    house.reopen("CREATE TABLE uninvited(guest)")
    assert house.ledger == Ledger(3, 1, 0, 0, 0, 0, 2)
    assert house.waiting == [21, 23]


@pytest.mark.parametrize(
    "older",
    [
        ("DROP TABLE ahead", "DROP TABLE commands", "PRAGMA user_version = 1"),
        ("DROP TABLE ahead", "PRAGMA user_version = 1"),
        (),  # a crash came between the two steps
    ],
)
def test_a_spool_from_before_opens_as_if_nothing_was_ever_settled_ahead(house: House, older: tuple[str, ...]) -> None:
    house.settle(1, 2)
    ((n,),) = house.journal._connection.execute("SELECT n FROM meta WHERE key = 'format'").fetchall()
    crc: Field = with_crc("meta", (n, "format", "1"))[-1]
    house.reopen(f"UPDATE meta SET value = '1', crc = {crc!r} WHERE n = {n}", *older)
    assert (house.ledger, house.journal.state.meta["format"]) == (Ledger(20, 2, 0, 0, 0, 0, 18), "3")
    house.settle(9)
    house.reopen()
    assert house.ledger == Ledger(20, 3, 0, 0, 0, 0, 17)
    assert not house.events


def test_a_repair_keeps_it(house: House) -> None:
    house.settle(5, 7, 18)
    house.reopen("CREATE TABLE uninvited(guest)")
    assert [event.kind for event in house.events] == ["damage"]
    assert house.ledger == Ledger(20, 3, 0, 0, 0, 0, 17)
    assert {5, 7, 18}.isdisjoint(house.waiting)


def test_a_repair_takes_the_newest_version_of_everything(house: House) -> None:
    for seqs in ([5], [7], [1, 18], [6]):
        house.settle(*seqs)
    wal = sidecars(house.path)[0].read_bytes()
    house.journal.close()
    sidecars(house.path)[0].write_bytes(wal)
    house.path.write_bytes(b"damaged".ljust(100) + house.path.read_bytes()[100:])
    house.journal = start_journal(house.path, 4_096, lambda: NOW_S, house.events.append)
    assert [event.kind for event in house.events] == ["damage"]
    assert house.ledger == Ledger(20, 5, 0, 0, 0, 0, 15)
    assert house.waiting == [2, 3, 4, *range(8, 18), 19, 20]


def test_what_is_settled_for_nobody_is_damage(house: House) -> None:
    fields = with_crc("ahead", (7, "ghost", 0, 0, b"7"))
    house.reopen(f"INSERT INTO ahead VALUES (7, 'ghost', 0, 0, x'37', {fields[-1]!r})")
    assert [event.kind for event in house.events] == ["damage"]
    assert house.ledger == Ledger(20, 0, 0, 0, 0, 0, 20)
    assert house.stored_blocks == 0


def test_what_nothing_tells_any_more_was_settled_ahead_is_put_in_again(house: House) -> None:
    house.settle(5, 7)
    house.reopen("DELETE FROM ahead")
    (event,) = house.events
    assert "more is settled for plant" in event.message
    assert house.waiting == list(range(1, 21))
    assert house.ledger == Ledger(22, 2, 0, 0, 0, 0, 20)


def test_no_new_uplink_gets_the_number_of_one_that_was_settled_ahead_and_lost(house: House) -> None:
    house.settle(20)
    house.reopen("DELETE FROM journal WHERE seq > 15", "DELETE FROM commits WHERE last_seq > 0")
    assert house.journal.state.last_seq == 20
    assert house.ledger == Ledger(20, 1, 0, 0, 0, 4, 15)
    assert list(store(house.journal, [7])) == [21]
    assert 21 in house.waiting


def test_it_has_a_limit(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpxd.spool.rows.BLOCK", 4)
    monkeypatch.setattr("tpxd.spool.ledger.BLOCK", 4)
    monkeypatch.setattr("tpxd.spool.ledger.MAX_BLOCKS", 1)
    house.settle(6, 10)
    assert house.ledger == Ledger(20, 2, 0, 0, 0, 0, 18)
    house.settle(17)
    row = house.journal.state.cursors["plant"]
    assert (row.position, len(row.ahead.blocks)) == (7, 2)
    assert house.ledger == Ledger(20, 3, 0, 0, 0, 6, 11)


def test_the_lanes_of_what_waits(house: House) -> None:
    house.settle(19, 20)
    assert ledger.lanes_waiting(house.journal, "plant", 0, 20, ()) == {"0018B20000000B20": 18}
    assert ledger.lanes_waiting(house.journal, "plant", 17, 20, {18}) == {}
