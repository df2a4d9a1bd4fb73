"""Room, retention and recounting, without the event loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.spool.journals import drain, store
from tpxd.errors import SpoolUnavailable
from tpxd.spool import Fate, SpoolLimits, ledger
from tpxd.spool.database import Damaged
from tpxd.spool.journal import Journal
from tpxd.spool.keeping import Keeping
from tpxd.spool.starting import start_journal

START_S = 1_795_000_000.0
HOUR_S = 3_600.0


@dataclass
class House:
    """A journal, the clock on its wall, and what its disk has left."""

    path: Path
    journal: Journal
    now_s: float = START_S
    stepped_s: float = 0.0
    free: int = 1 << 40

    def keeping(self, **limits: float) -> Keeping:
        made = SpoolLimits(**{"page_size": 4_096, **limits})  # type: ignore[arg-type]
        keeping = Keeping(
            made,
            self.path,
            lambda: self.now_s + self.stepped_s,
            lambda directory: self.free,
            monotonic=lambda: self.now_s,
        )
        keeping.measure(self.journal)
        return keeping

    def settle(self, id: str, through: int) -> None:
        first = self.journal.state.cursors[id].position + 1
        with self.journal.transaction():
            ledger.settle(self.journal, id, [(seq, Fate.DELIVERED) for seq in range(first, through + 1)], 0)

    def make_room(self, keeping: Keeping, size: int) -> bool:
        with self.journal.transaction():
            return keeping.make_room(self.journal, size) is None

    def squeeze(self, validity_s: float | None) -> bool:
        """Make room for about 15 rows in a spool that is just full."""
        keeping = self.keeping(max_bytes=self.journal.reader.used_bytes())
        keeping.validity_s["slow"] = validity_s
        return self.make_room(keeping, 15_000)

    def numbers(self, id: str) -> tuple[int, int, int, int]:
        """(delivered, expired, dropped, waiting); and the ledger balances."""
        state = self.journal.state
        found = state.ledger(state.cursors[id])
        assert found.imbalance == 0
        return found.delivered, found.expired, found.dropped, found.waiting


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    path = tmp_path / "spool" / "spool.db"
    path.parent.mkdir()
    journal = start_journal(path, 4_096, lambda: START_S, lambda event: None)
    house = House(path, journal)
    # a test may close it and open another one
    with ExitStack() as end:
        end.callback(lambda: house.journal.close())
        with journal.transaction():
            ledger.ensure(journal, "fast")
            ledger.ensure(journal, "slow")
        for _ in range(10):
            store(journal, [1_000] * 10, int(START_S * 1000))
        yield house


def test_done_goes_first_then_expired_then_dropped(house: House) -> None:
    house.settle("fast", 90)
    house.settle("slow", 20)
    assert house.squeeze(None)
    assert 10 <= house.journal.state.first_seq - 1 <= 20
    assert house.numbers("slow") == (20, 0, 0, 80)

    house.now_s += 61
    for _ in range(3):
        assert house.squeeze(60.0)
    delivered, expired, dropped, waiting = house.numbers("slow")
    assert (delivered, dropped, expired + waiting) == (20, 0, 80)
    assert expired == house.journal.state.first_seq - 1 - 20 > 0

    assert house.squeeze(None)
    assert house.numbers("slow")[:3] == (20, expired, house.journal.state.first_seq - 1 - 20 - expired)
    assert house.numbers("slow")[2] > 0
    assert house.numbers("fast") == (90, 0, 0, 10)


def test_drops_are_told(house: House) -> None:
    keeping = house.keeping(max_bytes=house.journal.reader.used_bytes())
    house.settle("fast", 100)
    assert house.make_room(keeping, 15_000)
    keeping.tick(house.journal)
    (event,) = keeping.events
    assert (event.kind, event.connection, event.more) == ("dropped", "slow", {"count": house.numbers("slow")[2]})


def test_drops_that_the_disk_undid_are_not_told(house: House) -> None:
    keeping = house.keeping(max_bytes=house.journal.reader.used_bytes())
    house.settle("fast", 100)

    def in_vain() -> None:
        with house.journal.transaction():
            assert keeping.make_room(house.journal, 15_000) is None
            raise SpoolUnavailable("the disk fails")

    for _ in range(3):
        with pytest.raises(SpoolUnavailable):
            in_vain()
    assert house.numbers("slow")[2] == 0
    assert house.make_room(keeping, 15_000)
    keeping.tick(house.journal)
    assert [event.more for event in keeping.events] == [{"count": house.numbers("slow")[2]}]


def test_a_spool_that_refuses_drops_nothing(house: House) -> None:
    house.settle("fast", 100)
    house.settle("slow", 30)
    keeping = house.keeping(max_bytes=4_096, refuse_when_full=True)
    assert not all(house.make_room(keeping, 20_000) for _ in range(5))
    assert house.numbers("slow") == (30, 0, 0, 70)
    assert house.journal.state.first_seq == 31


def test_nothing_left_to_drop_is_an_answer(house: House) -> None:
    keeping = house.keeping(max_bytes=4_096)
    assert not all(house.make_room(keeping, 20_000) for _ in range(5))
    assert house.numbers("slow") == (0, 0, 100, 0)
    assert not drain(house.journal, "slow")


def test_a_short_disk_gets_pages_back(house: House) -> None:
    house.settle("fast", 100)
    house.settle("slow", 100)
    house.journal.checkpoint()
    size = house.path.stat().st_size
    keeping = house.keeping(min_free_bytes=1 << 20)
    house.free = 1_000_000
    while keeping.tick(house.journal):
        pass
    assert house.path.stat().st_size < size - 50_000


def test_what_is_done_stays_for_the_retention(house: House) -> None:
    house.settle("fast", 100)
    house.settle("slow", 60)
    keeping = house.keeping(retention_s=HOUR_S)
    while keeping.tick(house.journal):
        pass
    assert house.journal.state.first_seq == 1
    house.now_s += HOUR_S + 1
    while keeping.tick(house.journal):
        pass
    assert house.journal.state.first_seq == 61
    assert list(drain(house.journal, "slow")) == list(range(61, 101))


def test_the_last_number_outlives_the_last_row(house: House) -> None:
    house.settle("fast", 100)
    house.settle("slow", 100)
    house.now_s += 2 * HOUR_S
    keeping = house.keeping(retention_s=HOUR_S)
    while keeping.tick(house.journal):
        pass
    house.journal.close()
    house.journal = start_journal(house.path, 4_096, lambda: house.now_s, lambda event: None)
    assert (house.journal.state.first_seq, house.journal.state.last_seq) == (101, 100)
    assert list(store(house.journal, [5])) == [101]
    assert house.numbers("slow") == (100, 0, 0, 1)


def test_a_retired_queue_is_forgotten_after_the_retention(house: House) -> None:
    with house.journal.transaction():
        ledger.retire(house.journal, "slow", int(house.now_s * 1000))
    keeping = house.keeping(retention_s=HOUR_S)
    house.now_s += HOUR_S - 1
    keeping.tick(house.journal)
    assert sorted(house.journal.state.cursors) == ["fast", "slow"]
    house.now_s += 2
    keeping.tick(house.journal)
    assert sorted(house.journal.state.cursors) == ["fast"]
    (event,) = keeping.events
    assert (event.kind, event.connection, event.more) == ("forgotten", "slow", {"waiting": 100})


def test_while_the_clock_is_ahead_for_three_seconds_nothing_is_forgotten(house: House) -> None:
    with house.journal.transaction():
        ledger.retire(house.journal, "slow", int(house.now_s * 1000))
    house.settle("fast", 100)
    house.settle("slow", 50)
    keeping = house.keeping(retention_s=HOUR_S)
    for stepped_s in (86_400.0, 0.0):
        house.stepped_s = stepped_s
        for _ in range(3):
            house.now_s += 1
            keeping.tick(house.journal)
    assert house.journal.state.first_seq == 1
    assert house.numbers("slow") == (50, 0, 0, 50)
    house.now_s += HOUR_S
    while keeping.tick(house.journal):
        pass
    assert sorted(house.journal.state.cursors) == ["fast"]
    assert house.journal.state.first_seq > 50


def test_while_the_clock_is_ahead_nothing_expires_for_room(house: House) -> None:
    house.settle("fast", 100)
    keeping = house.keeping(max_bytes=house.journal.reader.used_bytes(), refuse_when_full=True)
    keeping.validity_s["slow"] = 60.0
    house.stepped_s = 86_400.0
    assert not house.make_room(keeping, 15_000)
    assert house.numbers("slow") == (0, 0, 0, 100)


def test_a_disk_that_others_fill_costs_nothing_that_waits(house: House) -> None:
    keeping = house.keeping(min_free_bytes=1 << 20)
    house.free = 0
    for _ in range(10):
        keeping.tick(house.journal)
        assert not house.make_room(keeping, 500)
    assert house.numbers("slow") == (0, 0, 0, 100)
    with house.journal.transaction():
        no_room = keeping.make_room(house.journal, 500)
    assert no_room is not None
    assert "the disk has 0 bytes left" in no_room.message
    house.free = 2 << 20
    assert house.make_room(keeping, 500)


def test_what_waits_goes_as_far_as_that_brings_what_the_disk_lacks(house: House) -> None:
    """Pages that are free in the file count as free on the disk: they are used again, or given back."""
    house.free = (1 << 20) - 20_000
    keeping = house.keeping(min_free_bytes=1 << 20)
    size = house.journal.reader.used_bytes()
    assert house.make_room(keeping, 500)
    brought = size - house.journal.reader.used_bytes()
    assert 20_500 <= brought < 40_000
    waiting = house.numbers("slow")[3]
    for _ in range(10):
        assert house.make_room(keeping, 500)
    assert house.numbers("slow")[3] == waiting, "what was brought is there, and is not fetched twice"


def test_what_others_take_as_fast_as_it_is_brought_is_not_brought_for_long(house: House) -> None:
    for _ in range(30):
        store(house.journal, [4_000] * 64)
    house.journal.checkpoint()
    house.free = 64 << 20
    keeping = house.keeping(min_free_bytes=64 << 20)
    refused = 0
    for _ in range(60):
        house.free -= 100_000
        before = house.path.stat().st_size
        refused += not house.make_room(keeping, 500)
        keeping.tick(house.journal)
        house.journal.checkpoint()
        house.free += before - house.path.stat().st_size
    delivered, expired, dropped, waiting = house.numbers("slow")
    assert refused > 40
    assert 0 < dropped * 4_000 < 2 << 20
    assert (delivered, expired, dropped + waiting) == (0, 0, 2_020)


@pytest.mark.parametrize("limit", ["max_bytes", "min_free_bytes"])
def test_the_copy_of_a_damaged_file_counts_and_goes_before_any_uplink(house: House, limit: str) -> None:
    copy = house.path.with_name("spool.db.damaged-20261118110640")
    copy.write_bytes(bytes(1 << 20))
    used = house.journal.reader.used_bytes()
    if limit == "max_bytes":
        roomy = house.keeping(max_bytes=used + (1 << 20) + 20_000)
        short = house.keeping(max_bytes=used + (1 << 20) - 20_000)
    else:
        house.free = 2 << 20
        roomy = house.keeping(min_free_bytes=1 << 20)
        short = house.keeping(min_free_bytes=2 << 20)
    assert house.make_room(roomy, 500)
    assert copy.exists()
    # the disk has as much more as the copy took
    short._measure_free = lambda directory: house.free + (0 if copy.exists() else 1 << 20)
    assert house.make_room(short, 500)
    assert not copy.exists()
    assert house.numbers("slow") == (0, 0, 0, 100)
    assert ["damaged file" in event.message for event in short.events] == [True]


def test_incoming_bytes_count_for_what_must_stay_free(house: House) -> None:
    house.free = (1 << 20) + 50_000
    keeping = house.keeping(min_free_bytes=1 << 20, refuse_when_full=True)
    assert house.make_room(keeping, 49_000)
    assert not house.make_room(keeping, 51_000)


def test_recounting_finds_what_is_missing(house: House) -> None:
    connection = house.journal._connection
    connection.execute("DELETE FROM journal WHERE seq = 50")
    keeping = house.keeping()
    with pytest.raises(Damaged, match="rows are missing between 1 and 100"):
        keeping.tick(house.journal)


def test_a_ledger_that_does_not_balance_is_told(house: House) -> None:
    with house.journal.transaction():
        house.journal.put_cursor(replace(house.journal.state.cursors["slow"], delivered=3))
    keeping = house.keeping()
    keeping.tick(house.journal)
    (event,) = keeping.events
    assert (event.kind, event.connection, event.more) == ("imbalance", "slow", {"difference": -3})
