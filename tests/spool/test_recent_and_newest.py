"""The two memories of the event loop: what was stored lately, and the newest uplinks."""

from __future__ import annotations

import tracemalloc
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tests.spool.journals import uplink
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import memories as newest
from tpxd.spool.memories import CAPACITY, Newest, Recent, fitting

KEY = bytes(range(16))


def test_kind_lane_and_body_make_the_digest() -> None:
    recent = Recent(KEY, 600)
    one = recent.digest("DevEUI_uplink", "0018B20000000B20", b"{}")
    assert -(1 << 63) <= one < 1 << 63
    assert one == recent.digest("DevEUI_uplink", "0018B20000000B20", b"{}")
    others = [
        recent.digest("DevEUI_location", "0018B20000000B20", b"{}"),
        recent.digest("DevEUI_uplink", "0018B20000000B21", b"{}"),
        recent.digest("DevEUI_uplink", "0018B20000000B20", b"{ }"),
        Recent(bytes(16), 600).digest("DevEUI_uplink", "0018B20000000B20", b"{}"),
    ]
    assert len({one, *others}) == 5


def test_the_window_ends() -> None:
    recent = Recent(KEY, 10)
    recent.add([7, 8], 1, 1_000)
    recent.add([9], 3, 9_000)
    assert (recent.find(8, 11_000), recent.find(9, 11_000)) == (2, 3)
    assert (recent.find(8, 11_001), recent.find(9, 11_001)) == (None, 3)


def test_a_clock_set_back_does_not_make_the_window_longer() -> None:
    recent = Recent(KEY, 10)
    recent.add([7], 1, 1_000_000)
    assert recent.find(7, 1_000) is None


def test_a_digest_that_comes_again_keeps_its_newer_place() -> None:
    recent = Recent(KEY, 10, capacity=3)
    recent.add([7, 8], 1, 0)
    recent.add([7], 3, 5_000)
    recent.add([9], 4, 6_000)
    assert [recent.find(digest, 6_000) for digest in (7, 8, 9)] == [3, 2, 4]


@given(commits=st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=5), max_size=30))
def test_memory_is_bounded_and_the_newest_are_known(commits: list[list[int]]) -> None:
    recent = Recent(KEY, 10, capacity=8)
    seq = 1
    stored: list[int] = []
    for digests in commits:
        recent.add(digests, seq, 0)
        seq += len(digests)
        stored += digests
        assert all(recent.find(digest, 0) is not None for digest in stored[-4:])
        assert sum(recent.find(digest, 0) is not None for digest in range(51)) <= 8


@given(
    commits=st.lists(st.tuples(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=8), st.integers(0, 4_000))),
    first=st.integers(1, 1 << 40),
)
def test_it_knows_what_a_dictionary_knows(commits: list[tuple[list[int], int]], first: int) -> None:
    recent = Recent(KEY, 10, capacity=20)
    now, seq = 0, first
    stored: dict[int, tuple[int, int]] = {}
    for digests, later in commits:
        now += later
        recent.add(digests, seq, now)
        for digest in digests:
            stored[digest] = seq, now
            seq += 1
        assert len(recent) <= 20
        for digest, (at, stored_ms) in stored.items():
            found = recent.find(digest, now)
            assert found in (at, None)
            if stored_ms >= recent.since_ms(now) and stored_ms >= now - 9_000:
                assert found == at


def test_digests_that_share_a_bucket_and_bytes_are_not_mistaken() -> None:
    recent = Recent(KEY, 10)
    low = 0x1234
    digests = [low | other << 16 for other in (0x010101010101, 0x010101010102, 0x020101010101, 0x030201010101)]
    recent.add(digests, 0x010101, 0)
    assert [recent.find(digest, 0) for digest in digests] == [0x010101 + n for n in range(4)]
    assert recent.find(low | 0x010102010101 << 16, 0) is None


def test_a_million_are_known_in_less_than_20_mib_and_of_older_ones_it_is_said_since_when() -> None:
    numbers = Random(1)
    tracemalloc.start()
    recent = Recent(KEY, 3_600, capacity=CAPACITY)
    for n in range(CAPACITY // 500 + 100):
        recent.add([numbers.getrandbits(64) - (1 << 63) for _ in range(500)], n * 500 + 1, n * 1_000)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    now = (CAPACITY // 500 + 99) * 1_000
    assert (CAPACITY, len(recent)) == (1_000_000, CAPACITY)
    assert size < 20 << 20
    assert recent.since_ms(now) == 100_000
    assert Recent(KEY, 600).since_ms(now) == now - 600_000


def numbered(first: int, count: int, size: int = 10) -> list[Uplink]:
    made = [uplink(b"x" * size) for _ in range(count)]
    for seq, one in enumerate(made, first):
        one.seq = seq
    return made


def test_the_newest_are_served_from_where_they_begin() -> None:
    held = Newest(10)
    held.add(numbered(11, 5))
    assert (held.first_seq, held.last_seq, len(held)) == (11, 15, 5)
    assert [one.seq for one in held.after(12, 2, 1_000) or ()] == [13, 14]
    assert held.after(15, 2, 1_000) is None
    assert held.after(9, 2, 1_000) is None
    assert [one.seq for one in held.after(10, 9, 25) or ()] == [11, 12]
    assert (held.get(10), held.get(16)) == (None, None)


def test_what_everyone_is_done_with_is_let_go() -> None:
    held = Newest(0)
    held.add(numbered(1, newest.SPARE))
    assert held.is_long()
    held.trim(100)
    assert (held.first_seq, held.is_long()) == (101, False)
    held.trim(10_000)
    assert (len(held), held.first_seq) == (0, newest.SPARE + 1)


def test_the_newest_are_bounded_by_number_and_bytes() -> None:
    held = Newest(0)
    held.add(numbered(1, newest.MAX_UPLINKS + 5))
    held.trim(0)
    assert len(held) == newest.MAX_UPLINKS
    large = Newest(0)
    large.add(numbered(1, 5, newest.MAX_BYTES // 4))
    assert large.is_long()
    large.trim(0)
    assert [one.seq for one in large.after(1, 9, 1 << 30) or ()] == [2, 3, 4, 5]


def test_one_uplink_always_fits() -> None:
    assert len(fitting(numbered(1, 3, 100), 1)) == 1
    assert len(fitting(numbered(1, 3, 100), 200)) == 2
