"""Decodes each uplink once per driver, however many connections want it.

What a driver says of an uplink is made once and shared: whoever asks first has it made, others who ask meanwhile wait
for that, and what was made is kept for a while, up to a number of uplinks and bytes. Where the first one gives up, one
of the others has it made.

    payload               what `decodeUplink` gives
    points                what `extractPoints` makes of it, where the driver has that
    DriverCfg.id          the driver
    payloadDecodedError   instead of these: com-5002 the script failed, com-5000 it was stopped

Source: ThingPark X IoT Flow, uplink message format.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import trio

from tpxd.codecs.catalogue import Catalogue
from tpxd.codecs.drivers import Driver
from tpxd.codecs.engine import Call, Failure, Operation, Outcome
from tpxd.codecs.workers import ScriptWorkers
from tpxd.events import Event, Tell
from tpxd.lorawan.reports import UPLINK
from tpxd.lorawan.uplink import Uplink

logger = logging.getLogger(__name__)

MAX_KEPT: Final = 2_048
MAX_KEPT_BYTES: Final = 8 << 20
MAX_CONTEXTS: Final = 10_000

TELL_S: Final = 3600.0
"""That a driver fails is told so often; each uplink has the error with it."""

STOPPED: Final = "com-5000"
FAILED: Final = "com-5002"

Key = tuple[int, int]
"""An uplink's seq, and which driver object: a new version of a file is a new one."""


@dataclass(slots=True)
class _Job:
    """One uplink that is being decoded; `decoded` stays None where that was given up."""

    driver: Driver
    uplink: Uplink
    done: trio.Event = field(default_factory=trio.Event)
    decoded: Uplink | None = None


class Decoding:
    """What all connections share of drivers; see the module.

    Attributes:
        catalogue: the drivers that may be used now.
    """

    def __init__(self, catalogue: Catalogue, workers: ScriptWorkers, tell: Tell) -> None:
        self.catalogue = catalogue
        self._workers = workers
        self._tell = tell
        self._under_way: dict[Key, _Job] = {}
        self._kept: OrderedDict[Key, tuple[Driver, Uplink]] = OrderedDict()
        self._kept_bytes = 0
        self._contexts: OrderedDict[tuple[str, str], list[Any]] = OrderedDict()
        self._told: dict[str, float] = {}

    async def decode(self, wanted: str, uplinks: Sequence[Uplink], decoded: Callable[[Uplink, Uplink], None]) -> None:
        """Decode uplinks, with the driver that `[flow] driver` wants; returns when all are.

        Args:
            decoded: called for each, soon after it is known what its driver says: the uplink, and with that in it.
                The uplink itself where it has no payload, has one decoded already, or no driver.

        Cancellation: some were not decoded.
        """
        waiting: list[_Job] = []
        for uplink in uplinks:
            driver = self.catalogue.of(wanted, uplink) if is_encoded(uplink) else None
            if driver is None:
                decoded(uplink, uplink)
            else:
                waiting.append(_Job(driver, uplink))
        while waiting:
            waiting = await self._decode(waiting, decoded)

    async def _decode(self, wanted: list[_Job], decoded: Callable[[Uplink, Uplink], None]) -> list[_Job]:
        """Decode what nobody else does, and wait for the rest; returns what others gave up meanwhile."""
        own: list[_Job] = []
        others: list[_Job] = []
        for job in wanted:
            key = (job.uplink.seq, id(job.driver))
            if (kept := self._kept.get(key)) is not None:
                decoded(job.uplink, kept[1])
            elif (under_way := self._under_way.get(key)) is not None:
                others.append(under_way)
            else:
                self._under_way[key] = job
                own.append(job)
        try:
            if own:
                await self._run(own, lambda job: self._finish(job, decoded))
        finally:
            for job in own:
                self._under_way.pop((job.uplink.seq, id(job.driver)), None)
                job.done.set()
        for job in others:
            await job.done.wait()
            if job.decoded is not None:
                decoded(job.uplink, job.decoded)
        return [_Job(job.driver, job.uplink) for job in others if job.decoded is None]

    def _finish(self, job: _Job, decoded: Callable[[Uplink, Uplink], None]) -> None:
        """It is known what the driver says of an uplink: everybody who waits for it gets it, and later ones do."""
        assert job.decoded is not None
        self._kept[job.uplink.seq, id(job.driver)] = (job.driver, job.decoded)
        self._kept_bytes += len(job.decoded.body)
        while len(self._kept) > MAX_KEPT or (self._kept_bytes > MAX_KEPT_BYTES and len(self._kept) > 1):
            _, (_, oldest) = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest.body)
        decoded(job.uplink, job.decoded)
        job.done.set()

    async def _run(self, jobs: Sequence[_Job], ended: Callable[[_Job], None]) -> None:
        """Run the scripts. A driver with a context gets one uplink of a device at a time, in order."""
        while jobs:
            seen: set[tuple[str, str]] = set()
            now: list[_Job] = []
            later: list[_Job] = []
            for job in jobs:
                whose = (job.driver.id, job.uplink.lane)
                (later if whose in seen else now).append(job)
                if job.driver.uses_context:
                    seen.add(whose)
            await self._run_at_once(now, ended)
            jobs = later

    async def _run_at_once(self, jobs: Sequence[_Job], ended: Callable[[_Job], None]) -> None:
        with_points: list[tuple[_Job, dict[str, Any]]] = []

        def has_payload(index: int, outcome: Outcome) -> None:
            job = jobs[index]
            self._notice(job, outcome)
            more = _said(job, outcome)
            if "payload" in more and "extractPoints" in job.driver.functions:
                with_points.append((job, more))
            else:
                job.decoded = job.uplink.with_fields(more)
                ended(job)

        def has_points(index: int, outcome: Outcome) -> None:
            job, more = with_points[index]
            self._notice(job, outcome)
            points = _points(outcome)
            job.decoded = job.uplink.with_fields(more | {"points": points} if points else more)
            ended(job)

        await self._workers.run([self._call(job, "decodeUplink", _given(job.uplink)) for job in jobs], has_payload)
        calls = [
            self._call(job, "extractPoints", {"message": more["payload"], **_circumstances(job.uplink)})
            for job, more in with_points
        ]
        await self._workers.run(calls, has_points)

    def _call(self, job: _Job, operation: Operation, given: Mapping[str, Any]) -> tuple[str, str, Call]:
        driver, lane = job.driver, job.uplink.lane
        context = self._contexts.get((driver.id, lane), []) if driver.uses_context else None
        source = driver.source(operation) or ""
        return driver.id, lane, Call(source, driver.signature, operation, given, context)

    def _notice(self, job: _Job, outcome: Outcome) -> None:
        """Keep what the device's next call gets, show the console, and tell failures now and then."""
        driver, lane = job.driver, job.uplink.lane
        if driver.uses_context and outcome.context is not None:
            self._contexts[driver.id, lane] = outcome.context
            self._contexts.move_to_end((driver.id, lane))
            while len(self._contexts) > MAX_CONTEXTS:
                self._contexts.popitem(last=False)
        for line in outcome.logs:
            logger.debug("%s: console for %s: %s", driver.id, lane, line)
        if outcome.failure is not None and self._told.get(driver.id, float("-inf")) < trio.current_time() - TELL_S:
            self._told[driver.id] = trio.current_time()
            text = f"{_place(driver, outcome.failure)}: {outcome.failure.text} (uplink {job.uplink.seq} of {lane})"
            self._tell(Event("driver", f"{text}; it goes on without its payload decoded", level=logging.WARNING))


