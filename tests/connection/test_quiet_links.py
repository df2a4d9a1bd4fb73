"""Links over which little goes: AGGRESSIVE opens them anew, and time on them is no part of an outage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from tests.connection.doubles import MemoryCursor, Peer, make_connection, make_uplink, running
from tpxd.config.connection_file import ConnectorConfig
from tpxd.config.flow import Flow
from tpxd.connection.states import ConnectionState
from tpxd.connector import Context, Transport
from tpxd.errors import ConnectFailed, LinkLost

HOUR, DAY = 3_600.0, 86_400.0


async def test_aggressive_opens_a_link_anew_after_an_hour_without_uplinks(autojump_clock: MockClock) -> None:
    peer, cursor = Peer(), MemoryCursor()
    async with running(make_connection(peer, cursor, reconnectStrategy="AGGRESSIVE")) as connection:
        await trio.sleep(HOUR / 2)
        cursor.add(make_uplink(1))
        await trio.sleep(HOUR - 1)
        assert len(peer.opens) == 1
        await trio.sleep(2)
        assert len(peer.opens) == 2
        assert (connection.health.state, connection.health.last_error) == (ConnectionState.OPENED, None)
        await trio.sleep(10 * HOUR)
        assert len(peer.opens) == 12
        cursor.add(make_uplink(2))
        await trio.sleep(1)
    assert peer.batches == [[1], [2]]


async def test_uplinks_that_its_flow_leaves_out_keep_no_link_open(autojump_clock: MockClock) -> None:
    peer, cursor = Peer(), MemoryCursor()
    flow = Flow.model_validate({"matchers": [{"type": "fPort", "ports": [9]}]})
    async with running(make_connection(peer, cursor, flow=flow, reconnectStrategy="AGGRESSIVE")):
        for n in range(1, 91):
            cursor.add(make_uplink(n, FPort=2))
            await trio.sleep(60)
    assert (len(peer.opens), peer.batches) == (2, [])


@pytest.mark.parametrize("strategy", ["CALM", "NORMAL"])
async def test_the_others_leave_a_quiet_link_alone(autojump_clock: MockClock, strategy: str) -> None:
    peer = Peer()
    async with running(make_connection(peer, MemoryCursor(), reconnectStrategy=strategy)):
        await trio.sleep(2 * DAY)
    assert len(peer.opens) == 1


class Blinking(Peer):
    """Away for five seconds at each of these moments."""

    moments: tuple[float, ...] = ()

    def is_away(self) -> Exception | None:
        away = any(moment <= trio.current_time() < moment + 5 for moment in self.moments)
        return ConnectFailed("connection refused") if away else None

    @asynccontextmanager
    async def open(self, config: ConnectorConfig, context: Context) -> AsyncIterator[Transport]:
        """See `Peer`."""
        self.opening = self.is_away
        async with super().open(config, context) as transport, trio.open_nursery() as nursery:
            nursery.start_soon(self._lose)
            yield transport
            nursery.cancel_scope.cancel()

    async def _lose(self) -> None:
        now = trio.current_time()
        await trio.sleep_until(next((moment for moment in self.moments if moment > now), float("inf")))
        raise LinkLost("connection lost: reset by peer")


@pytest.mark.parametrize("strategy", ["CALM", "NORMAL", "AGGRESSIVE"])
async def test_blips_with_days_between_them_stay_blips_however_few_uplinks_there_are(
    autojump_clock: MockClock, strategy: str
) -> None:
    peer, start = Blinking(), trio.current_time()
    peer.moments = tuple(start + days * DAY + HOUR / 2 for days in (0, 2, 4))
    async with running(make_connection(peer, MemoryCursor(), reconnectStrategy=strategy)) as connection:
        for moment in peer.moments:
            await trio.sleep_until(moment + 2)
            assert peer.open_now == 0
            await trio.sleep_until(moment + 40)
            assert peer.open_now == 1, connection.health.reason
