"""The address of each connection: made once, kept, unique, and in its uplinks as soon as it is known."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.notebook import Forgetful, Notebook
from tpxd.config.connection_file import ConnectorConfig
from tpxd.downlinks.urls import PATH, DownlinkUrls
from tpxd.events import EventLog

BASE = "http://edge.example:8090"
UUID, OTHER = "6b1f0c9e-0000-4000-8000-00000000a1c4", "6b1f0c9e-0000-4000-8000-00000000a1c5"


class Site:
    """Addresses, and what was said about them."""

    def __init__(self, memory: Notebook | None = None) -> None:
        self.memory, self.log = memory or Notebook(), EventLog()
        self.urls = DownlinkUrls(self.memory, BASE, self.log.tell)

    async def open(self, connection: str = "plant", **configuration: Any) -> str | None:
        await self.urls.open(connection, ConnectorConfig.model_validate(configuration))
        return self.urls.url(connection)

    def messages(self) -> list[str]:
        return [event.message for event in self.log.newest()]

    def owner(self, given: str) -> str | None:
        door = self.urls.find(given)
        return None if door is None else door.connection


def uuid_of(url: str | None) -> str:
    assert url is not None
    return url.removeprefix(BASE + PATH)


async def test_an_address_is_made_once_and_kept() -> None:
    site = Site()
    url = await site.open()
    assert uuid.UUID(uuid_of(url)).version == 4
    for _ in range(3):
        assert await site.open() == url
    site.urls.close("plant")
    assert (site.urls.url("plant"), site.owner(uuid_of(url))) == (None, None)
    assert await site.open() == url, "a file put back"
    again = Site(site.memory)
    assert await again.open() == url, "a restart"
    assert uuid_of(await again.open("office")) != uuid_of(url)
    assert again.owner(uuid_of(url)) == "plant"
    assert again.messages() == []


async def test_the_file_may_name_one_and_take_it_back() -> None:
    site = Site()
    made = uuid_of(await site.open())
    assert uuid_of(await site.open(downlinkUuid=UUID)) == UUID
    assert (site.owner(made), site.owner(UUID)) == (None, "plant")
    assert uuid_of(await site.open()) == made
    assert site.owner(UUID) is None
    assert await site.open(downlinkEnabled=False) is None
    assert site.owner(made) is None
    assert uuid_of(await site.open()) == made


async def test_the_default_port_is_that_of_the_newest_version() -> None:
    site = Site()
    for port in (None, 5, 7):
        given = uuid_of(await site.open(downlinkPort=port))
        door = site.urls.find(given)
        assert door is not None
        assert door.default_port == port


async def test_of_two_files_with_the_same_address_the_first_keeps_it_and_the_other_is_told_once() -> None:
    site = Site()
    for _ in range(5):
        assert uuid_of(await site.open("plant", downlinkUuid=UUID)) == UUID
        assert await site.open("office", downlinkUuid=UUID) is None
    assert site.owner(UUID) == "plant"
    assert site.messages() == ["office: downlinkUuid is that of plant, which keeps it"]
    site.urls.close("office")
    assert site.owner(UUID) == "plant"
    await site.open("plant", downlinkUuid=OTHER)
    assert uuid_of(await site.open("office", downlinkUuid=UUID)) == UUID
    assert (site.owner(UUID), site.owner(OTHER)) == ("office", "plant")
    assert await site.open("plant", downlinkUuid=UUID) is None
    assert site.messages()[1:] == ["plant: downlinkUuid is that of office, which keeps it"]
    assert site.owner(OTHER) is None, "its file does not name that one any more"


async def test_an_address_that_cannot_be_kept_is_not_given_out() -> None:
    memory = Forgetful()
    site = Site(memory)
    for _ in range(5):
        assert await site.open() is None
    assert site.messages() == ["plant: uplinks carry no downlinkUrl until it can be stored: the disk is full"]
    memory.works = True
    url = await site.open()
    assert uuid_of(url) in memory.kept.values()


@pytest.mark.parametrize("given", ["", "x", UUID.upper(), UUID + " ", "\x00", "ü" * 40, "x" * 10_000])
async def test_what_is_no_address_leads_nowhere(given: str) -> None:
    site = Site()
    await site.open(downlinkUuid=UUID)
    assert site.owner(given) is None


async def test_without_an_lrc_uplinks_carry_no_address_and_it_stays_what_it_is() -> None:
    memory = Notebook()
    site = Site(memory)
    url = await site.open()
    bare = DownlinkUrls(memory, None, site.log.tell)
    await bare.open("plant", ConnectorConfig())
    assert bare.url("plant") is None
    door = bare.find(uuid_of(url))
    assert door is not None
    assert door.connection == "plant"
