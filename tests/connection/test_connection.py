"""The life of a connection: open, deliver, lose, wait, open again; nothing lost, nothing doubled without need."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from tests.connection.doubles import MemoryCursor, Peer, delivered, make_connection, make_uplink, running
from tpxd.connection.in_hand import CONVICTED, EVERY_PUBLISH
from tpxd.connection.states import ConnectionState
from tpxd.connector import Outgoing, Receipts
from tpxd.connectors.parts.tls import TlsConfig
from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost, Refused, SpoolUnavailable, Throttled
from tpxd.spool import Fate, Rejected


async def test_delivers_in_order_and_commits(autojump_clock: MockClock) -> None:
    peer, cursor = Peer(), MemoryCursor()
    cursor.add(*(make_uplink(n) for n in range(1, 1001)))
    async with running(make_connection(peer, cursor)) as connection:
        await trio.sleep(1)
        assert connection.health.state is ConnectionState.OPENED
        assert delivered(cursor) == list(range(1, 1001))
        assert [seq for batch in peer.batches for seq in batch] == list(range(1, 1001))
        assert max(map(len, peer.batches)) <= 128
        cursor.add(make_uplink(1001))
        await trio.sleep(1)
        assert cursor.position == 1001
    assert peer.open_now == 0


async def test_a_link_lost_in_mid_batch_sends_again_only_what_has_no_receipt(autojump_clock: MockClock) -> None:
    lost_once = False

    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        nonlocal lost_once
        for index in range(len(batch)):
            if not lost_once and index == 6:
                receipts.delivered(12)  # another lane was quicker
                lost_once = True
                raise LinkLost("reset by peer")
            receipts.delivered(index)

    peer, cursor = Peer(sending=sending), MemoryCursor()
    cursor.add(*(make_uplink(n) for n in range(1, 17)))
    async with running(make_connection(peer, cursor)) as connection:
        await trio.sleep(0.01)
        assert connection.health.state is ConnectionState.CLOSED
        assert connection.health.last_error is not None
        assert cursor.position == 6, "the receipts that came are committed although the link is gone"
        await trio.sleep(40)
        assert delivered(cursor) == list(range(1, 17))
    again = [seq for batch in peer.batches[1:] for seq in batch]
    assert again == [n for n in range(7, 17) if n != 13], "what had its receipt is not sent a second time"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("connection lost: reset by peer", "connection lost: reset by peer (through proxy 192.0.2.1:3128)"),
        ("proxy 192.0.2.1:3128: connection refused (TCP)", "proxy 192.0.2.1:3128: connection refused (TCP)"),
    ],
)
async def test_behind_a_proxy_every_error_names_it_once(autojump_clock: MockClock, said: str, shown: str) -> None:
    connection = make_connection(Peer(opening=lambda: LinkLost(said)), MemoryCursor())
    proxied = TlsConfig.model_validate({"proxy": {"hostname": "192.0.2.1:3128"}})
    connection.file = connection.file.model_copy(update={"configuration": proxied})
    async with running(connection):
        await trio.sleep(0.01)
        assert connection.health.reason == shown
        assert connection.health.last_error is not None
        assert connection.health.last_error.message == shown


async def test_never_more_than_256_in_hand(autojump_clock: MockClock) -> None:
    peer, cursor = Peer(), MemoryCursor()
    cursor.refuses = SpoolUnavailable("disk full")
    cursor.add(*(make_uplink(n) for n in range(1, 1001)))
    async with running(make_connection(peer, cursor)):
        await trio.sleep(10)
        assert sum(map(len, peer.batches)) == 256
        cursor.refuses = None
        await trio.sleep(10)
        assert delivered(cursor) == list(range(1, 1001))


async def test_a_failing_opening_is_tried_in_a_burst_and_then_by_the_table(autojump_clock: MockClock) -> None:
    peer = Peer(opening=lambda: ConnectFailed("refused", hint="is it running?"))
    async with running(make_connection(peer, MemoryCursor(), reconnectStrategy="AGGRESSIVE")) as connection:
        await trio.sleep(290)
        assert len(peer.opens) > 8
        assert connection.health.state is ConnectionState.CLOSED
        assert connection.health.reason == "refused"
        assert connection.health.retry_at is not None
        await trio.sleep(40)
        count = len(peer.opens)
        await trio.sleep(3000)
        assert 3000 / 240 - 2 <= len(peer.opens) - count <= 3000 / 120 + 2
        quiet = len(peer.opens)
        connection.nudge()
        await trio.sleep(40)
        assert len(peer.opens) - quiet >= 3, "reconnect begins the burst anew"


async def test_who_asks_while_a_try_is_under_way_gets_another_at_once_when_it_fails(autojump_clock: MockClock) -> None:
    def opening() -> ConnectFailed:
        if len(peer.opens) == 2:
            connection.nudge()
        return ConnectFailed("refused")

    peer = Peer(opening=opening)
    async with running(make_connection(peer, MemoryCursor())) as connection:
        await trio.sleep(10)
    first, second, third, fourth, *_ = peer.opens
    assert third == second
    assert second - first >= 1.0 <= fourth - third


async def test_a_nudge_of_an_open_link_is_none_for_its_end(autojump_clock: MockClock) -> None:
    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        raise LinkLost("closed by the far end")

    peer, cursor = Peer(), MemoryCursor()

    def opening() -> None:
        connection.nudge()

    peer.opening, peer.sending = opening, sending
    cursor.add(make_uplink(1))
    async with running(make_connection(peer, cursor)) as connection:
        await trio.sleep(10)
    first, second, *_ = peer.opens
    assert second - first >= 1.0


async def test_opening_alone_does_not_reset_the_burst_but_a_receipt_does(autojump_clock: MockClock) -> None:
    generous = False

    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        if generous:
            receipts.delivered(0)
        raise LinkLost("closed by the far end")

    peer, cursor = Peer(sending=sending), MemoryCursor()
    cursor.add(*(make_uplink(n) for n in range(1, 1001)))
    async with running(make_connection(peer, cursor)):
        await trio.sleep(600)
        slow = len(peer.opens)
        await trio.sleep(250)
        assert len(peer.opens) - slow <= 2, "after five minutes without a receipt it tries every five minutes"
        generous = True
        await trio.sleep(400)
        before = len(peer.opens)
        await trio.sleep(60)
        assert len(peer.opens) - before >= 2


async def test_refused_credentials_are_tried_every_five_minutes(autojump_clock: MockClock) -> None:
    peer = Peer(opening=lambda: AuthenticationFailed("bad user name or password"))
    async with running(make_connection(peer, MemoryCursor())) as connection:
        await trio.sleep(1)
        assert connection.health.state is ConnectionState.AUTHENTICATION_FAILED
        await trio.sleep(3600)
        assert len(peer.opens) == 13


async def test_patience_keeps_the_link_open(autojump_clock: MockClock) -> None:
    told = False

    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        nonlocal told
        if not told:
            told = True
            receipts.delivered(0)
            raise Throttled("429 Too Many Requests", retry_after_s=20)
        for index in range(len(batch)):
            receipts.delivered(index)

    peer, cursor = Peer(sending=sending), MemoryCursor()
    cursor.add(make_uplink(1), make_uplink(2))
    async with running(make_connection(peer, cursor)) as connection:
        await trio.sleep(10)
        assert connection.health.state is ConnectionState.OPENED
        assert connection.health.to_document()["reason"] == "429 Too Many Requests"
        assert cursor.position == 1
        await trio.sleep(15)
        assert connection.health.reason is None
        assert peer.batches == [[1, 2], [2]]
    assert len(peer.opens) == 1


async def test_a_poisonous_uplink_becomes_a_dead_letter(autojump_clock: MockClock) -> None:
    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        for index, outgoing in enumerate(batch):
            if outgoing.uplink.seq == 3:
                raise LinkLost("closed by the broker")
            receipts.delivered(index)

    peer, cursor = Peer(sending=sending), MemoryCursor()
    cursor.add(*(make_uplink(n) for n in range(1, 7)))
    async with running(make_connection(peer, cursor)):
        await trio.sleep(300)
    assert delivered(cursor) == [1, 2, 4, 5, 6]
    assert (3, Rejected(CONVICTED)) in cursor.fates
    assert sum(3 in batch for batch in peer.batches) == 4


async def test_a_far_end_that_closes_on_everything_convicts_nobody(autojump_clock: MockClock) -> None:
    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        raise LinkLost("closed by the broker")

    peer, cursor = Peer(sending=sending), MemoryCursor()
    cursor.add(*(make_uplink(n) for n in range(1, 7)))
    reasons = set()
    async with running(make_connection(peer, cursor)) as connection:
        for _ in range(300):
            await trio.sleep(1)
            reasons.add(connection.health.reason)
    assert cursor.fates == []
    assert any(EVERY_PUBLISH in (reason or "") for reason in reasons)


async def test_a_refusal_is_held_and_never_poison(autojump_clock: MockClock) -> None:
    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        raise Refused("500 Internal Server Error")

    peer, cursor = Peer(sending=sending), MemoryCursor()
    cursor.add(make_uplink(1), make_uplink(2))
    async with running(make_connection(peer, cursor)):
        await trio.sleep(3600)
        assert all(batch == [1, 2] for batch in peer.batches)
        assert len(peer.batches) > 10
    assert cursor.fates == []


async def test_a_stop_lets_the_batch_under_way_finish_within_its_grace(autojump_clock: MockClock) -> None:
    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        for index in range(len(batch)):
            await trio.sleep(1)
            receipts.delivered(index)

    peer, cursor = Peer(sending=sending), MemoryCursor()
    cursor.add(*(make_uplink(n) for n in range(1, 5)))
    connection = make_connection(peer, cursor, grace_s=5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await trio.sleep(1.5)
        connection.stopping.request()
        cursor.add(make_uplink(5))
    assert delivered(cursor) == [1, 2, 3, 4], "the batch in flight went out and nothing new was begun"
    assert peer.open_now == 0


async def test_a_stop_ends_a_hanging_batch_at_the_end_of_the_grace(autojump_clock: MockClock) -> None:
    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        receipts.delivered(0)
        await trio.sleep_forever()

    peer, cursor = Peer(sending=sending), MemoryCursor()
    cursor.add(make_uplink(1), make_uplink(2))
    connection = make_connection(peer, cursor, grace_s=5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await trio.sleep(1)
        asked = trio.current_time()
        connection.stopping.request()
    assert trio.current_time() - asked == pytest.approx(5, abs=0.1)
    assert delivered(cursor) == [1]


async def test_a_stop_interrupts_every_kind_of_waiting_at_once(autojump_clock: MockClock) -> None:
    closed = make_connection(Peer(opening=lambda: ConnectFailed("refused")), MemoryCursor())
    idle = make_connection(Peer(), MemoryCursor())
    paced = make_connection(Peer(), MemoryCursor(), uplinkRateLimiter=1)
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for connection in (closed, idle, paced):
            nursery.start_soon(connection.run)
        await trio.sleep(400)
        for connection in (closed, idle, paced):
            connection.stopping.request()
    assert trio.current_time() - started == pytest.approx(400, abs=0.1)


async def test_an_unexpected_error_leaves_the_connection_with_its_receipts_committed(
    autojump_clock: MockClock,
) -> None:
    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        receipts.delivered(0)
        raise ZeroDivisionError

    cursor = MemoryCursor()
    cursor.add(make_uplink(1), make_uplink(2))
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        await make_connection(Peer(sending=sending), cursor).run()
    assert delivered(cursor) == [1]


async def test_a_rate_limit_spreads_uplinks(autojump_clock: MockClock) -> None:
    peer, cursor = Peer(), MemoryCursor()
    cursor.add(*(make_uplink(n) for n in range(1, 101)))
    async with running(make_connection(peer, cursor, uplinkRateLimiter=10)):
        await trio.sleep(1)
        assert 10 <= cursor.position <= 11, "no faster at the beginning, whatever waits"
        await trio.sleep(4.05)
        assert 50 <= cursor.position <= 52
        await trio.sleep(6)
        assert cursor.position == 100


async def test_uplinks_too_old_when_they_are_taken_expire(autojump_clock: MockClock) -> None:
    import time

    now_ms = int(time.time() * 1000)
    peer, cursor = Peer(), MemoryCursor()
    cursor.add(make_uplink(1, received_ms=now_ms - 10_000), make_uplink(2, received_ms=now_ms + 3_600_000))
    async with running(make_connection(peer, cursor, uplinkTimeValidity="5s")):
        await trio.sleep(1)
    assert cursor.fates == [(1, Fate.EXPIRED), (2, Fate.DELIVERED)]


async def test_replaced_characters_are_counted_once(autojump_clock: MockClock) -> None:
    async def sending(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        for outgoing in batch:
            outgoing.replaced = 2
        if len(peer.batches) == 1:
            raise LinkLost("reset by peer")
        for index in range(len(batch)):
            receipts.delivered(index)

    peer, cursor = Peer(sending=sending), MemoryCursor()
    cursor.add(*(make_uplink(n) for n in range(1, 6)))
    async with running(make_connection(peer, cursor)) as connection:
        await trio.sleep(40)
        assert connection.health.to_document()["replacedCharacters"] == 10


async def test_what_has_its_receipt_is_committed_also_while_all_is_cancelled(autojump_clock: MockClock) -> None:
    """The disk refused until now; the last try is not cancelled with the rest."""
    cursor = MemoryCursor()
    cursor.add(make_uplink(1), make_uplink(2))
    cursor.refuses = SpoolUnavailable("the disk is full")
    async with running(make_connection(Peer(), cursor)):
        await trio.sleep(0.5)
        cursor.refuses = None
    assert delivered(cursor) == [1, 2]


async def test_the_last_commit_has_two_seconds(autojump_clock: MockClock) -> None:
    cursor = MemoryCursor()
    cursor.add(make_uplink(1))
    cursor.refuses = SpoolUnavailable("the disk is full")
    async with running(make_connection(Peer(), cursor)):
        await trio.sleep(0.5)
        ends = trio.current_time()
    assert trio.current_time() - ends == pytest.approx(2.0)
    assert delivered(cursor) == []
