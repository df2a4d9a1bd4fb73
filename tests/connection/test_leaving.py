"""What becomes of a connection's traces at its far end when its file is removed."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.connection.doubles import MemoryCursor, Peer, ScriptedTransport, make_connection
from tests.reload.supervised import supervised
from tpxd.config.connection_file import ConnectorConfig
from tpxd.connection import far_end as tpxd_far_end
from tpxd.connection.connection import Connection
from tpxd.connection.far_end import LEAVE_S
from tpxd.connector import REGISTRY, Connector, Context, Transport
from tpxd.errors import ConnectFailed, LinkLost
from tpxd.reload import slot


class Listening(ConnectorConfig):
    """Takes downlinks from one topic, unless it is told not to."""

    @property
    def downlink_sources(self) -> list[str]:
        return ["plant/+/down"] if self.downlinkEnabled else []


class FarEnd:
    """Keeps how it was opened: whether with downlinks, and from when to when."""

    def __init__(self, opening: Callable[[], Exception | None] = lambda: None, slow_s: float = 0.0) -> None:
        self.opened: list[tuple[bool, float, float]] = []
        self.opening, self.slow_s = opening, slow_s
        self.asked = 0

    @asynccontextmanager
    async def open(self, config: ConnectorConfig, context: Context) -> AsyncIterator[Transport]:
        begun = trio.current_time()
        self.asked += 1
        context.authenticating()
        await trio.sleep(self.slow_s)
        if (error := self.opening()) is not None:
            raise error
        try:
            yield ScriptedTransport(Peer())
        finally:
            self.opened.append((context.downlinks, begun, trio.current_time()))

    @property
    def connector(self) -> Connector:
        return Connector("listening", Listening, self.open, "Listening", "for tests", 256)


def finished(far: FarEnd, **configuration: bool) -> Connection:
    """A connection whose work has ended."""
    connection = make_connection(Peer(), MemoryCursor())
    context = connection.far_end.context
    connection.far_end = tpxd_far_end.FarEnd(far.connector, Listening(**configuration), context)
    return connection


async def test_it_is_opened_once_more_without_downlinks(autojump_clock: MockClock) -> None:
    far = FarEnd(slow_s=1.0)
    connection = finished(far)
    state = connection.health.state
    await connection.far_end.leave()
    assert far.opened == [(False, 0.0, 1.0)]
    assert connection.health.state is state


async def test_where_no_downlinks_were_wanted_nothing_was_left(autojump_clock: MockClock) -> None:
    far = FarEnd()
    await finished(far, downlinkEnabled=False).far_end.leave()
    assert (far.opened, trio.current_time()) == ([], 0.0)


@pytest.mark.parametrize(
    ("far", "said"),
    [
        (FarEnd(lambda: ConnectFailed("connection refused")), "connection refused"),
        (FarEnd(lambda: ExceptionGroup("", [LinkLost("gone")])), "gone"),
        (FarEnd(slow_s=60.0), "it took longer than 5 s"),
        (FarEnd(lambda: ZeroDivisionError("a bug")), "ZeroDivisionError"),
    ],
)
async def test_one_try_is_all(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, far: FarEnd, said: str
) -> None:
    connection = finished(far)
    await connection.far_end.leave()
    assert trio.current_time() <= LEAVE_S
    assert said in caplog.text
    assert [record.levelno for record in caplog.records] in ([logging.WARNING], [logging.ERROR])


# ---- through the supervisor


@pytest.fixture
def far() -> Iterator[FarEnd]:
    far = FarEnd()
    REGISTRY["listening"] = far.connector
    yield far
    del REGISTRY["listening"]


LISTENING = 'connectorId = "listening"\nname = "N"\n[configuration]\n'


async def test_a_removed_file_and_one_that_is_put_back(
    tmp_path: Path, far: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot, "REGRET_S", 0.0)
    async with supervised(tmp_path, Peer()) as site:
        for rounds in (1, 2):
            await site.write("plant", LISTENING)
            await site.becomes("plant", "OPENED")
            await site.remove("plant")
            with trio.fail_after(5):
                while len(far.opened) < 2 * rounds:
                    await trio.lowlevel.checkpoint()
    assert [downlinks for downlinks, *_ in far.opened] == [True, False, True, False]


async def test_a_version_that_comes_meanwhile_waits(
    tmp_path: Path, far: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot, "REGRET_S", 0.0)
    async with supervised(tmp_path, Peer()) as site:
        await site.write("plant", LISTENING)
        await site.becomes("plant", "OPENED")
        far.slow_s = 0.2
        await site.remove("plant")
        with trio.fail_after(5):
            while far.asked < 2:
                await trio.lowlevel.checkpoint()
        await site.write("plant", LISTENING)
        await site.becomes("plant", "OPENED")
    assert [downlinks for downlinks, *_ in far.opened] == [True, False, True]
    ends = [moment for _, begun, ended in far.opened for moment in (begun, ended)]
    assert ends == sorted(ends), "one after the other"


async def test_a_file_that_comes_back_soon_was_not_removed(tmp_path: Path, far: FarEnd) -> None:
    async with supervised(tmp_path, Peer()) as site:
        for _ in range(2):
            await site.write("plant", LISTENING)
            await site.becomes("plant", "OPENED")
            await site.remove("plant")
    assert [downlinks for downlinks, *_ in far.opened] == [True, True]
