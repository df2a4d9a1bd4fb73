"""Lines about states: what was said last is true, and a far end that fails on and on makes two lines a minute."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.connection.doubles import MemoryCursor, Peer, make_connection, make_uplink, running
from tpxd.connection.state_lines import QUIET_S, StateLines
from tpxd.connection.states import ConnectionState
from tpxd.connector import Outgoing, Receipts
from tpxd.errors import LinkLost
from tpxd.events import Event

Line = tuple[str, str | None]


class Said:
    """Lines and when they were said, on a clock that the test moves."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, str, str | None, int]] = []
        self.now = 0.0
        self.of = StateLines(self._say, lambda: self.now)

    def _say(self, state: str, reason: str | None, left_out: int) -> None:
        self.lines.append((self.now, state, reason, left_out))


def test_the_same_twice_is_said_once() -> None:
    said = Said()
    for _ in range(2):
        said.of.entered("CLOSED", "connection refused")
    said.of.entered("CLOSED", "timed out")
    said.of.entered("DEACTIVATED", None)
    assert [line[1:3] for line in said.lines] == [
        ("CLOSED", "connection refused"),
        ("CLOSED", "timed out"),
        ("DEACTIVATED", None),
    ]


def test_pairs_within_a_minute_are_left_out_and_counted() -> None:
    said = Said()
    for said.now in range(0, 200, 10):
        said.of.entered("OPENED", None)
        said.of.entered("CLOSED", f"reset after {said.now} s" if said.now % 20 else "reset")
    assert said.lines == [
        (0, "OPENED", None, 0), (0, "CLOSED", "reset", 0),
        (60, "OPENED", None, 5), (60, "CLOSED", "reset", 0),
        (120, "OPENED", None, 5), (120, "CLOSED", "reset", 0),
        (180, "OPENED", None, 5), (180, "CLOSED", "reset", 0),
    ]  # fmt: skip


async def test_a_far_end_that_fails_on_and_on(autojump_clock: MockClock) -> None:
    """Uplinks have their receipts, so that each time the burst begins anew; then the far end is well."""

    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        receipts.delivered(0)
        if trio.current_time() < until:
            raise LinkLost("reset by peer")
        for index in range(1, len(batch)):
            receipts.delivered(index)

    peer, cursor, until = Peer(sending=sending), MemoryCursor(), trio.current_time() + 605
    cursor.add(*(make_uplink(n) for n in range(1, 1001)))
    connection = make_connection(peer, cursor)
    events: list[Event] = []
    connection.health.tell = events.append
    connection.health.monotonic = trio.current_time
    async with running(connection):
        await trio.sleep(605)
        assert len(peer.opens) > 200
        flapping = [event.message for event in events if event.kind == "state"]
        assert [message[:13] for message in flapping] == ["plant: OPENED", "plant: CLOSED"] * (len(flapping) // 2)
        assert 9 <= len(flapping) // 2 <= 11
        assert any("times meanwhile" in message for message in flapping)
        await trio.sleep(QUIET_S + 5)
        assert events[-1].message.startswith("plant: OPENED")


async def test_another_version_is_not_made_to_wait(autojump_clock: MockClock) -> None:
    connection = make_connection(Peer(), MemoryCursor())
    events: list[Event] = []
    connection.health.tell = events.append
    for _ in range(3):
        async with running(connection):
            await trio.sleep(1)
        connection.health.enter(ConnectionState.CLOSED)
    assert [event.message for event in events] == ["plant: OPENED", "plant: CLOSED"] * 3


@given(
    st.lists(
        st.tuples(
            st.floats(0, 40),
            st.sampled_from([("OPENED", None), ("CLOSED", "a"), ("CLOSED", "b"), ("CLOSED", None), ("INVALID", "c")]),
        ),
        max_size=60,
    )
)
def test_lines_are_pairs_that_no_minute_has_two_of(turns: list[tuple[float, Line]]) -> None:
    said = Said()
    for wait_s, line in turns:
        said.now += wait_s
        said.of.entered(*line)
    opened = [at for at, state, *_ in said.lines if state == "OPENED"]
    assert all(later - at >= QUIET_S for at, later in pairwise(opened))
    for before, after in pairwise(said.lines):
        assert before[1:3] != after[1:3]
    if said.lines and said.lines[-1][1] == "OPENED":
        assert turns[-1][1] == ("OPENED", None), "the end of what was said to be open is never left out"
