"""What becomes of a connection's traces at its far end when its file is removed."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.engine.doubles import MemoryCursor, Peer, ScriptedTransport, make_live, no_dial
from tpxd.config import ConnectorConfig
from tpxd.connector import REGISTRY, Connector, Context, Transport
from tpxd.engine.commands import open_commands
from tpxd.engine.config_dir import ConfigDir
from tpxd.engine.connection import Live
from tpxd.engine.downlink_urls import DownlinkUrls
from tpxd.engine.leaving import LEAVE_S, REGRET_S, take_leave
from tpxd.engine.supervisor import Supervisor
from tpxd.errors import ConnectFailed, LinkLost
from tpxd.events import EventLog
from tpxd.spool import CommandStore, SpoolLimits, open_spool
from tpxd.wire.tls import TlsContextCache


class Listening(ConnectorConfig):
    """Takes commands from one topic, unless it is told not to."""

    @property
    def command_sources(self) -> list[str]:
        return ["plant/+/down"] if self.downlinkEnabled else []


class FarEnd:
    """Keeps how it was opened: whether with commands, and from when to when."""

    def __init__(self, opening: Callable[[], Exception | None] = lambda: None, slow_s: float = 0.0) -> None:
        self.opened: list[tuple[bool, float, float]] = []
        self.opening, self.slow_s = opening, slow_s

    @asynccontextmanager
    async def open(self, config: ConnectorConfig, context: Context) -> AsyncIterator[Transport]:
        begun = trio.current_time()
        context.authenticating()
        await trio.sleep(self.slow_s)
        if (error := self.opening()) is not None:
            raise error
        try:
            yield ScriptedTransport(Peer())
        finally:
            self.opened.append((context.commands, begun, trio.current_time()))

    @property
    def connector(self) -> Connector:
        return Connector("listening", Listening, self.open, "Listening", "for tests", 256)


def finished(far: FarEnd, **configuration: bool) -> Live:
    """A connection whose work has ended."""
    live = make_live(Peer(), MemoryCursor())
    live.connector = far.connector
    live.file = live.file.model_copy(update={"configuration": Listening(**configuration)})
    live.finished.set()
    return live


async def test_it_is_opened_once_more_without_commands(autojump_clock: MockClock) -> None:
    far = FarEnd(slow_s=1.0)
    live = finished(far)
    state = live.health.state
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_leave, live, lambda: True)
        await trio.sleep(REGRET_S - 0.5)
        assert live.finished.is_set()
        await trio.sleep(1.0)
        assert not live.finished.is_set(), "a version that starts now has to wait"
    assert live.finished.is_set()
    assert far.opened == [(False, REGRET_S, REGRET_S + 1.0)]
    assert live.health.state is state


async def test_a_file_that_comes_back_soon_was_not_removed(autojump_clock: MockClock) -> None:
    far = FarEnd()
    await take_leave(finished(far), lambda: False)
    assert far.opened == []


async def test_where_no_commands_were_wanted_nothing_was_left(autojump_clock: MockClock) -> None:
    far = FarEnd()
    await take_leave(finished(far, downlinkEnabled=False), lambda: True)
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
    live = finished(far)
    await take_leave(live, lambda: True)
    assert live.finished.is_set()
    assert trio.current_time() <= REGRET_S + LEAVE_S
    assert said in caplog.text
    assert [record.levelno for record in caplog.records] in ([logging.WARNING], [logging.ERROR])


# ---- through the supervisor


@pytest.fixture
def far() -> Iterator[FarEnd]:
    far = FarEnd()
    REGISTRY["listening"] = far.connector
    yield far
    del REGISTRY["listening"]


async def test_a_removed_file_and_one_that_is_put_back(
    tmp_path: Path, far: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tpxd.engine.leaving.REGRET_S", 0.0)
    report = EventLog().report
    file = tmp_path / "connections.d" / "plant.toml"
    file.parent.mkdir()
    async with (
        open_spool(tmp_path / "spool.db", SpoolLimits(min_free_bytes=0), report=report) as spool,
        open_commands(CommandStore(spool), spool.append, report) as commands,
        trio.open_nursery() as nursery,
    ):
        supervisor = Supervisor(
            ConfigDir(file.parent, tmp_path / "last-good", settle=lambda: None),
            spool,
            report,
            instance="00000000",
            dial=no_dial,
            tls=TlsContextCache(),
            stop_grace_s=1.0,
            commands=commands,
            urls=DownlinkUrls(spool, "http://edge.example", report),
        )
        await nursery.start(supervisor.run)
        with trio.fail_after(10):
            for rounds in (1, 2):
                file.write_text('connectorId = "listening"\nname = "N"\n[configuration]\n')
                await supervisor.reload_and_wait()
                while (supervisor.health("plant") or {}).get("state") != "OPENED":
                    await trio.lowlevel.checkpoint()
                file.unlink()
                await supervisor.reload_and_wait()
                while len(far.opened) < 2 * rounds:
                    await trio.lowlevel.checkpoint()
        assert [commands for commands, *_ in far.opened] == [True, False, True, False]
        ends = [moment for _, begun, ended in far.opened for moment in (begun, ended)]
        assert ends == sorted(ends), "one after the other"
        await supervisor.stop()
        nursery.cancel_scope.cancel()
