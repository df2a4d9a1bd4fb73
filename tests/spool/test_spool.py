"""The spool as the engine and intake use it, over a real file."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from tpxd.errors import SpoolUnavailable, SpoolVersionError
from tpxd.events import Event
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import Ledger, NewReport, Rejected, Settled, Spool, SpoolLimits, Verdict, open_spool, underway
from tpxd.spool.cursor import Cursor


def report(n: int, size: int = 10) -> NewReport:
    body = b'{"DevEUI_uplink":{"FCntUp":%d,"payload_hex":"%s"}}' % (n, b"ab" * size)
    return NewReport("DevEUI_uplink", f"0018B2000000{n % 7:04X}", "TWA_1", body, {"DevEUI_uplink": {"FCntUp": n}})


@dataclass
class House:
    """Opens one spool again and again; keeps its events."""

    path: Path
    limits: SpoolLimits = field(default_factory=SpoolLimits)
    events: list[Event] = field(default_factory=list)
    now_s: float = 1_795_000_000.0
    free: int = 1 << 40

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Spool]:
        with trio.fail_after(30):
            async with open_spool(
                self.path,
                self.limits,
                report=self.events.append,
                wall_clock=lambda: self.now_s,
                measure_free=lambda directory: self.free,
            ) as spool:
                yield spool

    def sql(self, statement: str) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute(statement)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "state" / "spool.db")


async def append_all(spool: Spool, numbers: range) -> None:
    async with trio.open_nursery() as nursery:
        for n in numbers:
            nursery.start_soon(spool.append, report(n))


async def take(cursor: Cursor, count: int, most: int = 128) -> list[Uplink]:
    taken: list[Uplink] = []
    while len(taken) < count:
        taken += await cursor.next_batch(min(most, count - len(taken)), 1 << 20, taken[-1].seq if taken else None)
    return taken


def settled(uplinks: list[Uplink]) -> list[tuple[int, Verdict]]:
    return [(uplink.seq, Verdict.DELIVERED) for uplink in uplinks]


async def test_what_was_appended_is_there_after_a_restart(house: House) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        appended = await spool.append(report(1))
        assert appended == (1, False)
        (uplink,) = await cursor.next_batch(10, 1000)
        assert uplink.document == {"DevEUI_uplink": {"FCntUp": 1}}
        assert cursor.oldest_waiting_ms == uplink.received_ms == 1_795_000_000_000
    assert [one.name for one in house.path.parent.iterdir() if "wal" in one.name] == []
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        (uplink,) = await cursor.next_batch(10, 1000)
        expected = report(1)
        assert (uplink.seq, uplink.kind, uplink.lane, uplink.lrn_infos, uplink.body) == (
            1,
            expected.kind,
            expected.lane,
            expected.lrn_infos,
            expected.body,
        )
        assert uplink.fields["FCntUp"] == 1
        assert cursor.oldest_waiting_ms == uplink.received_ms == 1_795_000_000_000
        assert cursor.ledger == Ledger(1, 0, 0, 0, 0, 0, 1)
    assert not house.events


async def test_files_are_for_the_owner_only(house: House) -> None:
    async with house.open() as spool:
        await spool.append(report(1))
        assert house.path.parent.stat().st_mode & 0o777 == 0o700
        assert {one.stat().st_mode & 0o777 for one in house.path.parent.iterdir()} == {0o600}


async def test_each_fate_is_counted_and_rejects_become_dead_letters(house: House) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        await append_all(spool, range(6))
        uplinks = await take(cursor, 6)
        house.now_s += 5
        early: list[Settled] = [Verdict.DELIVERED, Verdict.FILTERED, Verdict.EXPIRED]
        fates = [*early, Rejected("413"), Verdict.DELIVERED]
        await cursor.commit([(uplink.seq, fate) for uplink, fate in zip(uplinks[:5], fates, strict=True)])
        assert (cursor.position, cursor.ledger) == (5, Ledger(6, 2, 1, 1, 1, 0, 1))
        await cursor.commit(settled(uplinks[2:5]))
        assert (cursor.position, cursor.ledger) == (5, Ledger(6, 2, 1, 1, 1, 0, 1))
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        assert (cursor.position, cursor.ledger) == (5, Ledger(6, 2, 1, 1, 1, 0, 1))
        (letter,) = await spool.dead_letters("plant")
        assert (letter.connection, letter.seq, letter.reason, letter.body) == ("plant", 4, "413", uplinks[3].body)
        assert letter.at_ms - letter.received_ms == 5_000
        assert await spool.dead_letters("other") == []
        assert spool.imbalance("plant") == 0


async def test_what_a_commit_skips_is_counted_as_dropped(house: House) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        await append_all(spool, range(5))
        await cursor.commit([(1, Verdict.DELIVERED), (4, Verdict.DELIVERED), (99, Verdict.DELIVERED)])
        assert (cursor.position, cursor.ledger) == (4, Ledger(5, 2, 0, 0, 0, 2, 1))


async def test_batches_run_ahead_of_commits_and_respect_their_bounds(house: House) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        await append_all(spool, range(10))
        first = await cursor.next_batch(4, 1 << 20)
        second = await cursor.next_batch(4, 1 << 20, after=first[-1].seq)
        assert [one.seq for one in first + second] == [1, 2, 3, 4, 5, 6, 7, 8]
        assert await cursor.next_batch(4, 1 << 20) == first
        assert len(await cursor.next_batch(4, 1)) == 1
        await cursor.commit(settled(first))
        await cursor.commit(settled(second))
        assert cursor.ledger == Ledger(10, 8, 0, 0, 0, 0, 2)


async def test_a_waiting_cursor_wakes(house: House) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        got: list[int] = []

        async def wait() -> None:
            got.extend(uplink.seq for uplink in await cursor.next_batch(10, 1000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert not got
            await spool.append(report(1))
        assert got == [1]


@pytest.mark.usefixtures("short_memory")
async def test_a_backlog_comes_from_the_disk_in_order(house: House) -> None:
    async with house.open() as spool:
        fast, slow = await spool.cursor("fast"), await spool.cursor("slow")
        await append_all(spool, range(1_000))
        assert spool.newest.first_seq > 1
        assert slow.oldest_waiting_ms == 1_795_000_000_000
        for cursor, most in ((fast, 100), (slow, 300)):
            uplinks = await take(cursor, 1_000, most)
            assert [uplink.seq for uplink in uplinks] == list(range(1, 1_001))
            assert len({uplink.body for uplink in uplinks}) == 1_000
            await cursor.commit(settled(uplinks))
            assert cursor.ledger == Ledger(1_000, 1_000, 0, 0, 0, 0, 0)
            assert cursor.oldest_waiting_ms is None


@pytest.fixture
def short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpxd.spool.newest.MAX_UPLINKS", 20)
    monkeypatch.setattr("tpxd.spool.newest.SPARE", 10)


async def test_a_new_queue_begins_at_the_end_and_a_retired_one_goes_on(house: House) -> None:
    async with house.open() as spool:
        early = await spool.cursor("early")
        await append_all(spool, range(3))
        late = await spool.cursor("late")
        assert (early.ledger.waiting, late.ledger.waiting, late.position) == (3, 0, 3)
        await early.commit([(1, Verdict.DELIVERED)])
        await spool.retire("early")
        assert early.retired
        await append_all(spool, range(3, 5))
    async with house.open() as spool:
        assert spool.cursors() == ["early", "late"]
        early = await spool.cursor("early")
        assert not early.retired
        assert [uplink.seq for uplink in await take(early, 4)] == [2, 3, 4, 5]
        assert early.ledger == Ledger(5, 1, 0, 0, 0, 0, 4)
        assert await spool.forget("early") == 4
        assert spool.cursors() == ["late"]
        assert (house.events[-1].kind, house.events[-1].more) == ("forgotten", {"waiting": 4})
        assert (await spool.cursor("early")).ledger == Ledger(0, 0, 0, 0, 0, 0, 0)


async def test_duplicates_are_stored_once_also_after_a_restart(house: House) -> None:
    async with house.open() as spool:
        found: list[tuple[int, bool]] = []

        async def append() -> None:
            found.append(await spool.append(report(1)))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(append)
        assert sorted(found) == [(1, False), (1, True), (1, True)]
        assert await spool.append(report(1)) == (1, True)
        assert await spool.append(report(2)) == (2, False)
        assert spool.statistics().duplicates_total == 3
    house.now_s += 599
    async with house.open() as spool:
        assert await spool.append(report(2)) == (2, True)
        house.now_s += 2
        assert await spool.append(report(2)) == (3, False)


async def test_small_texts_are_remembered(house: House) -> None:
    async with house.open() as spool:
        assert spool.recall("instance") is None
        await spool.remember("instance", "0badcafe")
        await spool.remember("first_seq", "no business of the journal")
        assert spool.recall("instance") == "0badcafe"
    async with house.open() as spool:
        await spool.remember("instance", "deadbeef")
    async with house.open() as spool:
        assert spool.recall("instance") == "deadbeef"
        assert spool.recall("first_seq") == "no business of the journal"


async def test_a_cancelled_append_leaves_the_others_alone(house: House) -> None:
    async with house.open() as spool:
        with trio.CancelScope() as scope:
            scope.cancel()
            await spool.append(report(1))
        assert scope.cancelled_caught
        assert (await spool.append(report(2))).duplicate is False
        assert (await spool.append(report(1))).duplicate is True
        with trio.CancelScope() as scope:
            scope.cancel()
            await spool.cursor("plant")
        assert scope.cancelled_caught
        assert (await spool.cursor("plant")).ledger.received == 0


async def test_too_much_under_way_is_an_answer(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(underway, "MAX_PENDING", 2)
    async with house.open() as spool:
        await spool.append(report(0))
        ring = spool.writer.ring
        monkeypatch.setattr(spool.writer, "ring", lambda: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spool.append, report(1))
            nursery.start_soon(spool.append, report(2))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(SpoolUnavailable, match="too many reports wait"):
                await spool.append(report(3))
            ring()
        monkeypatch.undo()
        assert (await spool.append(report(3))).seq == 4


async def test_text_that_is_not_unicode_hurts_its_sender_only(house: House) -> None:
    async with house.open() as spool:
        for broken in (NewReport("k\ud800", "l", "", b"{}"), NewReport("k", "l", "\udfff", b"{}")):
            with pytest.raises(UnicodeEncodeError):
                await spool.append(broken)
        assert (await spool.append(report(1))).seq == 1


async def test_a_full_spool_drops_the_oldest_of_the_laggard(house: House) -> None:
    house.limits = SpoolLimits(max_bytes=400_000)
    async with house.open() as spool:
        fast, slow = await spool.cursor("fast"), await spool.cursor("slow")
        for start in range(0, 1_000, 50):
            async with trio.open_nursery() as nursery:
                for n in range(start, start + 50):
                    nursery.start_soon(spool.append, report(n, 500))
            await fast.commit(settled(await take(fast, 50)))
        assert fast.ledger == Ledger(1_000, 1_000, 0, 0, 0, 0, 0)
        left = slow.ledger
        assert (left.received, left.dropped + left.waiting, left.imbalance) == (1_000, 1_000, 0)
        assert 150 < left.waiting < 400
        uplinks = await take(slow, left.waiting)
        assert [uplink.seq for uplink in uplinks] == list(range(left.dropped + 1, 1_001))


async def test_a_full_spool_that_refuses_says_so_and_recovers(house: House) -> None:
    house.limits = SpoolLimits(max_bytes=400_000, refuse_when_full=True)
    async with house.open() as spool:
        slow = await spool.cursor("slow")
        stored = 0

        async def fill() -> None:
            nonlocal stored
            for n in range(10_000):
                await spool.append(report(n, 500))
                stored += 1

        with pytest.raises(SpoolUnavailable, match="the spool is full"):
            await fill()
        assert (spool.statistics().storing, spool.statistics().last_error) == (False, "the spool is full")
        assert slow.ledger == Ledger(stored, 0, 0, 0, 0, 0, stored)
        await slow.commit(settled(await take(slow, stored)))
        assert (await spool.append(report(stored, 500))).duplicate is False
        assert spool.statistics().storing
    assert [event.kind for event in house.events] == ["spool", "spool"]


async def test_a_damaged_row_is_dropped_and_told(house: House) -> None:
    async with house.open() as spool:
        await spool.cursor("plant")
        await append_all(spool, range(5))
    house.sql("UPDATE journal SET body = replace(body, 'FCntUp', 'FCntDn') WHERE seq = 2")
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        uplinks = await take(cursor, 4)
        assert [uplink.seq for uplink in uplinks] == [1, 3, 4, 5]
        assert cursor.ledger == Ledger(5, 0, 0, 0, 0, 1, 4)
        await cursor.commit(settled(uplinks))
        assert cursor.ledger == Ledger(5, 4, 0, 0, 0, 1, 0)
        (event,) = house.events
        assert (event.kind, event.more) == ("damage", {"seq": 2})
    async with house.open() as spool:
        assert (await spool.cursor("plant")).ledger == Ledger(5, 4, 0, 0, 0, 1, 0)


async def test_a_missing_row_is_found_while_running_and_the_file_repaired(house: House) -> None:
    async with house.open() as spool:
        await spool.cursor("plant")
        await append_all(spool, range(5))
    house.sql("DELETE FROM journal WHERE seq = 3")
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        assert [uplink.seq for uplink in await take(cursor, 4)] == [1, 2, 4, 5]
        assert cursor.ledger == Ledger(5, 0, 0, 0, 0, 1, 4)
        assert (await spool.append(report(7))).seq == 6
        (event,) = house.events
        assert (event.kind, event.more["lost"], event.more["lostRanges"]) == ("damage", 1, [[3, 3]])
    assert len(list(house.path.parent.glob("spool.db.damaged-*"))) == 1


async def test_garbage_in_place_of_the_file_is_set_aside(house: House) -> None:
    house.path.parent.mkdir()
    for _ in range(5):
        house.path.write_bytes(b"no database at all " * 1_000)
        house.now_s += 1
        async with house.open() as spool:
            cursor = await spool.cursor("plant")
            assert (await spool.append(report(1))).seq == 1
            assert cursor.ledger.waiting == 1
        assert house.events.pop().kind == "damage"
    assert len(list(house.path.parent.glob("spool.db.damaged-*"))) == 3


async def test_a_newer_file_is_refused_untouched(house: House) -> None:
    async with house.open() as spool:
        await spool.append(report(1))
    house.sql("PRAGMA user_version = 3")
    house.sql("DELETE FROM meta WHERE key = 'format'")
    before = house.path.read_bytes()
    with pytest.raises(SpoolVersionError, match="a newer tpxd wrote this spool"):
        async with house.open():
            pass
    assert house.path.read_bytes() == before


async def test_a_second_daemon_is_kept_out(house: House) -> None:
    async with house.open() as spool:
        with pytest.raises(SpoolUnavailable, match="another tpxd"):
            async with house.open():
                pass
        assert (await spool.append(report(1))).seq == 1


async def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SpoolUnavailable):
        async with House(tmp_path / "file" / "spool.db").open():
            pass


class Faults(sqlite3.Connection):
    """A connection whose disk fails when it is told to."""

    code: int | None = None
    begun = 0

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        if Faults.code is not None and statement.startswith(("BEGIN", "INSERT", "COMMIT")):
            Faults.begun += statement.startswith("BEGIN")
            if not statement.startswith("BEGIN"):
                error = sqlite3.OperationalError("the disk fails")
                error.sqlite_errorcode = Faults.code
                raise error
        return super().execute(statement, *values)  # type: ignore[arg-type]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[Faults]:
    monkeypatch.setattr(Faults, "code", None)
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect
    monkeypatch.setattr("sqlite3.connect", lambda path, **options: connect(path, factory=Faults, **options))
    return Faults


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY])
async def test_a_failing_disk_is_an_answer(house: House, failing: type[Faults], code: int) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        await spool.append(report(1))
        failing.code = code
        for n in (2, 3):
            with pytest.raises(SpoolUnavailable, match="the disk fails") as caught:
                await spool.append(report(n))
            assert caught.value.hint
        with pytest.raises(SpoolUnavailable):
            await cursor.commit([(1, Verdict.DELIVERED)])
        assert cursor.ledger == Ledger(1, 0, 0, 0, 0, 0, 1)
        assert not spool.statistics().storing
        assert "the disk fails" in str(spool.statistics().last_error)
        failing.code = None
        assert (await spool.append(report(2))).seq == 2
        assert spool.statistics().storing
        await cursor.commit([(1, Verdict.DELIVERED)])
        assert [uplink.seq for uplink in await cursor.next_batch(9, 999)] == [2]
    assert [event.message.partition(":")[0] for event in house.events] == [
        "nothing can be stored",
        "the spool stores again",
    ]


async def test_duplicates_of_what_could_not_be_stored_share_its_fate(house: House, failing: type[Faults]) -> None:
    async with house.open() as spool:
        failing.code = sqlite3.SQLITE_FULL
        refused = 0

        async def append() -> None:
            nonlocal refused
            with pytest.raises(SpoolUnavailable):
                await spool.append(report(1))
            refused += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(append)
            nursery.start_soon(append)
        assert refused == 2
        failing.code = None
        assert await spool.append(report(1)) == (1, False)


async def test_the_writer_shows_that_it_moves(house: House) -> None:
    async with house.open() as spool:
        before = spool.moved()
        await spool.append(report(1))
        assert spool.moved() >= before


def test_open_is_a_context_manager(house: House) -> None:
    assert isinstance(house.open(), AbstractAsyncContextManager)
