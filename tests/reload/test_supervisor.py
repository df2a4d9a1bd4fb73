"""What runs agrees with the files: with a real spool and directory, and a connector that a test scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.connection.doubles import Peer
from tests.downlinks.downlink_doubles import DEV_EUI, right
from tests.notebook import Forgetful
from tests.reload.supervised import GOOD, supervised
from tpxd.config.connection_file import ConnectionFile, ConnectorConfig
from tpxd.connector import REGISTRY, Connector, Outgoing, Receipts
from tpxd.downlinks.urls import DownlinkUrls
from tpxd.errors import LinkLost
from tpxd.events import EventLog
from tpxd.lorawan.downlink_request import Signing
from tpxd.lorawan.reports import DOWNLINK_SENT, MULTICAST_SUMMARY
from tpxd.reload.supervisor import plan
from tpxd.spool import NewReport


@pytest.fixture
def peer() -> Iterator[Peer]:
    """The far end of every connection; its connector is registered for the test alone."""
    scripted = Peer()
    REGISTRY["scripted"] = Connector("scripted", ConnectorConfig, scripted.open, "Scripted", "for tests", 256)
    yield scripted
    del REGISTRY["scripted"]


async def test_a_file_starts_changes_and_ends_a_connection(tmp_path: Path, peer: Peer) -> None:
    async with supervised(tmp_path, peer) as site:
        await site.write("a")
        await site.becomes("a", "OPENED")
        assert peer.open_now == 1
        await site.write("a", GOOD + "uplinkRateLimiter = 50\n")
        await site.becomes("a", "OPENED")
        with trio.fail_after(5):
            while len(peer.opens) < 2:
                await trio.lowlevel.checkpoint()
        await site.remove("a")
        assert site.supervisor.health("a") is None
        with trio.fail_after(5):
            while peer.open_now:
                await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("kind", [DOWNLINK_SENT, MULTICAST_SUMMARY])
async def test_a_connection_hears_of_its_own_downlinks_whatever_its_flow_takes(
    tmp_path: Path, peer: Peer, kind: str
) -> None:
    document = {kind: {"DevEUI": DEV_EUI, "CorrelationID": "A1", "DeliveryStatus": 1}}
    async with supervised(tmp_path, peer) as site:
        for id in ("asked", "other"):
            await site.write(id, GOOD + '[flow]\nmatchers = [{ type = "fPort", ports = [2] }]\n')
            await site.becomes(id, "OPENED")
        site.downlinks.enter("asked", right(CorrelationID="A1"))
        await site.spool.append(NewReport(kind, DEV_EUI, "", orjson.dumps(document), document))
        for id, fate in (("asked", "delivered"), ("other", "filtered")):
            with trio.fail_after(5):
                while (site.supervisor.health(id) or {})["uplinks"][fate] != 1:
                    await trio.lowlevel.checkpoint()


async def test_what_did_not_change_is_not_touched(tmp_path: Path, peer: Peer) -> None:
    async with supervised(tmp_path, peer) as site:
        await site.write("steady")
        await site.becomes("steady", "OPENED")
        for n in range(5):
            await site.write(f"other{n}")
            await site.becomes(f"other{n}", "OPENED")
            await site.write("steady", GOOD + f"# a comment is no change {n}\n")
            await site.remove(f"other{n}")
        site.supervisor.reconnect()
        await site.supervisor.reload_and_wait()
        assert len(peer.opens) == 1 + 5
        document = site.supervisor.health("steady")
        assert document is not None
        assert document["file"]["generation"] == document["file"]["running"] == 6


async def test_two_versions_of_one_file_never_run_at_once(tmp_path: Path, peer: Peer) -> None:
    async def slow(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        await trio.sleep(0.01)
        receipts.delivered(0)

    peer.sending = slow  # what is in flight has its grace, so that the old version ends well after the new one is known
    async with supervised(tmp_path, peer) as site:
        for n in range(1, 20):
            await site.write("a", GOOD + f"uplinkRateLimiter = {n}\n")
            await site.append(1)
            await site.becomes("a", "OPENED")
        await site.becomes("a", "OPENED")
        assert peer.most_open == 1
        assert len(peer.opens) > 10
        document = site.supervisor.health("a")
        assert document is not None
        assert document["file"] == {"generation": 19, "running": 19, "error": None}


async def test_a_broken_edit_keeps_the_last_good_version(tmp_path: Path, peer: Peer) -> None:
    async with supervised(tmp_path, peer) as site:
        await site.write("a")
        await site.becomes("a", "OPENED")
        await site.write("a", GOOD + "surprise = 1\n")
        document = site.supervisor.health("a")
        assert document is not None
        assert document["state"] == "OPENED"
        assert document["healthy"] is False
        assert document["file"]["generation"] == 2
        assert document["file"]["running"] == 1
        assert "surprise" in document["file"]["error"]
        assert len(peer.opens) == 1


async def test_a_file_put_back_broken_is_invalid_once_its_last_version_has_finished(tmp_path: Path, peer: Peer) -> None:
    """Nothing of what it was is known by then, but its last version still waits for receipts."""
    receipted, sent = trio.Event(), trio.Event()

    async def slow(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        sent.set()
        await receipted.wait()
        for index in range(len(batch)):
            receipts.delivered(index)

    peer.sending = slow
    async with supervised(tmp_path, peer, stop_grace_s=30.0) as site:
        await site.write("a")
        await site.becomes("a", "OPENED")
        await site.append(1)
        with trio.fail_after(5):
            await sent.wait()
        await site.remove("a")
        await site.write("a", "nonsense = = 1")
        assert (site.supervisor.health("a") or {})["state"] == "OPENED"
        receipted.set()
        await site.becomes("a", "INVALID")
        assert "text stands in double quotes" in (site.supervisor.health("a") or {})["reason"]
        await site.write("a")
        await site.becomes("a", "OPENED")


async def test_a_file_that_never_was_valid_has_a_queue_all_the_same(tmp_path: Path, peer: Peer) -> None:
    async with supervised(tmp_path, peer) as site:
        await site.write("a", "nonsense = = 1")
        assert (site.supervisor.health("a") or {})["state"] == "INVALID"
        await site.write("a", "name = 'Site A'\nconnectorId = 'nonsense'")
        assert (site.supervisor.health("a") or {})["name"] == "Site A"
        await site.append(3)
        assert (site.supervisor.health("a") or {})["uplinks"]["waiting"] == 3
        await site.write("a")
        with trio.fail_after(5):
            while (site.supervisor.health("a") or {})["uplinks"]["delivered"] < 3:
                await trio.lowlevel.checkpoint()


async def test_a_file_put_back_goes_on_where_it_was(tmp_path: Path, peer: Peer) -> None:
    async with supervised(tmp_path, peer) as site:
        await site.write("a")
        await site.append(2)
        await site.becomes("a", "OPENED")
        with trio.fail_after(5):
            while (site.supervisor.health("a") or {})["uplinks"]["delivered"] < 2:
                await trio.lowlevel.checkpoint()
        await site.remove("a")
        await site.append(4)
        await site.write("a")
        with trio.fail_after(5):
            while (site.supervisor.health("a") or {})["uplinks"]["delivered"] < 4:
                await trio.lowlevel.checkpoint()
        ledger = (site.supervisor.health("a") or {})["uplinks"]
        assert ledger["received"] == 4, "two of the four were stored before"


async def test_a_pause_and_its_end(tmp_path: Path, peer: Peer) -> None:
    async with supervised(tmp_path, peer) as site:
        await site.write("a")
        await site.becomes("a", "OPENED")
        await site.write("a", "active = false\n" + GOOD)
        await site.becomes("a", "DEACTIVATED")
        await site.append(1)
        document = site.supervisor.health("a") or {}
        assert document["healthy"] is True
        assert document["uplinks"]["waiting"] == 1
        assert peer.open_now == 0
        await site.write("a")
        await site.becomes("a", "OPENED")


async def test_a_bug_in_one_connection_restarts_it_and_leaves_the_others(
    tmp_path: Path, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    bugs = iter([ZeroDivisionError("a bug of the test's making")])
    async with supervised(tmp_path, peer) as site:
        await site.write("good")
        await site.becomes("good", "OPENED")
        peer.opening = lambda: next(bugs, None)
        await site.write("bad")
        await site.says("bad", "ZeroDivisionError")
        await site.becomes("bad", "CLOSED")
        assert "a bug of the test's making" in caplog.text
        assert (site.supervisor.health("good") or {})["state"] == "OPENED"
        assert site.supervisor.reconnect("bad") is True
        await site.becomes("bad", "OPENED")
    assert len(peer.opens) == 3


async def test_reconnect_tries_again_at_once_and_knows_its_ids(tmp_path: Path, peer: Peer) -> None:
    refusals = iter([LinkLost("refused")] * 3)
    peer.opening = lambda: next(refusals, None)
    async with supervised(tmp_path, peer) as site:
        await site.write("a")
        for tries in range(1, 4):
            await site.becomes("a", "CLOSED")
            with trio.fail_after(5):
                while len(peer.opens) < tries:
                    await trio.lowlevel.checkpoint()
            await site.becomes("a", "CLOSED")
            assert site.supervisor.reconnect("a") is True
        await site.becomes("a", "OPENED")
        assert site.supervisor.reconnect("nobody") is False


def file(limit: int) -> ConnectionFile:
    return ConnectionFile(
        connectorId="x", name="x", configuration=ConnectorConfig.model_validate({"uplinkRateLimiter": limit})
    )


DIRECTORIES = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 3).map(file))


@given(DIRECTORIES, DIRECTORIES)
def test_a_plan_makes_any_two_directories_agree(
    wanted: dict[str, ConnectionFile], running: dict[str, ConnectionFile]
) -> None:
    steps = plan(wanted, running)
    after = {id: model for id, model in running.items() if id not in steps.stop}
    assert all(after[id] != wanted[id] for id in steps.restart)
    after |= {id: wanted[id] for id in (*steps.restart, *steps.start)}
    assert after == wanted
    named = [*steps.stop, *steps.restart, *steps.start, *steps.keep]
    assert sorted(named) == sorted(wanted.keys() | running.keys()), "each id stands in exactly one of the four"


async def test_a_connection_at_work_learns_its_address_later(tmp_path: Path, peer: Peer) -> None:
    """While it cannot be kept there is none; then uplinks carry it, and the link stays open."""
    bodies: list[bytes] = []

    async def note(batch: Sequence[Outgoing], receipts: Receipts) -> None:
        await trio.lowlevel.checkpoint()
        for index, outgoing in enumerate(batch):
            bodies.append(outgoing.body)
            receipts.delivered(index)

    async def arrived(count: int) -> None:
        with trio.fail_after(5):
            while len(bodies) < count:
                await trio.lowlevel.checkpoint()

    peer.sending = note
    memory = Forgetful()
    async with supervised(tmp_path, peer, DownlinkUrls(memory, "http://edge.example", EventLog().tell)) as site:
        await site.write("a")
        await site.append(1)
        await arrived(1)
        memory.works = True
        await site.supervisor.reload_and_wait()
        with trio.fail_after(5):
            while "downlinkUrl" not in orjson.loads(bodies[-1])["DevEUI_uplink"]:
                await site.append(len(bodies) + 1)
                await arrived(len(bodies) + 1)
        assert len(peer.opens) == 1


async def test_downlinks_are_signed_as_the_file_of_their_connection_says(tmp_path: Path, peer: Peer) -> None:
    key = "7d1e9a40c3b85f2206e4d7913ab6f85c"
    async with supervised(tmp_path, peer) as site:
        await site.write("a", f'{GOOD}downlinkAsId = "TWA_1"\ndownlinkAsKey = "{key}"\n')
        await site.write("b")

        def signing(id: str) -> Signing:
            file = site.supervisor.file(id)
            assert file is not None
            return file.configuration.signing

        assert signing("a") == Signing("TWA_1", key)
        assert key not in repr(signing("a"))
        assert signing("b") == Signing("", "")
        assert site.supervisor.file("unknown") is site.supervisor.file("") is None
        # downlinks that came before wait on, and its downlinkUrl takes more
        await site.write("c", f'active = false\n{GOOD}downlinkAsId = "TWA_2"\n')
        assert signing("c").as_id == "TWA_2"
        await site.write("a", f'active = false\n{GOOD}downlinkAsId = "TWA_3"\n')
        assert signing("a") == Signing("TWA_3", "")
