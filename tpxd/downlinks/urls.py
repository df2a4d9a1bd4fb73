"""The address at which each connection takes downlinks over HTTP: made once, kept, and known to nobody else.

Source: ThingPark X IoT Flow, `downlinkUrl` and `downlinkUuid`.
"""

from __future__ import annotations

import logging
import secrets
import uuid
from hashlib import blake2b
from typing import Final

from tpxd.config.connection_file import ConnectorConfig
from tpxd.config.secret import plain
from tpxd.connector import Memory
from tpxd.downlinks.doors import Door
from tpxd.errors import SpoolUnavailable
from tpxd.events import Event, Tell

PATH: Final = "/iot-flow/downlinkMessages/"


class DownlinkUrls:
    """Addresses by connection and back.

    Args:
        public_url: how the far ends reach intake, no slash at the end; None: no uplink carries an address.
    """

    def __init__(self, memory: Memory, public_url: str | None, tell: Tell) -> None:
        self._memory = memory
        self._public_url = public_url
        self._tell = tell
        self._key = secrets.token_bytes(16)
        self._uuids: dict[str, str] = {}
        self._doors: dict[bytes, Door] = {}
        self._faults: dict[str, str] = {}

    async def open(self, connection: str, configuration: ConnectorConfig) -> bool:
        """Give a connection its address, or change or take it away, as its file says; a new one is on disk before.

        Returns:
            False when it cannot have the address now, which is told once; to be called again then.
        """
        wanted = await self._uuid(connection, configuration) if configuration.downlinkEnabled else None
        before = self._uuids.get(connection)
        if before is not None and before != wanted:
            self.close(connection)
        if wanted is None:
            return not configuration.downlinkEnabled
        digest, door = self._digest(wanted), Door(connection, configuration.downlinkPort)
        other = self._doors.setdefault(digest, door)
        if other.connection == connection:
            self._doors[digest] = door
            self._uuids[connection] = wanted
            self._faults.pop(connection, None)
        else:
            self._tell_fault("file", connection, f"downlinkUuid is that of {other.connection}, which keeps it")
        return other.connection == connection

    def close(self, connection: str) -> None:
        """The connection takes no downlinks over HTTP any more."""
        self._faults.pop(connection, None)
        known = self._uuids.pop(connection, None)
        if known is not None:
            del self._doors[self._digest(known)]

    def url(self, connection: str) -> str | None:
        """The whole address, as uplinks carry it; None where there is none."""
        known = self._uuids.get(connection)
        return None if known is None or self._public_url is None else f"{self._public_url}{PATH}{known}"

    def find(self, given: str) -> Door | None:
        """The door of an address; how long it takes tells nothing about how much of a guess is right."""
        return self._doors.get(self._digest(given))

    def _digest(self, text: str) -> bytes:
        return blake2b(text.encode(), digest_size=16, key=self._key).digest()

    async def _uuid(self, connection: str, configuration: ConnectorConfig) -> str | None:
        if (given := plain(configuration.downlinkUuid)) is not None:
            return given
        key = f"downlinkUuid/{connection}"
        known = self._memory.recall(key)
        if known is None:
            known = str(uuid.uuid4())
            try:
                await self._memory.remember(key, known)
            except SpoolUnavailable as error:
                self._tell_fault("spool", connection, f"uplinks carry no downlinkUrl until it can be stored: {error}")
                return None
        return known

    def _tell_fault(self, kind: str, connection: str, fault: str) -> None:
        if self._faults.get(connection) != fault:
            self._faults[connection] = fault
            self._tell(Event(kind, f"{connection}: {fault}", connection, logging.WARNING))
