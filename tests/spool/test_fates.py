"""What became of each uplink on each connection: known until it goes, after a restart, a repair, a failed write too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.spool.house import House, append_all
from tests.spool.journals import renewed, store
from tpxd.errors import SpoolUnavailable
from tpxd.spool import Fate, Filtered, Outcome, Rejected, Settled, SpoolLimits, ledger
from tpxd.spool.database import Damaged, Distrusted
from tpxd.spool.fates import BLOCK, DROPPED, OUTCOMES, REJECTED, digit_of
from tpxd.spool.journal import Journal
from tpxd.spool.keeping import Keeping
from tpxd.spool.starting import start_journal

NOW_S = 1_795_000_000.0
FATES: list[Settled] = [*Fate, *Filtered, Rejected("413 too large")]
WAITING, DELIVERED, UNKNOWN = Outcome("waiting"), Outcome("delivered"), Outcome("unknown")
REFUSED = Outcome("rejected", "413 too large")


def expected(fate: Settled) -> Outcome:
    match fate:
        case Rejected(reason):
            return Outcome("rejected", reason)
        case Filtered():
            return Outcome("filtered", fate.value)
        case Fate():
            return Outcome(fate.value)


def opened(path: Path) -> Journal:
    return start_journal(path, 4_096, lambda: NOW_S, lambda event: None)


def settle(journal: Journal, id: str, fates: dict[int, Settled], *, in_order: bool = True) -> None:
    with journal.transaction():
        ledger.settle(journal, id, list(fates.items()), 0, in_order=in_order)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(opened(tmp_path / "spool.db")) as journal:
        with journal.transaction():
            for id in ("office", "plant"):
                ledger.ensure(journal, id)
        yield journal


def test_each_fate_has_a_digit_of_its_own_and_those_never_change() -> None:
    digits = {fate: digit_of(fate) for fate in FATES if fate is not Fate.DELIVERED and not isinstance(fate, Rejected)}
    assert [*digits.values(), REJECTED, DROPPED] == ["1", "2", "5", "6", "7", "8", "9", "a", "3", "4"]
    assert len(OUTCOMES) == 10


async def test_a_spool_tells_what_became_of_its_uplinks(house: House) -> None:
    async with house.open() as spool:
        plant, office = await spool.cursor("plant"), await spool.cursor("office")
        await append_all(spool, range(5))
        await plant.commit([(1, Fate.DELIVERED), (2, Filtered.FLOW), (3, Rejected("413 too large"))])
        await office.commit([(4, Fate.EXPIRED)], in_order=False)
        late = await spool.cursor("late")
        assert late.position == 5
        assert plant.ledger.filtered == 1
    async with house.open() as spool:
        assert await spool.fates_of([3, 1, 2, 4]) == {
            1: {"office": WAITING, "plant": DELIVERED},
            2: {"office": WAITING, "plant": Outcome("filtered", "its flow does not take it")},
            3: {"office": WAITING, "plant": REFUSED},
            4: {"office": Outcome("expired"), "plant": WAITING},
        }


steps = st.lists(
    st.tuples(
        st.sampled_from(["plant", "office"]), st.booleans(), st.lists(st.sampled_from(FATES), min_size=1, max_size=40)
    ),
    max_size=12,
)


@settings(max_examples=20, deadline=None)
@given(steps=steps, chance=st.randoms(use_true_random=False))
def test_what_was_settled_is_told_whatever_the_order_also_after_a_restart(
    steps: list[tuple[str, bool, list[Settled]]], chance: object
) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "spool.db"
        journal = opened(path)
        with journal.transaction():
            for id in ("office", "plant"):
                ledger.ensure(journal, id)
        store(journal, [5] * 2 * BLOCK)
        known: dict[str, dict[int, Settled]] = {"plant": {}, "office": {}}
        for id, in_order, fates in steps:
            position = max(journal.state.cursors[id].position, BLOCK - 60)
            waiting = [seq for seq in range(position + 1, 2 * BLOCK) if seq not in known[id]]
            if not in_order:
                chance.shuffle(waiting)  # type: ignore[attr-defined]
            settled = dict(zip(waiting, fates, strict=False))
            settle(journal, id, settled, in_order=in_order)
            known[id] |= settled
        for again in range(2):
            seqs = [*known["plant"], *known["office"]]
            found = ledger.fates_of(journal, seqs)
            for id, fates_there in known.items():
                for seq, fate in fates_there.items():
                    assert found[seq][id] == expected(fate)
            if again == 0:
                journal.close()
                journal = opened(path)
        journal.close()


def test_what_was_passed_over_is_dropped(journal: Journal) -> None:
    store(journal, [5] * 5)
    settle(journal, "plant", {2: Filtered.FLOW}, in_order=False)
    settle(journal, "plant", {1: Fate.DELIVERED, 4: Fate.DELIVERED})
    words = {seq: found["plant"].word for seq, found in ledger.fates_of(journal, range(1, 6)).items()}
    assert words == {1: "delivered", 2: "filtered", 3: "dropped", 4: "delivered", 5: "waiting"}


def test_a_failed_write_leaves_nothing_behind(journal: Journal) -> None:
    store(journal, [5] * 3)
    settle(journal, "plant", {1: Filtered.FLOW})

    def in_vain() -> None:
        with journal.transaction():
            ledger.settle(journal, "plant", [(2, Filtered.FLOW)], 0)
            raise SpoolUnavailable("the disk fails")

    with pytest.raises(SpoolUnavailable):
        in_vain()
    settle(journal, "plant", {2: Fate.DELIVERED})
    assert [found["plant"].word for found in ledger.fates_of(journal, (1, 2)).values()] == ["filtered", "delivered"]


def test_a_dead_letter_that_is_gone_takes_its_reason_with_it(journal: Journal) -> None:
    store(journal, [5])
    settle(journal, "plant", {1: Rejected("413 too large")})
    journal._connection.execute("DELETE FROM dead_letters")
    assert ledger.fates_of(journal, (1,))[1]["plant"] == Outcome("rejected")


def rows_of_fates(journal: Journal) -> int:
    ((count,),) = journal._connection.execute("SELECT count(*) FROM fates").fetchall()
    assert isinstance(count, int)
    return count


def test_fates_go_with_their_uplinks_and_take_less_than_a_byte_each(journal: Journal, tmp_path: Path) -> None:
    for _ in range(20):
        store(journal, [5] * BLOCK)
    before = journal.reader.used_bytes()
    for first in range(1, 20 * BLOCK, BLOCK):
        settle(journal, "plant", dict.fromkeys(range(first, first + BLOCK), Filtered.FLOW))
        settle(journal, "office", dict.fromkeys(range(first, first + BLOCK), Fate.DELIVERED))
    assert journal.reader.used_bytes() - before < 20 * BLOCK
    assert rows_of_fates(journal) == 21
    keeping = Keeping(SpoolLimits(retention_s=60.0), tmp_path, lambda: NOW_S + 61, lambda directory: 1 << 40)
    while keeping.tick(journal):
        pass
    assert rows_of_fates(journal) == 1, "the newest of them may share a block with the next"


def test_a_forgotten_queue_takes_its_fates_with_it(journal: Journal) -> None:
    store(journal, [5] * 3)
    for id in ("plant", "office"):
        settle(journal, id, {1: Filtered.FLOW, 2: Filtered.CHAIN})
    with journal.transaction():
        ledger.settle(journal, "office", [(3, Filtered.FLOW)], 0)
        ledger.forget(journal, "plant")
        ledger.ensure(journal, "new")
    assert {id: found.word for id, found in ledger.fates_of(journal, (3,))[3].items()} == {"office": "filtered"}
    store(journal, [5])
    settle(journal, "new", {4: Fate.DELIVERED})
    assert ledger.fates_of(journal, (4,))[4]["new"] == DELIVERED


@pytest.mark.parametrize("why", [Damaged("a test"), Distrusted("a test")])
def test_a_repair_keeps_what_is_noted_and_claims_no_more(journal: Journal, why: Damaged | Distrusted) -> None:
    store(journal, [5] * 6)
    with journal.transaction():
        ledger.forget(journal, "office")
        ledger.ensure(journal, "aaa")  # sorts before the others, so that the numbers of the cursors change
    store(journal, [5] * 2)
    settle(journal, "plant", {1: Filtered.FLOW, 2: Fate.DELIVERED, 3: Rejected("413 too large")})
    settle(journal, "aaa", {7: Fate.EXPIRED})
    again = renewed(journal, why)
    with closing(again):
        store(again, [5])
        settle(again, "plant", dict.fromkeys(range(4, 10), Fate.DELIVERED))
        found = ledger.fates_of(again, (1, 2, 3, 7, 9))
        assert [found[seq]["plant"].word for seq in (1, 2, 3, 9)] == ["filtered", "unknown", "rejected", "delivered"]
        assert found[3]["plant"] == REFUSED
        assert found[7] == {"aaa": Outcome("expired"), "plant": UNKNOWN}


def test_a_block_that_is_damaged_is_not_believed(journal: Journal) -> None:
    store(journal, [5] * 2)
    settle(journal, "plant", {1: Filtered.FLOW})
    journal.close()
    again = opened(journal.path)
    with closing(again):
        again._connection.execute("UPDATE fates SET digits = zeroblob(256)")
        assert ledger.fates_of(again, (1,))[1]["plant"] == UNKNOWN
