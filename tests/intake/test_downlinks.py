"""`POST /iot-flow/downlinkMessages/{downlinkUuid}`: what is taken, what is refused, and who may ask how often."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.downlinks.downlink_doubles import DEV_EUI, Disk, body
from tests.intake.doubles import MemoryStore
from tests.intake.serving import serving
from tests.notebook import Notebook
from tpxd.connection.chains import Chains
from tpxd.connectors.http.connector import HttpConfig
from tpxd.downlinks.queue import DownlinkQueue, open_downlinks
from tpxd.downlinks.urls import PATH, DownlinkUrls
from tpxd.errors import SpoolUnavailable
from tpxd.events import EventLog
from tpxd.intake.downlinks import FORGIVEN_S, GUESSES, PEERS, Guesses, downlink_route
from tpxd.intake.routes import Route
from tpxd.lorawan.downlinks import MAX_BODY_BYTES
from tpxd.wire.http import Request, Response

UUID = "6b1f0c9e-0000-4000-8000-00000000a1c4"
HERE, THERE = "192.0.2.7", "192.0.2.8"


@dataclass
class Site:
    """The route of one connection, `plant`, and the disk behind it."""

    route: Route
    downlinks: DownlinkQueue
    disk: Disk
    verdicts: MemoryStore = field(default_factory=MemoryStore)

    async def post(self, content: bytes, uuid: str = UUID, peer: str = HERE) -> Response:
        return await self.route(Request("POST", PATH + uuid, "", {}, content, peer))

    async def refused(self, content: bytes, **where: str) -> tuple[int, str]:
        """The status and the error that this is answered with."""
        response = await self.post(content, **where)
        return response.status, orjson.loads(response.body)["error"]


@asynccontextmanager
async def site(*, refusal: str | None = None, chained: bool = False, **configuration: Any) -> AsyncIterator[Site]:
    disk, verdicts = Disk(), MemoryStore()
    urls = DownlinkUrls(Notebook(), "http://edge.example:8090", EventLog().tell)
    settings = {"destinationURL": "http://as.example.net/in", "downlinkUuid": UUID}
    await urls.open("plant", HttpConfig.model_validate(settings | configuration))
    async with open_downlinks(disk, verdicts.append, EventLog().tell, refusal=refusal) as downlinks:
        chains = Chains()
        chains.set({"plant": ["archive"], "archive": []} if chained else {})
        route = downlink_route(urls.find, downlinks, chains.messages, lambda: 1_700_000_000.0)
        yield Site(route, downlinks, disk, verdicts)


async def test_a_downlink_is_on_disk_when_it_is_answered() -> None:
    async with site() as plant:
        response = await plant.post(body(CorrelationID="A1"))
        assert (response.status, orjson.loads(response.body)) == (
            202,
            {"id": "1", "CorrelationID": "A1", "state": "waiting"},
        )
        assert plant.disk.rows.keys() == {1}
        downlink = plant.downlinks.book.find(1)
        assert downlink is not None
        assert (downlink.connection, downlink.dev_eui, downlink.f_port) == ("plant", DEV_EUI, 5)
        # equal downlinks over HTTP are as many downlinks
        assert orjson.loads((await plant.post(body(CorrelationID="A1"))).body)["id"] == "2"


async def test_other_json_goes_to_the_chained_connection() -> None:
    async with site(chained=True) as plant:
        response = await plant.post(b'{"a": 1}')
        assert (response.status, orjson.loads(response.body)) == (202, {"handedOn": 1})
        (message,) = plant.verdicts.stored
        assert (message.recipient, message.body) == ("archive", b'{"a": 1}')
        plant.verdicts.failing = SpoolUnavailable("the disk is full")
        assert await plant.refused(b'{"a": 2}') == (503, "the disk is full")
        assert plant.downlinks.book.counts("plant").unrecognised == 2


async def test_the_port_that_is_left_out_is_that_of_the_connection() -> None:
    async with site(downlinkPort=9) as plant:
        assert (await plant.post(body(FPort=None))).status == 202
        downlink = plant.downlinks.book.find(1)
        assert downlink is not None
        assert downlink.f_port == 9


async def test_without_an_lrc_it_is_taken_and_says_that_it_came_to_nothing() -> None:
    async with site(refusal="no LRC is set") as plant:
        response = await plant.post(body())
        assert (response.status, orjson.loads(response.body)["state"]) == (202, "rejected")


@pytest.mark.parametrize(
    ("content", "error", "counted"),
    [
        (b"", "is no JSON", "ignored"),
        (b"{", "is no JSON", "ignored"),
        (b"\xff\xfe", "is no JSON", "ignored"),
        (b'{"a": 1}', "JSON but no DevEUI_downlink", "unrecognised"),
        (b"[]", "JSON but no DevEUI_downlink", "unrecognised"),
        (b'"DevEUI_downlink"', "JSON but no DevEUI_downlink", "unrecognised"),
        (b'{"DevEUI_downlink": 7}', "is no object", "rejected"),
        (b'{"DevEUI_downlink": []}', "is no object", "rejected"),
        (body(DevEUI="70B3"), "DevEUI '70B3' is not 16 hex digits", "rejected"),
        (body(DevEUI=17), "DevEUI 17 is not 16 hex digits", "rejected"),
        (body(FPort=None), "FPort is missing", "rejected"),
        (body(FPort=225), "FPort 225 is not a number from 1 to 224", "rejected"),
        (body(FPort=[5]), "FPort a list is not a number", "rejected"),
        (body(FPort=True), "FPort True is not a number", "rejected"),
        (body(payload_hex="0"), "payload_hex '0' is not an even number", "rejected"),
        (body(payload_hex={"a": 1}), "payload_hex an object is not", "rejected"),
        (body(Confirmed="perhaps"), "Confirmed 'perhaps' is neither 0 nor 1", "rejected"),
        (body(ValidityTime="tomorrow"), "ValidityTime is neither", "rejected"),
    ],
)
async def test_what_is_no_downlink_or_a_wrong_one_is_told_at_once(content: bytes, error: str, counted: str) -> None:
    async with site() as plant:
        status, text = await plant.refused(content)
        assert status == 400
        assert error in text
        assert getattr(plant.downlinks.book.counts("plant"), counted) == 1
        # the answer told it, so no report does
        await trio.testing.wait_all_tasks_blocked()
        assert plant.disk.reports == []


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(orjson.dumps))
def test_nothing_that_is_posted_breaks_it(content: bytes) -> None:
    async def check() -> None:
        async with site() as plant:
            assert (await plant.post(content)).status == 400

    trio.run(check)


async def test_a_body_beyond_every_downlink_is_too_large() -> None:
    async with site() as plant:
        status, text = await plant.refused(body(note="x" * MAX_BODY_BYTES))
        assert (status, plant.disk.rows) == (413, {})
        assert str(MAX_BODY_BYTES) in text


# ---- the address


@pytest.mark.parametrize("uuid", [UUID[:-1], UUID + "0", UUID.upper(), "", "%36" + UUID[1:], "x" * 8_000])
async def test_only_the_exact_address_is_known(uuid: str) -> None:
    async with site() as plant:
        assert await plant.refused(body(), uuid=uuid) == (404, "there is no such downlink address")
        assert plant.disk.rows == {}


async def test_a_connection_that_takes_no_downlinks_has_no_address() -> None:
    async with site(downlinkEnabled=False) as plant:
        assert (await plant.refused(body()))[0] == 404


async def test_guesses_are_rationed_per_peer_and_forgiven(autojump_clock: MockClock) -> None:
    async with site() as plant:
        for number in range(GUESSES):
            assert (await plant.refused(body(), uuid=f"guess-{number}"))[0] == 404
        response = await plant.post(body(), uuid="one-more")
        assert response.status == 429
        assert (b"Retry-After", b"5") in response.headers
        assert (await plant.post(body(), uuid="one-more", peer=THERE)).status == 404
        await trio.sleep(FORGIVEN_S)
        assert (await plant.post(body(), uuid="another")).status == 404
        assert (await plant.post(body(), uuid="one-more-again")).status == 429
        await trio.sleep(FORGIVEN_S * GUESSES * 2)
        statuses = [(await plant.post(body(), uuid=f"later-{number}")).status for number in range(GUESSES + 1)]
        assert statuses == [404] * GUESSES + [429]


async def test_wrong_addresses_lock_out_no_right_one_behind_the_same_proxy() -> None:
    async with site() as plant:
        statuses = [(await plant.post(body(), uuid=f"guess-{number}")).status for number in range(25)]
        assert statuses == [404] * GUESSES + [429] * (25 - GUESSES)
        assert (await plant.post(body())).status == 202


async def test_an_application_that_was_not_told_locks_out_no_other() -> None:
    async with site() as plant:
        for _ in range(GUESSES * 2):
            for gone in ("the-first-connection", "the-second-connection"):
                assert (await plant.post(body(), uuid=gone)).status == 404
        assert (await plant.post(body())).status == 202


def test_peers_that_guess_are_bounded_and_the_newest_are_remembered() -> None:
    guesses = Guesses(lambda: 0.0)

    def exhaust(peer: str) -> None:
        for number in range(GUESSES):
            guesses.wrong(peer, f"address {number}")

    exhaust("first")
    for number in range(PEERS - 1):
        guesses.wrong(f"peer {number}", "address")
    assert not guesses.allowed("first")
    exhaust("newest")
    assert guesses.allowed("first")
    assert not guesses.allowed("newest")


async def test_how_much_of_a_guess_is_right_decides_nothing() -> None:
    """An address is found by a keyed digest of it, so that comparing never looks at the address itself."""
    urls = DownlinkUrls(Notebook(), "http://edge.example:8090", EventLog().tell)
    looked: list[bytes] = []

    class Doors(dict[bytes, Any]):
        def get(self, key: bytes, default: Any = None) -> Any:
            looked.append(key)
            return super().get(key, default)

    await urls.open("plant", HttpConfig(destinationURL="http://as.example.net/in", downlinkUuid=UUID))
    urls._doors = Doors(urls._doors)
    near = [UUID[:-1] + "5", "x" + UUID[1:], "x" * 36]
    assert [urls.find(guess) for guess in near] == [None] * 3
    assert urls.find(UUID) is not None
    assert {len(key) for key in looked} == {16}
    assert len(set(looked)) == 4
    assert all(UUID[:8].encode() not in key for key in looked)


# ---- the disk, and floods


async def test_a_disk_that_refuses_keeps_nothing(autojump_clock: MockClock) -> None:
    async with site() as plant:
        plant.disk.failing = True
        for content in (body(), body(FPort=0)):
            response = await plant.post(content)
            assert (response.status, orjson.loads(response.body)) == (503, {"error": "the disk is full"})
            assert (b"Retry-After", b"5") in response.headers
        plant.disk.failing = False
        await trio.sleep(10)
        assert plant.disk.rows == {}, "its sender was told to come again"
        assert plant.downlinks.book.open_count == 0
        counts = plant.downlinks.book.counts("plant")
        assert (counts.received, counts.waiting, counts.rejected) == (0, 0, 0)
        assert (await plant.post(body())).status == 202


async def test_a_flood_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpxd.downlinks.book.MAX_OPEN", 100)
    async with site() as plant:
        async with trio.open_nursery() as nursery:
            for _ in range(80):
                nursery.start_soon(plant.post, body())
        assert len(plant.disk.rows) == 50
        response = await plant.post(b"{")
        assert (response.status, orjson.loads(response.body)) == (503, {"error": "too many downlinks wait for the LRC"})
        assert (b"Retry-After", b"5") in response.headers


# ---- on a socket


async def test_over_a_socket() -> None:
    async with site() as plant, serving(MemoryStore(), max_body="128 KiB") as (intake, address):
        intake.routes[PATH] = {"POST": plant.route}
        async with httpx.AsyncClient(base_url=f"http://{address}{PATH}", trust_env=False) as http:
            answer = await http.post(UUID, content=body())
            assert (answer.status_code, answer.json()["id"]) == (202, "1")
            assert (await http.post(UUID + "/", content=body())).status_code == 404
            assert (await http.post(f"{UUID}?a=b", content=body())).status_code == 202
            assert (await http.post(UUID, content=b"x" * 129 * 1024)).status_code == 413
            refused = await http.get(UUID)
            assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
