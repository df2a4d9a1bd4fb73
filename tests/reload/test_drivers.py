"""Drivers that change while they are in use: what is fine is used, what is not keeps its last good version."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.codecs.doubles import HereAndNow
from tpxd.codecs import drivers
from tpxd.codecs.catalogue import Catalogue
from tpxd.config.flow import Flow
from tpxd.reload.drivers import DriverDir, is_driver_name

GOOD = "function decodeUplink(input) { return {data: {n: %d}}; }"


class Shelf:
    """A directory of drivers and the catalogue that is made of it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "drivers"
        self.path.mkdir()
        self.catalogue, self.workers = Catalogue(), HereAndNow()
        self.drivers = DriverDir(self.path, self.catalogue, self.workers.as_workers)

    async def write(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        await self.drivers.refresh()

    def number(self, name: str = "thermo.js") -> str | None:
        """Which version of the driver would be used, by the number that it gives."""
        driver = self.catalogue.named(name)
        source = None if driver is None else driver.source("decodeUplink")
        return None if source is None else source.partition("{n: ")[2].partition("}")[0]

    @property
    def problems(self) -> list[str]:
        return [str(problem).replace(str(self.path) + "/", "") for problem in self.drivers.problems]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


async def test_a_new_version_is_used_as_soon_as_it_is_read(shelf: Shelf) -> None:
    await shelf.write("thermo.js", GOOD % 1)
    assert shelf.number() == "1"
    await shelf.write("thermo.js", GOOD % 2)
    assert (shelf.number(), shelf.problems) == ("2", [])
    driver = shelf.catalogue.named("THERMO.js")
    assert driver is not None
    assert driver.functions == {"decodeUplink"}


async def test_a_broken_one_keeps_its_last_good_version_and_is_told_with_its_place(shelf: Shelf) -> None:
    await shelf.write("thermo.js", GOOD % 1)
    await shelf.write("thermo.js", GOOD % 2 + "\n\nvar x = = 2;")
    assert shelf.number() == "1"
    [problem] = shelf.problems
    assert problem.startswith("thermo.js:3:9: SyntaxError"), problem
    await shelf.write("thermo.js", GOOD % 3)
    assert (shelf.number(), shelf.problems) == ("3", [])


async def test_one_that_never_was_fine_is_not_used(shelf: Shelf) -> None:
    await shelf.write("thermo.js", "function decodeUplink(input) {")
    assert shelf.number() is None
    assert shelf.drivers.lacks(Flow(driver="thermo.js")) == f'there is no driver "thermo.js" in {shelf.path}'
    assert shelf.drivers.lacks(Flow(driver="auto")) is None
    assert shelf.drivers.lacks(Flow(driver="thermo.js", skipDecoding=True)) is None


async def test_a_script_that_loops_while_it_loads_is_told(shelf: Shelf) -> None:
    await shelf.write("other.js", GOOD % 1)
    await shelf.write("thermo.js", GOOD % 2 + "\nfor (;;);")
    assert shelf.number("other.js") == "1"
    assert shelf.problems == ["thermo.js: stopped after 0.2 s of processor time"]


async def test_a_folder_that_is_half_copied_is_told_until_it_is_whole(shelf: Shelf) -> None:
    await shelf.write("acme/driver.yaml", "protocolId: acme:thr:1\n")
    assert shelf.problems == [], "so catalogues refer to a driver that is elsewhere"
    await shelf.write("acme/package.json", "{}")
    assert shelf.problems == ["acme/index.js: cannot be read: No such file or directory"]
    await shelf.write("acme/index.js", GOOD % 1)
    assert (shelf.number("acme:thr:1"), shelf.problems) == ("1", [])
    (shelf.path / "acme/index.js").unlink()
    await shelf.drivers.refresh()
    assert shelf.number("acme:thr:1") == "1", "what was good goes on"
    assert shelf.path / "acme" in shelf.drivers.watched()


async def test_a_link_that_leads_out_is_told_and_not_followed(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "secret.js").write_text(GOOD % 1)
    (shelf.path / "thermo.js").symlink_to(tmp_path / "secret.js")
    await shelf.drivers.refresh()
    assert shelf.number() is None
    assert shelf.problems == [f"thermo.js: leads out of {shelf.path}; copy the driver instead"]


async def test_one_that_is_gone_is_gone(shelf: Shelf) -> None:
    await shelf.write("thermo.js", GOOD % 1)
    (shelf.path / "thermo.js").unlink()
    await shelf.drivers.refresh()
    assert (shelf.number(), shelf.problems) == (None, [])


async def test_no_directory_is_no_problem(tmp_path: Path) -> None:
    there = DriverDir(tmp_path / "drivers", Catalogue(), HereAndNow().as_workers)
    await there.refresh()
    assert there.problems == ()


async def test_what_did_not_change_is_neither_read_nor_run_again(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    await shelf.write("thermo.js", GOOD % 1)
    await shelf.write("acme/driver.yaml", "protocolId: acme:thr:1\n")
    await shelf.write("acme/index.js", GOOD % 1)
    monkeypatch.setattr(time, "time_ns", lambda: shelf.path.stat().st_mtime_ns + 10**11)
    await shelf.drivers.refresh()
    ran, driver = len(shelf.workers.ran), shelf.catalogue.named("thermo.js")
    read = drivers._read
    monkeypatch.setattr(drivers, "_read", lambda path, root: pytest.fail(f"{path} was read again"))
    await shelf.drivers.refresh()
    monkeypatch.setattr(drivers, "_read", read)
    assert (len(shelf.workers.ran), shelf.catalogue.named("thermo.js")) == (ran, driver)


@pytest.mark.parametrize(
    ("name", "may_be"),
    [("thermo.js", True), ("driver.yaml", True), ("acme-thr", True), (".thermo.js.swp", False), ("4913", False)],
)
def test_names_for_which_a_reader_looks(name: str, may_be: bool) -> None:
    assert is_driver_name(name) is may_be
