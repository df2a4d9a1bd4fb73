"""One id never stops another, nor the daemon: what the disk refuses, what cannot be read, and what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.connection.doubles import Peer
from tests.downlinks.downlink_doubles import right
from tests.notebook import Notebook
from tests.reload.supervised import GOOD, Site, supervised
from tpxd.config.connection_file import ConnectorConfig
from tpxd.connector import REGISTRY, Connector, Outgoing, Receipts
from tpxd.downlinks.urls import DownlinkUrls
from tpxd.errors import SpoolUnavailable
from tpxd.events import EventLog
from tpxd.reload import slot
from tpxd.spool import DownlinkState, JournalSpool
from tpxd.spool.journal import Journal
from tpxd.spool.reading import Page, Reader


@pytest.fixture
def peer() -> Iterator[Peer]:
    """The far end of every connection; its connector is registered for the test alone."""
    scripted = Peer()
    REGISTRY["scripted"] = Connector("scripted", ConnectorConfig, scripted.open, "Scripted", "for tests", 256)
    yield scripted
    del REGISTRY["scripted"]


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "RETRY_S", 0.05)


class Disk:
    """The disk below the spool; it refuses every write while `refuses`, every read while `unreadable`."""

    def __init__(self) -> None:
        self.refuses = self.unreadable = False


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    transaction, page = Journal.transaction, Reader.page

    @contextmanager
    def refusing(journal: Journal) -> Iterator[None]:
        if made.refuses:
            raise SpoolUnavailable("the disk is full", hint="free some space on this disk")
        with transaction(journal):
            yield

    def unreadable(reader: Reader, *given: Any) -> Page:
        if made.unreadable:
            raise SpoolUnavailable("disk I/O error", hint="look at the disk and at the kernel's log")
        return page(reader, *given)

    monkeypatch.setattr(Journal, "transaction", refusing)
    monkeypatch.setattr(Reader, "page", unreadable)
    return made


def shown(site: Site, id: str) -> dict[str, Any]:
    """The health document of a connection that is there."""
    document = site.supervisor.health(id)
    assert document is not None
    return document


async def delivers(site: Site, id: str, count: int) -> None:
    """Wait until so many uplinks were delivered."""
    with trio.fail_after(5):
        while shown(site, id)["uplinks"]["delivered"] < count:
            await trio.lowlevel.checkpoint()


async def test_while_the_disk_refuses_files_come_and_go_and_the_others_stay(
    tmp_path: Path, peer: Peer, disk: Disk
) -> None:
    async with supervised(tmp_path, peer) as site:
        for id in ("steady", "leaves"):
            await site.write(id)
            await site.becomes(id, "OPENED")
        disk.refuses = True
        await site.write("comes")
        await site.write("paused", "active = false\n" + GOOD)
        await site.remove("leaves")
        await site.says("comes", "the disk is full")
        document = shown(site, "comes")
        assert (document["healthy"], document["reason"]) == (False, "the disk is full")
        assert document["lastError"]["hint"] == "free some space on this disk"
        assert document["retryAt"] is not None
        assert shown(site, "paused")["lastError"]["message"] == "the disk is full"
        assert shown(site, "steady")["state"] == "OPENED"
        assert site.supervisor.health("leaves") is None
        assert site.spool.cursors() == ["leaves", "steady"]
        disk.refuses = False
        await site.becomes("comes", "OPENED")
        await site.append(1)
        await delivers(site, "comes", 1)
        with trio.fail_after(5):
            while shown(site, "paused")["uplinks"]["waiting"] != 1 or "paused" not in site.spool.cursors():
                await trio.lowlevel.checkpoint()
        assert all(cursor is not None and cursor.retired == (id == "leaves") for id, cursor in kept(site).items())
        assert len(peer.opens) == 3, "what was open stayed so"


def kept(site: Site) -> dict[str, Any]:
    return {id: site.spool.find_cursor(id) for id in site.spool.cursors()}


async def test_a_queue_that_the_disk_refused_begins_when_its_file_was_first_seen(
    tmp_path: Path, peer: Peer, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot, "RETRY_S", 3600.0)
    async with supervised(tmp_path, peer) as site:
        await site.write("before")
        await site.append(2)
        disk.refuses = True
        await site.write("a")
        disk.refuses = False
        await site.append(5)  # two of them are stored
        assert shown(site, "a")["uplinks"]["waiting"] == 3
        await site.supervisor.reload_and_wait()
        await delivers(site, "a", 3)
        assert shown(site, "a")["uplinks"]["received"] == 3


async def test_a_daemon_starts_on_a_disk_that_refuses(tmp_path: Path, peer: Peer, disk: Disk) -> None:
    async with supervised(tmp_path, peer) as site:
        await site.write("known")
        await site.append(1)
        await delivers(site, "known", 1)
    (tmp_path / "connections.d" / "new.toml").write_text(GOOD)
    async with supervised(tmp_path, peer, before_start=lambda: setattr(disk, "refuses", True)) as site:
        await site.becomes("known", "OPENED")
        await site.says("new", "the disk is full")
        disk.refuses = False
        await site.becomes("new", "OPENED")


async def test_a_queue_that_cannot_be_read_is_told_as_that_and_tried_again(
    tmp_path: Path, peer: Peer, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    async with supervised(tmp_path, peer) as site:
        await site.write("a", "active = false\n" + GOOD)
        await site.append(5)
    async with supervised(tmp_path, peer) as site:
        disk.unreadable = True
        await site.write("other")
        await site.write("a")
        await site.says("a", "disk I/O error")
        document = shown(site, "a")
        assert document["state"] == "CLOSED"
        assert document["lastError"]["hint"] == "look at the disk and at the kernel's log"
        assert shown(site, "other")["state"] == "OPENED"
        disk.unreadable = False
        await delivers(site, "a", 5)
    assert "Traceback" not in caplog.text
    assert "bug" not in caplog.text


async def test_what_was_in_hand_of_a_forgotten_queue_is_not_sent(tmp_path: Path, peer: Peer) -> None:
    held = trio.Event()

    async def hold(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        await held.wait()
        for index in range(len(batch)):
            receipts.delivered(index)

    peer.sending = hold
    async with supervised(tmp_path, peer, stop_grace_s=0.0) as site:
        await site.write("a")
        await site.append(3)
        with trio.fail_after(5):
            while not peer.batches:
                await trio.lowlevel.checkpoint()
        await site.remove("a")
        await site.retired("a")
        await site.spool.forget("a")
        peer.batches.clear()
        held.set()
        await site.write("a")
        await site.becomes("a", "OPENED")
        await site.append(4)  # three of them are stored
        await delivers(site, "a", 1)
        assert peer.batches == [[4]]
        ledger = shown(site, "a")["uplinks"]
        assert (ledger["received"], ledger["waiting"]) == (1, 0)


async def test_a_reading_during_a_stop_starts_nothing(tmp_path: Path, peer: Peer) -> None:
    async def slow(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        await trio.sleep(0.2)
        receipts.delivered(0)

    peer.sending = slow
    async with supervised(tmp_path, peer) as site:
        for id in ("quick", "slow"):
            await site.write(id)
            await site.becomes(id, "OPENED")
        await site.write("quick", "active = false\n" + GOOD)
        await site.becomes("quick", "DEACTIVATED")
        await site.append(1)
        with trio.fail_after(5):
            while not peer.batches:
                await trio.lowlevel.checkpoint()
        opens = len(peer.opens)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site.supervisor.stop)
            await trio.testing.wait_all_tasks_blocked()
            (tmp_path / "connections.d" / "quick.toml").write_text(GOOD)
            for _ in range(3):
                site.supervisor.reload()
                await trio.sleep(0.03)
        assert len(peer.opens) == opens
        assert peer.open_now == 0
        assert shown(site, "slow")["uplinks"]["delivered"] == 1


async def test_the_address_of_a_renamed_file_is_there_at_once(tmp_path: Path, peer: Peer) -> None:
    uuid = "6b1f0c9e-0000-4000-8000-00000000a1c4"
    text = f'{GOOD}downlinkUuid = "{uuid}"\n'
    async with supervised(tmp_path, peer) as site:
        for before, after in (("b", "c"), ("c", "a")):
            (site.directory / f"{before}.toml").write_text(text)
            await site.supervisor.reload_and_wait()
            (site.directory / f"{before}.toml").rename(site.directory / f"{after}.toml")
            await site.supervisor.reload_and_wait()
            await site.becomes(after, "OPENED")
            with trio.fail_after(1):
                while (door := site.urls.find(uuid)) is None or door.connection != after:
                    await trio.lowlevel.checkpoint()


async def test_a_bug_in_reading_ends_nothing(
    tmp_path: Path, peer: Peer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug() -> None:
        raise ZeroDivisionError("a bug of the test's making")

    async with supervised(tmp_path, peer) as site:
        await site.write("a")
        await site.becomes("a", "OPENED")
        with monkeypatch.context() as patched:
            patched.setattr(site.config_dir, "read", bug)
            await site.supervisor.reload_and_wait()
        assert "a bug of the test's making" in caplog.text
        await site.write("b")
        await site.becomes("b", "OPENED")
        assert len(peer.opens) == 2


# ---- queues whose file is gone


async def test_a_file_that_went_while_the_daemon_was_down_leaves_a_queue_that_is_kept_for_a_while(
    tmp_path: Path, peer: Peer
) -> None:
    async with supervised(tmp_path, peer) as site:
        for id in ("stays", "went"):
            await site.write(id, "active = false\n" + GOOD)
        await site.append(2)
        assert site.spool.kept_queues() == {}
    (tmp_path / "connections.d" / "went.toml").unlink()
    for _ in range(2):
        async with supervised(tmp_path, peer) as site:
            await site.retired("went")
            until = site.spool.kept_queues()
            assert {id: queue.waiting for id, queue in until.items()} == {"went": 2}
        async with supervised(tmp_path, peer) as site:
            await site.supervisor.reload_and_wait()
            assert site.spool.kept_queues() == until, "a restart does not begin the time anew"
    async with supervised(tmp_path, peer) as site:
        await site.write("went")
        await delivers(site, "went", 2)
        assert site.spool.kept_queues() == {}


async def test_a_directory_that_is_missing_retires_nothing(tmp_path: Path, peer: Peer) -> None:
    async with supervised(tmp_path, peer) as site:
        await site.write("a")
        await site.append(2)
        await delivers(site, "a", 2)
    (tmp_path / "connections.d").rename(tmp_path / "away")
    async with supervised(tmp_path, peer, before_start=(tmp_path / "connections.d").rmdir) as site:
        for _ in range(3):
            await site.supervisor.reload_and_wait()
        assert "cannot be read" in str(site.supervisor.strays)
        assert site.spool.kept_queues() == {}
        await site.append(5)
        (tmp_path / "away").rename(tmp_path / "connections.d")
        await site.supervisor.reload_and_wait()
        await delivers(site, "a", 5)


async def test_a_queue_at_work_is_never_retired(tmp_path: Path, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = trio.Event()

    async def hold(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        await finish.wait()
        receipts.delivered(0)

    peer.sending = hold
    retired_at_work: list[int] = []
    retire = JournalSpool.retire

    async def spied(spool: JournalSpool, id: str) -> None:
        retired_at_work.append(peer.open_now)
        await retire(spool, id)

    monkeypatch.setattr(JournalSpool, "retire", spied)
    async with supervised(tmp_path, peer, stop_grace_s=5.0) as site:
        await site.write("a")
        await site.append(1)
        with trio.fail_after(5):
            while not peer.batches:
                await trio.lowlevel.checkpoint()
        for _ in range(3):
            await site.remove("a")
            await site.write("a")
        assert retired_at_work == [], "the file is back before the version at work has finished"
        await site.remove("a")
        finish.set()
        await site.retired("a")
        assert retired_at_work == [0]


async def test_what_is_forgotten_leaves_nothing_behind(tmp_path: Path, peer: Peer) -> None:
    async with supervised(tmp_path, peer) as site:
        for id in ("a", "b"):
            await site.write(id, GOOD + "debugMode = true\n")
            await site.becomes(id, "OPENED")
        site.downlinks.ignored("a", json=True)
        address = site.urls.url("a")
        await site.remove("a")
        await site.retired("a")
        await site.spool.forget("a")
        await site.supervisor.reload_and_wait()
        await site.supervisor.reload_and_wait()
        assert "a" not in site.downlinks.book.connections
        assert [key for key in site.spool.exchange.state.meta if "a" in key.split("/")] == []
        assert b'"a"' not in (tmp_path / "last-good" / "versions.json").read_bytes()
        assert b'"b"' in (tmp_path / "last-good" / "versions.json").read_bytes()
        assert site.spool.recall("downlinkUuid/b") is not None
        await site.write("a")
        assert shown(site, "a")["file"]["generation"] == 1, "it begins anew"
        await site.becomes("a", "OPENED")
        assert site.urls.url("a") not in (None, address)
        assert shown(site, "a")["downlinks"]["unrecognised"] == 0
    async with supervised(tmp_path, peer) as site:
        assert site.spool.recall("downlinkUuid/b") is not None
        assert site.spool.recall("debugMode/a") is None


async def test_a_file_that_comes_back_right_after_its_queue_was_forgotten_counts_its_downlinks_anew(
    tmp_path: Path, peer: Peer
) -> None:
    async with supervised(tmp_path, peer) as site:
        await site.write("a")
        site.downlinks.ignored("a", json=True)
        waits = site.downlinks.enter("a", right())
        await site.remove("a")
        await site.retired("a")
        await site.spool.forget("a")
        await site.write("a")
        await site.becomes("a", "OPENED")
        document = shown(site, "a")["downlinks"]
        assert (document["unrecognised"], document["received"], document["waiting"]) == (0, 1, 1)
        site.downlinks.book.end(waits, DownlinkState.SENT, "", 200)
        document = shown(site, "a")["downlinks"]
        assert (document["received"], document["waiting"], document["sent"]) == (1, 0, 1)


async def test_where_nobody_can_reach_an_address_it_is_not_asked_for_again(
    tmp_path: Path, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a public URL there is no downlinkUrl, and an address all the same."""
    opens: list[str] = []
    open_address = DownlinkUrls.open

    async def counted(urls: DownlinkUrls, connection: str, configuration: ConnectorConfig) -> bool:
        opens.append(connection)
        return await open_address(urls, connection, configuration)

    monkeypatch.setattr(DownlinkUrls, "open", counted)
    urls = DownlinkUrls(Notebook(), None, EventLog().tell)
    async with supervised(tmp_path, peer, urls) as site:
        await site.write("paused", "active = false\n" + GOOD)
        await site.write("a")
        await site.becomes("a", "OPENED")
        await trio.sleep(4 * slot.RETRY_S)
        await site.supervisor.reload_and_wait()
    assert sorted(opens) == ["a", "paused"]
