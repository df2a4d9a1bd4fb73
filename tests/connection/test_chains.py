"""What connections hand on: the pure rules, and the whole way over a real spool."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
import trio
import trio.lowlevel
from hypothesis import given
from hypothesis import strategies as st

from tests.connection.doubles import make_uplink
from tests.reload.supervised import Site, supervised
from tpxd.config.connection_file import ConnectorConfig
from tpxd.connection.chains import Chains, circle
from tpxd.connector import REGISTRY, Connector, Context, Incoming, Outgoing, Receipts, Transport
from tpxd.downlinks.inbox import Inbox, receive_downlinks
from tpxd.downlinks.queue import open_downlinks
from tpxd.lorawan.reports import DOWNLINK_REJECTED, parse_report
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import NewReport, Spool

IDS = st.sampled_from("abcde")


@given(st.dictionaries(IDS, st.lists(IDS)))
def test_chains_never_form_a_circle(names: dict[str, list[str]]) -> None:
    chains = Chains()
    chains.set(names)
    left = {id: [uplink.recipient or "" for _, uplink in chains.handed_on(id, [make_uplink(1)])] for id in names}
    assert all(circle(left, id) is None for id in names)
    for id, wanted in names.items():
        assert set(left[id]) <= set(wanted) & names.keys()
        assert len(left[id]) == len(set(left[id]))
        for lost in set(wanted) - set(left[id]):
            assert lost not in names or circle(left | {id: [*left[id], lost]}, id) is not None


def test_the_shortest_circle_is_told() -> None:
    assert circle({"a": ["b", "c"], "b": ["c"], "c": ["a"]}, "a") == ["a", "c", "a"]
    assert circle({"a": ["b"], "b": ["c"], "c": ["d"], "d": ["a"]}, "a") == ["a", "b", "c", "d", "a"]
    assert circle({"a": ["a"]}, "a") == ["a", "a"]
    assert circle({"a": ["b"], "b": ["b"]}, "a") is None


def test_what_is_handed_on_keeps_what_the_lrc_said_and_verdicts_stay() -> None:
    chains = Chains()
    chains.set({"a": ["b"], "b": ["c"], "c": []})
    original = Uplink(7, 1, "DevEUI_uplink", "D", "TWA-1;x", b'{"DevEUI_uplink":{}}')
    ((seq, first),) = chains.handed_on("a", [original])
    assert (seq, first.recipient, first.lrn_infos, first.body) == (7, "b", "TWA-1;x", original.body)
    ((_, second),) = chains.handed_on("b", [first])
    assert (second.recipient, second.lrn_infos, second.handed_on) == ("c", "TWA-1;x", True)
    verdict = Uplink(8, 1, DOWNLINK_REJECTED, "D", "", b'{"DevEUI_downlink_Rejected":{}}', recipient="a")
    assert chains.handed_on("a", [verdict]) == []
    of_the_lrc = Uplink(9, 1, DOWNLINK_REJECTED, "D", "TWA-1;x", verdict.body)
    assert [seq for seq, _ in chains.handed_on("a", [of_the_lrc])] == [9]


@pytest.mark.parametrize("body", [b"[1, 2]", b'{"temperature": 21}', b'"text"', b'{"a": {"DevEUI": 1}}'])
def test_a_message_that_is_no_report_goes_on_as_it_is(body: bytes) -> None:
    chains = Chains()
    chains.set({"a": ["b"], "b": ["c"], "c": []})
    (message,) = chains.messages("a", body)
    assert (message.kind, message.lane, message.body, message.repeatable) == ("", "", body, True)
    stored = Uplink(1, 0, message.kind, message.lane, message.lrn_infos, message.body, recipient=message.recipient)
    assert stored.fields == stored.document  # and no error, whatever JSON it is
    ((_, second),) = chains.handed_on("b", [stored])
    assert (second.recipient, second.handed_on) == ("c", False)


def test_a_report_that_a_far_end_sends_goes_on_as_its_devices() -> None:
    chains = Chains()
    chains.set({"a": ["b"], "b": []})
    report = b'{"DevEUI_uplink":{"DevEUI":"70B3D5E75E00A1C4","FPort":2}}'
    (message,) = chains.messages("a", report)
    assert (message.kind, message.lane, message.body) == ("DevEUI_uplink", "70B3D5E75E00A1C4", report)


# ---- the whole way


class Far:
    """The far ends of all connections of a test: what each received, and which of them are away."""

    def __init__(self) -> None:
        self.received: dict[str, list[bytes]] = {}
        self.away: set[str] = set()
        self.back = trio.Event()

    @asynccontextmanager
    async def open(self, config: ConnectorConfig, context: Context) -> AsyncIterator[Transport]:
        """The opener; every connection has its own list."""
        await trio.lowlevel.checkpoint()
        yield Link(self, context.connection_id)


class Link:
    """One connection's open link."""

    def __init__(self, far: Far, id: str) -> None:
        self._far, self._id = far, id

    async def send(self, batch: Sequence[Outgoing], receipts: Receipts) -> None:
        """Receipts everything, when the far end is there."""
        await trio.lowlevel.checkpoint()
        if self._id in self._far.away:
            await self._far.back.wait()
        for index, outgoing in enumerate(batch):
            self._far.received.setdefault(self._id, []).append(outgoing.body)
            receipts.delivered(index)

    async def receive(self) -> Incoming:
        """Nothing comes."""
        await trio.sleep_forever()

    async def acknowledge(self, incoming: Incoming) -> None:
        """Nothing to acknowledge."""


