"""What goes first when room is short."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tpxd.spool.room import NOTICE_S, ROW_OVERHEAD_BYTES, Arrival, Cause, DropNotices, Laggard, Sacrifice, choose

ROWS = [Arrival(seq, seq * 1_000, 100) for seq in range(11, 21)]
ONE = 100 + ROW_OVERHEAD_BYTES


def test_what_everyone_is_done_with_goes_first() -> None:
    cursors = [Laggard(15, 1.0), Laggard(18, None)]
    assert choose(ROWS, cursors, 10 * ONE, 10**9, may_drop=True) == Sacrifice(15, Cause.DONE)
    assert choose(ROWS, cursors, 2 * ONE, 10**9, may_drop=True) == Sacrifice(12, Cause.DONE)


def test_then_what_has_expired_for_all_that_wait() -> None:
    cursors = [Laggard(10, 2.0), Laggard(13, None), Laggard(20, None)]
    # At 15.5 s everything up to seq 13 is older than two seconds; from 14 on the second cursor waits for ever.
    assert choose(ROWS, cursors, 10 * ONE, 15_500, may_drop=False) == Sacrifice(13, Cause.EXPIRED)
    assert choose(ROWS, cursors, 10 * ONE, 14_500, may_drop=False) == Sacrifice(12, Cause.EXPIRED)


def test_then_the_oldest_that_still_wait_unless_the_spool_refuses() -> None:
    cursors = [Laggard(10, None)]
    assert choose(ROWS, cursors, 3 * ONE - 1, 10**9, may_drop=True) == Sacrifice(13, Cause.DROPPED)
    assert choose(ROWS, cursors, 3 * ONE, 10**9, may_drop=False) is None


def test_without_rows_nothing_can_go_and_without_cursors_everything() -> None:
    assert choose([], [Laggard(10, None)], 1, 0, may_drop=True) is None
    assert choose(ROWS, [], 10**6, 0, may_drop=False) == Sacrifice(20, Cause.DONE)


@given(
    positions=st.lists(st.tuples(st.integers(8, 22), st.one_of(st.none(), st.floats(0, 20))), max_size=4),
    needed=st.integers(1, 3_000),
    now_ms=st.integers(0, 40_000),
)
def test_a_connection_that_keeps_up_loses_nothing(
    positions: list[tuple[int, float | None]], needed: int, now_ms: int
) -> None:
    cursors = [Laggard(*one) for one in positions]
    chosen = choose(ROWS, cursors, needed, now_ms, may_drop=True)
    assert chosen is not None
    waiting = [cursor for cursor in cursors if cursor.position < chosen.through]
    match chosen.cause:
        case Cause.DONE:
            assert not waiting
        case Cause.EXPIRED:
            last = next(row for row in ROWS if row.seq == chosen.through)
            assert waiting
            assert all(one.validity_s is not None for one in waiting)
            assert all(last.received_ms + (one.validity_s or 0) * 1000 < now_ms for one in waiting)
        case Cause.DROPPED:
            assert waiting
            assert min(cursor.position for cursor in cursors) < ROWS[0].seq


def test_one_notice_per_connection_and_hour() -> None:
    notices = DropNotices()
    notices.note({"a": 3})
    assert notices.due(0.0) == {"a": 3}
    notices.note({"a": 4, "b": 1})
    notices.note({"a": 2})
    assert notices.due(10.0) == {"b": 1}
    assert notices.due(NOTICE_S - 1) == {}
    assert notices.due(NOTICE_S) == {"a": 6}
    assert notices.due(10 * NOTICE_S) == {}
