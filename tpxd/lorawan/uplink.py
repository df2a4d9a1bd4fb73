"""What the spool stores and a connection sends: one report, as the LRC sent it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import orjson


class AnyReport(Protocol):
    """What can be asked of a report whether it is stored already (`Uplink`) or not (`lorawan.reports.Report`)."""

    kind: str
    lane: str

    @property
    def document(self) -> dict[str, Any]:
        """The parsed body, root key included."""

    @property
    def fields(self) -> dict[str, Any]:
        """What stands inside the root key."""


@dataclass(slots=True, eq=False)
class Uplink:
    """One stored report of any type.

    Not frozen: one is made for each report on the hot path, and a frozen one costs four times as much to make.
    Nobody changes one.

    Attributes:
        seq: position in the journal; dense and ascending.
        received_ms: when intake stored it, in milliseconds since the epoch, UTC.
        kind: the root key, such as `DevEUI_uplink`; "" for a message of a far end, handed on as it came, which may be
            any JSON.
        lane: the DevEUI in upper case, or a base station's LrrID: deliveries keep order within one lane.
        lrn_infos: the tunnel's opaque `LrnInfos`, "" when the sender gave none.
        body: the report as JSON, byte for byte as it came (XML was converted at intake).
        recipient: the one connection that it is for, such as the answer to a downlink; None: it is for all.
        handed_on: another connection delivered it and handed it on to its recipient.
        stored: the report as it is stored, where this one has more fields; see `with_fields`.
    """

    seq: int
    received_ms: int
    kind: str
    lane: str
    lrn_infos: str
    body: bytes
    _document: dict[str, Any] | None = field(default=None, repr=False)
    recipient: str | None = None
    handed_on: bool = False
    stored: Uplink | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The parsed body, root key included; parsed once and shared, so read only. {} for JSON that is no object."""
        if self._document is None:
            parsed = orjson.loads(self.body)
            self._document = parsed if type(parsed) is dict else {}
        return self._document

    @property
    def as_stored(self) -> Uplink:
        """The report as it is stored."""
        return self.stored or self

    def with_fields(self, more: dict[str, Any]) -> Uplink:
        """This report with more fields inside its root key, in place of those that it has of these names."""
        document = {self.kind: {**self.fields, **more}}
        return replace(self, body=orjson.dumps(document), _document=document, stored=self.as_stored)

    def handed_on_to(self, connection: str) -> Uplink:
        """This report, for one connection alone and not stored yet.

        What was a message of a far end stays one, however often it is handed on.
        """
        return Uplink(
            0,
            self.received_ms,
            self.kind,
            self.lane,
            self.lrn_infos,
            self.body,
            self._document,
            connection,
            self.handed_on or self.recipient is None,
        )

    @property
    def fields(self) -> dict[str, Any]:
        """What stands inside the root key; everything, where there is none."""
        if not self.kind:
            return self.document
        inner: dict[str, Any] = self.document[self.kind]
        return inner