@pytest.fixture
def far() -> Iterator[Far]:
    """Far ends whose connector is registered for the test alone."""
    ends = Far()
    REGISTRY["scripted"] = Connector("scripted", ConnectorConfig, ends.open, "Scripted", "for tests", 256)
    yield ends
    del REGISTRY["scripted"]


def file(*chained: str, ports: Sequence[int] = (), more: str = "") -> str:
    """A connection file; without downlinks, so that no report gets a downlinkUrl."""
    matchers = f'[flow]\nmatchers = [ {{ type = "fPort", ports = {list(ports)} }} ]\n' if ports else ""
    names = orjson.dumps(chained).decode()
    head = f'connectorId = "scripted"\nname = "N"\n[configuration]\nchainedWithConnectionIds = {names}\n'
    return f"{head}downlinkEnabled = false\n{more}{matchers}"


def body(n: int, port: int = 1) -> bytes:
    return b'{"DevEUI_uplink":{"DevEUI":"70B3D5E75E00A1C4","FCntUp":%d,"FPort":%d}}' % (n, port)


async def append(spool: Spool, *bodies: bytes) -> None:
    """Reports arrive."""
    for each in bodies:
        await spool.append(NewReport("DevEUI_uplink", "70B3D5E75E00A1C4", "TWA-1", each, orjson.loads(each)))


async def settles(site: Site, *ids: str) -> None:
    """Wait until the connections are done with everything."""
    with trio.fail_after(5):
        for id in ids:
            cursor = await site.spool.cursor(id)
            while cursor.ledger.waiting:
                await site.spool.cursor(id)


async def test_a_named_connection_gets_what_was_delivered_and_nothing_else(tmp_path: Path, far: Far) -> None:
    async with supervised(tmp_path, far) as site:  # type: ignore[arg-type] # it only hands the peer on
        await site.write("c", file())
        await site.write("b", file("c"))
        await site.write("a", file("b", ports=[1]))
        await append(site.spool, body(1), body(2, port=9), body(3))
        await settles(site, "a", "b", "c")
        assert far.received == {"a": [body(1), body(3)], "b": [body(1), body(3)], "c": [body(1), body(3)]}
        for id in "abc":
            assert site.spool.queue(id).ledger.imbalance == 0
        claims = site.supervisor.claims
        assert claims.claimed(parse_report(body(1)))
        assert not claims.claimed(parse_report(body(2, port=9)))


async def test_with_matchers_it_gets_both_and_each_once(tmp_path: Path, far: Far) -> None:
    async with supervised(tmp_path, far) as site:  # type: ignore[arg-type]
        await site.write("b", file(ports=[1, 2]))
        await site.write("a", file("b", ports=[2, 3]))
        await append(site.spool, body(1, 1), body(2, 2), body(3, 3), body(4, 4))
        await settles(site, "a", "b")
        assert far.received["b"] == [body(1, 1), body(2, 2), body(3, 3)]


async def test_two_that_name_one_hand_a_report_on_once(tmp_path: Path, far: Far) -> None:
    async with supervised(tmp_path, far) as site:  # type: ignore[arg-type]
        await site.write("z", file())
        await site.write("a", file("z"))
        await site.write("b", file("z"))
        await append(site.spool, *map(body, range(20)))
        await settles(site, "a", "b", "z")
        assert far.received["z"] == list(map(body, range(20)))


