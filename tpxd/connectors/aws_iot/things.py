"""Which devices the registry of AWS IoT has, and how the others get there: each is asked for or registered once.

What the registry said is kept on disk, one key per device. A device that it has is never asked for again; one that it
has not, and that we must not register, is asked for again after an hour.

The registry is no part of the way of an uplink. Where it does not register a device, because it cannot be reached,
asks for patience, or a policy forbids it, the device's uplinks go nevertheless, health and an event say so, and after a
rest the next uplink of such a device tries again. Where createDevices is false, a device of which nothing is known yet
waits, since nobody knows whether its uplinks are wanted.

Source: ThingPark X IoT Flow, "About connections" (createDevices), "AWS IoT connector".
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import trio

from tpxd.connector import Context
from tpxd.connectors.aws_iot.registry import Registry
from tpxd.errors import AuthenticationFailed, LinkLost, Refused, SpoolUnavailable, Throttled, TransportError
from tpxd.events import Event

PARALLEL: Final = 4
"""Devices that are asked for at once: AWS allows ten of the dearest actions a second."""

ABSENT_S: Final = 3_600.0
REST_S: Final = 30.0
"""After the registry could not be reached, nothing is asked for so long."""

REFUSED_REST_S: Final = 300.0
"""The same after it refused to register a device, which takes a person to change."""

PRESENT: Final = "present"
ABSENT: Final = "absent"


@dataclass(frozen=True, slots=True)
class ThingRules:
    """What a connection's file says about things.

    Attributes:
        registry: what tells this registry from others.
        create: register devices that are not there; else they are left out.
        create_types: make the type when it is missing.
        certificate_id: ARN of what each registered thing is attached to, if anything.
    """

    registry: str
    type_name: str
    create: bool = True
    create_types: bool = True
    certificate_id: str | None = None


@dataclass(slots=True)
class Introduction:
    """What became of devices; the others may be sent.

    Attributes:
        absent: not in the registry, and not to be registered.
        held: nothing is known; `error` says why.
    """

    absent: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    error: TransportError | None = None


class Things:
    """The devices of one connection, as far as the registry is concerned."""

    def __init__(
        self,
        rules: ThingRules,
        context: Context,
        open_registry: Callable[[], AbstractAsyncContextManager[Registry]],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._context = context
        self._open_registry = open_registry
        self._wall = wall
        # what was kept by other rules, or for another registry, says nothing
        said = repr((rules.registry, rules.type_name, rules.create, rules.certificate_id))
        self._rules_digest = sha256(said.encode()).hexdigest()[:16]
        self._notes: dict[str, str] = {}
        self._rest: tuple[float, TransportError] | None = None

    def known(self, dev_eui: str) -> bool:
        """Whether the registry is known to have this device."""
        return self._note(f"thing/{dev_eui}") == PRESENT

    async def introduce(self, dev_euis: Sequence[str]) -> Introduction:
        """Find out about devices that are not known, and register those that are to be registered.

        Cancellation: some may be registered without our knowing, which is found out at their next uplink.
        """
        absent = {dev_eui for dev_eui in dev_euis if self._absent_s(dev_eui) < ABSENT_S}
        asked = [dev_eui for dev_eui in dev_euis if dev_eui not in absent]
        error = await self._ask(asked) if asked else None
        absent |= {dev_eui for dev_eui in asked if self._absent_s(dev_eui) < ABSENT_S}
        left = {dev_eui for dev_eui in asked if not self.known(dev_eui)} - absent
        if error is None or not left:
            return Introduction(absent)
        if self._rules.create:
            return Introduction()
        if not _is_silence(error):
            return Introduction(absent, left, error)
        stale = {dev_eui for dev_eui in left if self._absent_s(dev_eui) < float("inf")}
        if left == stale:
            return Introduction(absent | stale)
        if isinstance(error, LinkLost):
            # the link for uplinks is well, and none of them is to blame
            error = Refused(f"{error.message}; it must say which devices are registered", hint=error.hint)
        return Introduction(absent | stale, left - stale, error)

    async def _ask(self, dev_euis: Sequence[str]) -> TransportError | None:
        """Ask for all of them; what keeps some from being decided."""
        if self._rest is not None and trio.current_time() < self._rest[0]:
            return self._rest[1]
        failures: list[TransportError] = []
        try:
            async with self._open_registry() as registry:
                if self._rules.create and self._rules.create_types and self._note("type") != PRESENT:
                    await self._try_type(registry)
                await self._ask_all(registry, deque(dev_euis), failures)
        except TransportError as error:
            failures.append(error)
        failure = failures[0] if failures else None
        self._learn(failure)
        return failure

    async def _ask_all(self, registry: Registry, waiting: deque[str], failures: list[TransportError]) -> None:
        """Ask side by side, until one question fails."""

        async def work() -> None:
            while waiting and not failures:
                dev_eui = waiting.popleft()
                try:
                    await (self._register if self._rules.create else self._look_up)(registry, dev_eui)
                except TransportError as error:
                    failures.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(min(PARALLEL, len(waiting))):
                nursery.start_soon(work)

    async def _register(self, registry: Registry, dev_eui: str) -> None:
        if not await registry.create_thing(dev_eui, self._rules.type_name):
            await self._make_type(registry)
            if not await registry.create_thing(dev_eui, self._rules.type_name):
                raise Refused(f"the registry of AWS IoT does not find the thing type {self._rules.type_name}")
        if self._rules.certificate_id is not None:
            await registry.attach_principal(dev_eui, self._rules.certificate_id)
        await self._keep(f"thing/{dev_eui}", PRESENT)

    async def _look_up(self, registry: Registry, dev_eui: str) -> None:
        if await registry.describe_thing(dev_eui):
            await self._keep(f"thing/{dev_eui}", PRESENT)
            return
        if self._absent_s(dev_eui) == float("inf"):
            id = self._context.connection_id
            text = f"{id}: the registry of AWS IoT does not have {dev_eui}, and createDevices = false: left out"
            self._context.tell(Event("device", text, id, logging.WARNING, more={"DevEUI": dev_eui}))
        await self._keep(f"thing/{dev_eui}", f"{ABSENT} {self._wall():.0f}")

    async def _try_type(self, registry: Registry) -> None:
        """Make the type before its first thing. Who may not do that may still find it there."""
        try:
            await self._make_type(registry)
        except AuthenticationFailed as error:
            self._context.log.info("%s: %s", self._context.connection_id, error)

    async def _make_type(self, registry: Registry) -> None:
        if not self._rules.create_types:
            raise Refused(
                f"the registry of AWS IoT has no thing type {self._rules.type_name}",
                hint="create it, or set createDeviceTypes = true",
            )
        await registry.create_thing_type(self._rules.type_name)
        await self._keep("type", PRESENT)

    def _learn(self, error: TransportError | None) -> None:
        """Rest after a failure, and tell of one that keeps nobody waiting; to be asked for patience is none."""
        if error is None:
            self._rest = None
            self._context.troubled(None)
            return
        self._rest = trio.current_time() + _rest_s(error), error
        if self._rules.create and not isinstance(error, Throttled):
            text = f"new devices are not registered, their uplinks go: {error.message}"
            self._context.troubled(TransportError(text, hint=error.hint))

    def _absent_s(self, dev_eui: str) -> float:
        """How long ago the registry said that it does not have this device; for ever when it never did."""
        word, _, said_at = self._note(f"thing/{dev_eui}").partition(" ")
        return abs(self._wall() - float(said_at)) if word == ABSENT else float("inf")

    def _note(self, subject: str) -> str:
        note = self._notes.get(subject)
        if note is None:
            digest, _, kept = (self._context.memory.recall(self._key(subject)) or "").partition(" ")
            note = self._notes[subject] = kept if digest == self._rules_digest else ""
        return note

    async def _keep(self, subject: str, note: str) -> None:
        self._notes[subject] = note
        try:
            await self._context.memory.remember(self._key(subject), f"{self._rules_digest} {note}")
        except SpoolUnavailable as error:
            self._context.log.warning(
                "%s: what the registry of AWS IoT said cannot be kept, and will be asked for again: %s",
                self._context.connection_id, error,
            )  # fmt: skip

    def _key(self, subject: str) -> str:
        return f"connector/{self._context.connection_id}/{subject}"


def _is_silence(error: TransportError) -> bool:
    """Whether the registry says nothing now, rather than no."""
    return isinstance(error, Throttled) or (isinstance(error, LinkLost) and not isinstance(error, Refused))


def _rest_s(error: TransportError) -> float:
    """How long nothing is asked for after this."""
    if isinstance(error, Throttled):
        return error.retry_after_s
    return REST_S if _is_silence(error) else REFUSED_REST_S
