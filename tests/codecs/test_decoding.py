"""Each uplink is decoded once per driver, and goes on whatever its driver does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock

from tests.codecs.doubles import LANE, HereAndNow, uplink_with
from tpxd.codecs.catalogue import Catalogue
from tpxd.codecs.decoding import Decoding
from tpxd.codecs.drivers import Driver, read_drivers
from tpxd.events import EventLog
from tpxd.lorawan.uplink import Uplink

PACKAGES = Path(__file__).parent / "packages"
FUNCTIONS = frozenset({"decodeUplink", "extractPoints"})


def driver_of(source: str, *functions: str, uses_context: bool = False) -> Driver:
    sources = dict.fromkeys(("decodeUplink", "extractPoints"), source)
    path = Path("a.js")
    return Driver("a.js", frozenset({"a.js"}), path, "lora-alliance", sources, uses_context, {}, frozenset(functions))  # type: ignore[arg-type]


class Bench:
    """Decoding with workers that run here, and what it told."""

    def __init__(self, *drivers: Driver) -> None:
        self.workers, self.events = HereAndNow(), EventLog()
        self.decoding = Decoding(Catalogue(drivers), self.workers.as_workers, self.events.tell)

    async def decode(self, *uplinks: Uplink, wanted: str = "a.js") -> list[Uplink]:
        found: dict[int, Uplink] = {}
        await self.decoding.decode(wanted, uplinks, lambda uplink, decoded: found.update({uplink.seq: decoded}))
        return [found[uplink.seq] for uplink in uplinks]

    async def fields(self, uplink: Uplink, wanted: str = "a.js") -> dict[str, Any]:
        [decoded] = await self.decode(uplink, wanted=wanted)
        assert orjson.loads(decoded.body) == decoded.document
        assert decoded.as_stored is uplink
        return decoded.fields


async def test_a_driver_fills_payload_points_and_its_id() -> None:
    [package] = [each for each in read_drivers(PACKAGES).drivers.values() if each.id == "acme:thr:2"]
    sources = next(source for source in package.files.values() if source)
    bench = Bench(driver_of(sources, *FUNCTIONS))
    config = {"mod": {"pId": "acme", "mId": "thr", "ver": "2"}}
    fields = await bench.fields(uplink_with(DriverCfg=config, Time="2025-03-04T09:15:21.902+01:00"))
    assert fields["payload"] == {"temperature": 21.5}
    assert fields["points"] == {"temperature": {"unitId": "Cel", "type": "double", "record": 21.5}}
    assert fields["DriverCfg"] == config | {"id": "a.js"}
    assert fields["payload_hex"] == "00d7"


async def test_points_may_come_from_a_script_of_their_own() -> None:
    [package] = [each for each in read_drivers(PACKAGES).drivers.values() if each.id == "acme:legacy:1"]
    bench = Bench(replace(package, functions=FUNCTIONS))
    fields = await bench.fields(uplink_with(payload_hex="01"), "acme:legacy:1")
    assert fields["payload"] == {"open": True}
    assert fields["points"] == {"open": {"type": "boolean", "record": True}}


@pytest.mark.parametrize(
    ("given", "point"),
    [
        ("{unitId: 'V', record: 3.6}", {"unitId": "V", "type": "double", "record": 3.6}),
        ("{record: [4.35, 50.8]}", {"type": "double", "record": [4.35, 50.8]}),
        ("{unitId: 'V', records: [{value: 1}, {value: 2}]}", {"unitId": "V", "type": "double", "record": 2}),
        ("{coordinates: [4.35, 50.8]}", {"type": "double", "record": [4.35, 50.8]}),
        ("{eventTime: input.time, value: 'open'}", {"type": "string", "record": "open"}),
        ("{type: 'int64', value: 0}", {"type": "int64", "record": 0}),
        ("false", {"type": "boolean", "record": False}),
        ("null", None),
        ("{records: []}", None),
    ],
)
async def test_points_in_every_form_that_drivers_give(given: str, point: dict[str, Any] | None) -> None:
    source = "function decodeUplink(input) { return {data: {}}; }\n"
    bench = Bench(driver_of(f"{source}function extractPoints(input) {{ return {{p: {given}}}; }}", *FUNCTIONS))
    assert (await bench.fields(uplink_with())).get("points") == (None if point is None else {"p": point})


@pytest.mark.parametrize(
    ("statements", "code", "message"),
    [
        ("throw new Error('boom')", "com-5002", "driver internal error: Error: boom"),
        ("return {errors: ['unknown port']}", "com-5002", "driver internal error: unknown port"),
        ("return 5", "com-5002", "driver internal error: decodeUplink returned a number, not an object"),
        ("for (;;);", "com-5000", "stopped after 0.2 s of processor time"),
    ],
)
async def test_an_uplink_goes_on_with_the_error(statements: str, code: str, message: str) -> None:
    bench = Bench(driver_of(f"function decodeUplink(input) {{ {statements}; }}"))
    fields = await bench.fields(uplink_with())
    assert fields["payloadDecodedError"] == {"code": code, "message": message}
    assert "payload" not in fields
    assert "DriverCfg" not in fields


async def test_that_a_driver_fails_is_told_once_in_a_while() -> None:
    bench = Bench(driver_of("function decodeUplink(input) {\n  throw new Error('boom');\n}"))
    await bench.decode(*(uplink_with(seq) for seq in range(1, 20)))
    [event] = bench.events.newest()
    assert event.message.startswith("a.js:2:"), event.message
    assert "boom (uplink 1 of 70B3D5E75E00A1C4)" in event.message


@pytest.mark.parametrize(
    "uplink",
    [
        uplink_with(payload={"a": 1}),
        uplink_with(payload_hex=""),
        Uplink(1, 0, "DevEUI_location", LANE, "", b"", {"DevEUI_location": {"payload_hex": "00"}}),
    ],
)
async def test_what_has_nothing_to_decode_passes(uplink: Uplink) -> None:
    bench = Bench(driver_of("function decodeUplink(input) { return {data: {}}; }"))
    assert await bench.decode(uplink) == [uplink]
    assert not bench.workers.ran


@pytest.mark.parametrize(
    ("fields", "is_decoded"),
    [
        ({"DriverCfg": {"app": {"pId": "acme", "mId": "thr", "ver": "2"}}}, True),
        ({"DriverCfg": {"mod": {"pId": "ACME", "mId": "THR", "ver": 2}}}, True),
        ({"CustomerData": {"alr": {"pro": "ACME/THR", "ver": "2"}}}, True),
        ({"CustomerData": {"alr": {"pro": "LORA/Generic", "ver": "1"}}}, False),
        ({"DriverCfg": {"mod": {"pId": "generic", "mId": "lorawan", "ver": "1"}}}, False),
        ({"DriverCfg": {"app": {"pId": "acme", "mId": "other", "ver": "2"}}}, False),
        ({}, False),
    ],
)
async def test_auto_takes_the_driver_that_the_uplink_names(fields: dict[str, Any], is_decoded: bool) -> None:
    other = Driver("generic:lorawan:1", frozenset({"generic:lorawan:1", "lora:generic:1"}), Path("x"), "ttn", {})
    bench = Bench(*read_drivers(PACKAGES).drivers.values(), other)
    assert ("payload" in await bench.fields(uplink_with(**fields), "auto")) is is_decoded


async def test_however_many_want_it_an_uplink_is_decoded_once() -> None:
    bench = Bench(driver_of("function decodeUplink(input) { return {data: {n: 1}}; }"))
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(bench.decode, *(uplink_with(seq) for seq in range(1, 4)))
    await bench.decode(uplink_with(2))
    assert bench.workers.ran == [("decodeUplink", LANE)] * 3


async def test_a_new_version_of_a_driver_decodes_anew() -> None:
    bench = Bench(driver_of("function decodeUplink(input) { return {data: {n: 1}}; }"))
    await bench.decode(uplink_with())
    bench.decoding.catalogue.set([driver_of("function decodeUplink(input) { return {data: {n: 2}}; }")])
    assert (await bench.fields(uplink_with()))["payload"] == {"n": 2}


async def test_where_the_first_gives_up_another_goes_on(autojump_clock: MockClock) -> None:
    bench = Bench(driver_of("function decodeUplink(input) { return {data: {n: 1}}; }"))
    bench.workers.slow_s[LANE] = 1.0
    found: list[Uplink] = []

    async def second() -> None:
        found.extend(await bench.decode(uplink_with()))

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.5):
            nursery.start_soon(second)
            await bench.decode(uplink_with())
    assert [decoded.fields["payload"] for decoded in found] == [{"n": 1}]


async def test_what_is_kept_is_bounded() -> None:
    bench = Bench(driver_of("function decodeUplink(input) { return {data: {s: 'x'.repeat(100000)}}; }"))
    await bench.decode(*(uplink_with(seq) for seq in range(1, 201)))
    assert 50 < len(bench.decoding._kept) < 100


async def test_a_driver_with_a_context_gets_what_its_device_kept() -> None:
    source = "function decodeUplink(input) { context.push(input.bytes[1]); return {data: {n: context.length}}; }"
    bench = Bench(driver_of(source, uses_context=True))
    found = await bench.decode(uplink_with(1), uplink_with(2), uplink_with(3, "70B3D5E75E00A1C5"))
    assert [decoded.fields["payload"]["n"] for decoded in found] == [1, 2, 1]
