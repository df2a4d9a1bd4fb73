"""Whom to close out: silence first, each peer its own, those that posted well last."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpxd.intake.places import SHARES, Places, peer_of


def test_there_are_enough_places_for_everyone() -> None:
    places = Places[int](8)
    assert [places.opened(n, f"192.0.2.{n}") for n in range(8)] == [None] * 8


def test_a_peer_at_its_share_pays_with_its_own_longest_silent() -> None:
    places = Places[str](100)
    assert places.opened("lrc", "192.0.2.1") is None
    for n in range(25):
        assert places.opened(f"flood {n}", "192.0.2.9") is None
    places.byte("flood 0")
    assert places.opened("flood 25", "192.0.2.9") == "flood 1"
    assert places.opened("flood 26", "::ffff:192.0.2.9") == "flood 2"
    assert places.opened("flood 27", "192.0.2.10") is None


def test_those_that_posted_well_go_last_and_the_longest_idle_of_them_first() -> None:
    places = Places[str](12)
    for name in ("a", "b", "silent"):
        assert places.opened(name, "192.0.2.1") is None
    for name in ("a", "b"):
        places.byte(name)
        places.posted(name)
    places.byte("silent")
    places.byte("a")
    assert places.opened("c", "192.0.2.1") == "silent"
    places.posted("c")
    assert places.opened("d", "192.0.2.1") == "b"


def test_when_all_places_are_taken_anybody_pays() -> None:
    places = Places[str](4)
    places.opened("lrc", "192.0.2.1")
    places.posted("lrc")
    for n in range(3):
        assert places.opened(f"silent {n}", f"198.51.100.{n}") is None
    for n in range(20):
        assert places.opened(f"silent {n + 3}", f"203.0.113.{n}") == f"silent {n}"


def test_a_trusted_proxy_has_no_share() -> None:
    places = Places[int](8, {"10.0.0.1"}.__contains__)
    assert [places.opened(n, "10.0.0.1") for n in range(8)] == [None] * 8
    assert places.opened(8, "10.0.0.1") == 0


def test_what_is_said_of_a_connection_that_is_gone_changes_nothing() -> None:
    places = Places[int](4)
    places.opened(1, "192.0.2.1")
    assert places.opened(2, "192.0.2.1") == 1
    for say in (places.byte, places.posted, places.closed):
        say(1)
        say(7)
    assert places.opened(3, "192.0.2.1") == 2


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
        ("a name", "a name"),
    ],
)
def test_who_is_one_peer(address: str, peer: str) -> None:
    assert peer_of(address) == peer


ACTS = st.lists(
    st.tuples(st.sampled_from(["opened", "byte", "posted", "closed"]), st.integers(0, 30), st.integers(1, 5)),
    max_size=200,
)


@given(ACTS, st.integers(1, 12))
def test_the_numbers_hold_whatever_peers_do(acts: list[tuple[str, int, int]], total: int) -> None:
    places = Places[int](total, {"192.0.2.5"}.__contains__)
    open_: dict[int, str] = {}
    well: set[int] = set()
    for act, connection, host in acts:
        address = f"192.0.2.{host}"
        if act == "opened":
            if connection in open_:
                continue
            victim = places.opened(connection, address)
            if victim is not None:
                assert open_.pop(victim) in (address, *open_.values()) or len(open_) == total - 1
                assert victim not in well or well.issuperset(c for c, a in open_.items() if a == address)
            open_[connection] = address
            well.discard(connection)
        else:
            getattr(places, act)(connection)
            if act == "closed":
                open_.pop(connection, None)
            elif act == "posted" and connection in open_:
                well.add(connection)
        assert len(open_) <= total
        for peer in set(open_.values()) - {"192.0.2.5"}:
            assert list(open_.values()).count(peer) <= max(1, total // SHARES)
