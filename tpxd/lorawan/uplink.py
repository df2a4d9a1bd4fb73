"""What the spool stores and a connection sends: one report, as the LRC sent it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

ADDRESSED = "tpxd:to="
"""Begins the `lrn_infos` of what tpxd itself says to one connection."""


def addressed_to(connection: str) -> str:
    """The `lrn_infos` of a report that is for one connection alone."""
    return ADDRESSED + connection


@dataclass(slots=True, eq=False)
class Uplink:
    """One stored report of any type.

    Not frozen: one is made for each report on the hot path, and a frozen one costs four times as much to make.
    Nobody changes one.

    Attributes:
        seq: position in the journal; dense and ascending.
        received_ms: when intake stored it, in milliseconds since the epoch, UTC.
        kind: the root key, such as `DevEUI_uplink`.
        lane: the DevEUI in upper case, or a base station's LrrID: deliveries keep order within one lane.
        lrn_infos: the tunnel's opaque `LrnInfos`, "" when the sender gave none.
        body: the report as JSON, byte for byte as it came (XML was converted at intake).
    """

    seq: int
    received_ms: int
    kind: str
    lane: str
    lrn_infos: str
    body: bytes
    _document: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def document(self) -> dict[str, Any]:
        """The parsed body, root key included; parsed once and shared, so read only."""
        if self._document is None:
            self._document = orjson.loads(self.body)
        return self._document

    @property
    def recipient(self) -> str | None:
        """The one connection that this report is for, such as the answer to a command; None: it is for all."""
        return self.lrn_infos.removeprefix(ADDRESSED) if self.lrn_infos.startswith(ADDRESSED) else None

    @property
    def fields(self) -> dict[str, Any]:
        """What stands inside the root key."""
        inner: dict[str, Any] = self.document[self.kind]
        return inner
