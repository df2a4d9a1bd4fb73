"""A supervisor with a real spool and directory, whose connections lead to one scripted peer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.connection.doubles import Peer, no_dial
from tpxd.downlinks.queue import DownlinkQueue, open_downlinks
from tpxd.downlinks.urls import DownlinkUrls
from tpxd.events import EventLog
from tpxd.reload.supervisor import Supervisor
from tpxd.reload.versions import ConfigDir
from tpxd.spool import JournalSpool, NewReport, SpoolLimits, open_spool
from tpxd.wire.tls import TlsContextCache

GOOD = 'connectorId = "scripted"\nname = "N"\n[configuration]\n'


class Site:
    """A supervisor over a directory of connection files that are carried to one scripted peer."""

    def __init__(
        self,
        directory: Path,
        spool: JournalSpool,
        peer: Peer,
        downlinks: DownlinkQueue,
        urls: DownlinkUrls,
        stop_grace_s: float,
    ) -> None:
        self.directory = directory / "connections.d"
        self.directory.mkdir(exist_ok=True)
        self.spool, self.peer, self.events, self.downlinks = spool, peer, EventLog(), downlinks
        self.urls = urls
        self.config_dir = ConfigDir(self.directory, directory / "last-good", settle=lambda: None)
        self.supervisor = Supervisor(
            self.config_dir,
            spool,
            self.events.tell,
            instance="00000000",
            dial=no_dial,
            tls=TlsContextCache(),
            stop_grace_s=stop_grace_s,
            downlinks=downlinks,
            urls=urls,
        )

    async def write(self, id: str, text: str = GOOD) -> None:
        """Change a file and have it applied."""
        (self.directory / f"{id}.toml").write_text(text)
        await self.supervisor.reload_and_wait()

    async def remove(self, id: str) -> None:
        """Remove a file and have that applied."""
        (self.directory / f"{id}.toml").unlink()
        await self.supervisor.reload_and_wait()

    async def becomes(self, id: str, state: str) -> None:
        """Wait until the connection is in this state."""
        with trio.fail_after(5):
            while (self.supervisor.health(id) or {}).get("state") != state:
                await trio.lowlevel.checkpoint()

    async def says(self, id: str, reason: str) -> None:
        """Wait until the connection's health gives a reason with this in it."""
        with trio.fail_after(5):
            while reason not in str((self.supervisor.health(id) or {}).get("reason")):
                await trio.lowlevel.checkpoint()

    async def retired(self, id: str) -> None:
        """Wait until the queue of a removed file is kept for a while."""
        with trio.fail_after(5):
            while id not in self.spool.kept_queues():
                await trio.lowlevel.checkpoint()

    async def append(self, count: int) -> None:
        """Reports arrive."""
        for n in range(count):
            document = {"DevEUI_uplink": {"DevEUI": "70B3D5E75E00A1C4", "FCntUp": n}}
            body = b'{"DevEUI_uplink":{"DevEUI":"70B3D5E75E00A1C4","FCntUp":%d}}' % n
            await self.spool.append(NewReport("DevEUI_uplink", "70B3D5E75E00A1C4", "", body, document))


@asynccontextmanager
async def supervised(
    directory: Path,
    peer: Peer,
    urls: DownlinkUrls | None = None,
    *,
    stop_grace_s: float = 1.0,
    before_start: Callable[[], None] = lambda: None,
) -> AsyncIterator[Site]:
    """The supervisor at work while the block lasts."""
    limits = SpoolLimits(max_bytes=1 << 24, min_free_bytes=0)
    tell = EventLog().tell
    async with (
        open_spool(directory / "spool.db", limits, tell=tell) as spool,
        open_downlinks(spool.downlinks, spool.append, tell) as downlinks,
    ):
        urls = urls or DownlinkUrls(spool, "http://edge.example", tell)
        site = Site(directory, spool, peer, downlinks, urls, stop_grace_s)
        before_start()
        async with trio.open_nursery() as nursery:
            await nursery.start(site.supervisor.run)
            yield site
            await site.supervisor.stop()
            nursery.cancel_scope.cancel()