def is_encoded(uplink: Uplink) -> bool:
    """Whether it has a payload that nobody has decoded yet."""
    return uplink.kind == UPLINK and bool(uplink.fields.get("payload_hex")) and "payload" not in uplink.fields


def _said(job: _Job, outcome: Outcome) -> dict[str, Any]:
    """What a driver says of an uplink, as fields of its report."""
    if outcome.failure is not None:
        if outcome.failure.kind == "stopped":
            return {"payloadDecodedError": {"code": STOPPED, "message": outcome.failure.text}}
        return _failed(outcome.failure.text)
    payload = outcome.result["data"]
    try:
        orjson.dumps(payload)
    except TypeError as error:
        return _failed(f"the result is no JSON: {error}")
    config = job.uplink.fields.get("DriverCfg")
    return {
        "DriverCfg": {**(config if isinstance(config, dict) else {}), "id": job.driver.id},
        "payload": payload,
    }


def _failed(text: str) -> dict[str, Any]:
    return {"payloadDecodedError": {"code": FAILED, "message": f"driver internal error: {text}"}}


def _points(outcome: Outcome) -> dict[str, Any]:
    """Points as a message has them; {} where the driver gave none that can be read."""
    if outcome.failure is not None or not isinstance(outcome.result, dict):
        return {}
    given = outcome.result.get("data")
    points = {name: _point(point) for name, point in given.items()} if isinstance(given, dict) else {}
    return {name: point for name, point in points.items() if point is not None}


def _point(given: Any) -> dict[str, Any] | None:
    """A point; drivers give its record, or a list of them with their times, the newest last, or the bare value."""
    if not isinstance(given, dict):
        return None if given is None else {"type": _type(given), "record": given}
    records = given.get("records")
    newest = records[-1] if isinstance(records, list) and records and isinstance(records[-1], dict) else given
    value = next((newest[name] for name in ("record", "value", "coordinates") if newest.get(name) is not None), None)
    if value is None:
        return None
    unit = {"unitId": given["unitId"]} if isinstance(given.get("unitId"), str) else {}
    return {**unit, "type": given.get("type") or _type(value), "record": value}


def _type(value: Any) -> str:
    """A point's type; numbers are all doubles, since JavaScript knows no others."""
    match value:
        case bool():
            return "boolean"
        case str():
            return "string"
        case _:
            return "double"


def _given(uplink: Uplink) -> dict[str, Any]:
    fields = uplink.fields
    port = fields.get("FPort")
    return {
        "bytes": list(bytes.fromhex(fields["payload_hex"])),
        "fPort": int(port) if isinstance(port, str) and port.isdigit() else port,
        "devEui": uplink.lane,
        **_circumstances(uplink),
    }


def _circumstances(uplink: Uplink) -> dict[str, Any]:
    """When it was received, which becomes a Date, and from which device."""
    received = uplink.fields.get("Time")
    try:
        datetime.fromisoformat(received)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        received = datetime.fromtimestamp(uplink.received_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return {"recvTime": received, "thing": {"key": f"lora:{uplink.lane.lower()}"}}


def _place(driver: Driver, failure: Failure) -> str:
    return f"{driver.path}:{failure.place[0]}:{failure.place[1]}" if failure.place else str(driver.path)