async def test_nobody_waits_for_a_later_link(tmp_path: Path, far: Far) -> None:
    far.away.add("b")
    async with supervised(tmp_path, far) as site:  # type: ignore[arg-type]
        await site.write("b", file())
        await site.write("a", file("b"))
        await append(site.spool, *map(body, range(300)))
        await settles(site, "a")
        assert len(far.received["a"]) == 300
        assert "b" not in far.received
        far.away.clear()
        far.back.set()
        await settles(site, "b")
        assert far.received["b"] == list(map(body, range(300)))


async def test_what_is_wrong_with_a_chain_is_told_in_its_file(tmp_path: Path, far: Far) -> None:
    async with supervised(tmp_path, far) as site:  # type: ignore[arg-type]
        await site.write("plant", file())
        await site.write("a", file("plnat"))
        assert (site.supervisor.health("a") or {})["file"]["error"].endswith('did you mean "plant"?')
        await site.write("a", file("b"))
        error = (site.supervisor.health("a") or {})["file"]["error"]
        assert error.startswith(
            "connections.d/a.toml:4:29: configuration.chainedWithConnectionIds: names no connection here"
        )
        await site.write("b", file())
        assert (site.supervisor.health("a") or {})["file"]["error"] is None
        await site.write("b", file("a"))
        assert "b -> a -> b is a circle" in (site.supervisor.health("b") or {})["file"]["error"]
        assert (site.supervisor.health("a") or {})["file"]["error"] is None
        await append(site.spool, body(1))
        await settles(site, "a", "b", "plant")
        assert far.received == {"a": [body(1)], "b": [body(1)], "plant": [body(1)]}


async def test_numbers_are_ids_too(tmp_path: Path, far: Far) -> None:
    async with supervised(tmp_path, far) as site:  # type: ignore[arg-type]
        await site.write("17", file())
        await site.write("a", file().replace("[]", "[17]"))
        await append(site.spool, body(1))
        await settles(site, "a", "17")
        assert far.received["17"] == [body(1)]


async def test_a_message_of_a_far_end_reaches_the_next_link_as_it_is(tmp_path: Path, far: Far) -> None:
    async with supervised(tmp_path, far) as site:  # type: ignore[arg-type]
        await site.write("b", file(ports=[9], more="sendRawDecodedFormat = true\n"))
        await site.write("a", file("b", ports=[9]))
        for _ in range(2):
            for message in site.supervisor.chains.messages("a", b'{ "payload": {"on": true} }'):
                await site.spool.append(message)
        await settles(site, "a", "b")
        assert far.received == {"b": [b'{ "payload": {"on": true} }'] * 2}


async def test_the_downlink_side_passes_on_what_is_no_downlink(tmp_path: Path, far: Far) -> None:
    async with supervised(tmp_path, far) as site:  # type: ignore[arg-type]
        await site.write("b", file())
        await site.write("a", file("b"))
        async with open_downlinks(site.spool.downlinks, site.spool.append, site.events.tell) as downlinks:
            inbox = Inbox("a", downlinks, None, site.supervisor.chains.messages)
            talk = Talk(Incoming("t", b"[3]"), Incoming("t", b"no json"), Incoming("t", body(4)))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive_downlinks, talk, inbox)
                with trio.fail_after(5):
                    await talk.over.wait()
                nursery.cancel_scope.cancel()
            await settles(site, "b")
            assert far.received == {"b": [b"[3]", body(4)]}
            counts = downlinks.book.counts("a")
            assert (counts.received, counts.ignored, counts.unrecognised) == (0, 1, 2)


class Talk:
    """A link on which some messages come; `over` when all are acknowledged."""

    def __init__(self, *messages: Incoming) -> None:
        self._left, self._open = list(messages), len(messages)
        self.over = trio.Event()

    async def send(self, batch: Sequence[Outgoing], receipts: Receipts) -> None:
        """Nothing is sent."""
        raise AssertionError("nothing should be sent")

    async def receive(self) -> Incoming:
        """The next message."""
        await trio.lowlevel.checkpoint()
        if not self._left:
            await trio.sleep_forever()
        return self._left.pop(0)

    async def acknowledge(self, incoming: Incoming) -> None:
        """One of them is kept."""
        self._open -= 1
        if not self._open:
            self.over.set()
