"""What of an uplink goes out over a connection, and in which form: validity, flow and format. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import orjson

from tpxd.codecs.decoding import is_encoded
from tpxd.config.connection_file import ConnectorConfig
from tpxd.config.flow import Flow
from tpxd.connection.chains import Chains
from tpxd.errors import TooSlow
from tpxd.lorawan.reports import ABOUT_DOWNLINKS
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import Fate, Filtered, Rejected, Settled
from tpxd.timing import ClockWatch


def emitted_s(uplink: Uplink) -> float:
    """When the uplink's age begins: at its own `Time` when that parses and is not later than the arrival, else then."""
    arrived = uplink.received_ms / 1000
    text = uplink.fields.get("Time")
    if isinstance(text, str):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return arrived
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return min(moment.timestamp(), arrived)
    return arrived


Format = Literal["whole", "fields", "payload"]


def format_of(config: ConnectorConfig) -> Format:
    """Which of the three documented forms a file asks for; `sendMetadata` wins over `sendRawDecodedFormat`."""
    if config.sendMetadata:
        return "fields"
    return "payload" if config.sendRawDecodedFormat else "whole"


@dataclass(slots=True)
class Outbound:
    """Decides for each uplink of one connection: filtered, expired, or the body to send.

    Not frozen: the address of a connection at work may become known, or known to be another's.

    Attributes:
        flow: which uplinks the connection takes.
        form: `whole` is the report as it came; `fields` is the older format, uplinks only and without their root;
            `payload` is the decoded payload alone where there is one.
        validity_s: an uplink older than this is not sent; None sends all.
        connection: the connection's id; reports that are for another one alone are not sent.
        chains: whether it takes only what is handed on to it.
        decodes: whether payloads are decoded before that.
        own: whether a DevEUI_downlink_Sent is about a downlink of this connection.
        url_field: what every report gets at the end of its fields: `,"downlinkUrl":"http://…"`; b"" for nothing.
    """

    flow: Flow
    form: Format
    validity_s: float | None
    clock: ClockWatch
    connection: str = ""
    chains: Chains = field(default_factory=Chains)
    url_field: bytes = b""
    own: Callable[[Uplink], bool] = lambda report: False
    decodes: bool = False

    def decide_at_once(self, uplink: Uplink) -> Settled | bytes | None:
        """As `decide`; None where the uplink's payload is to be decoded before that can be said."""
        if not self.decodes or not is_encoded(uplink) or self._is_about_its_own(uplink):
            return self.decide(uplink)
        return None if self.flow.reads_payloads else self._reason_to_keep(uplink)

    def decide(self, uplink: Uplink) -> Settled | bytes:
        """The body to send, or why the uplink is not sent."""
        if self._is_about_its_own(uplink):
            return uplink.body  # what became of its own downlink, or a message: whatever its flow, form and age
        reason = self._reason_to_keep(uplink)
        return self._body(uplink) if reason is None else reason

    def _reason_to_keep(self, uplink: Uplink) -> Settled | None:
        try:
            if (unwanted := self._unwanted(uplink)) is not None:
                return unwanted
        except TooSlow as error:
            return Rejected(f"the flow: {error}", error.hint)
        if self.form == "fields" and uplink.kind != "DevEUI_uplink":
            return Filtered.FORMAT
        if self.is_too_old(uplink):
            return Fate.EXPIRED
        return None

    @property
    def takes_all(self) -> bool:
        """Whether every report in the queue is one to send, unless it is for another connection alone."""
        return not (self.flow.matchers or self.form == "fields" or self.chains.names(self.connection))

    def handed_on(self, delivered: Iterable[Uplink]) -> list[tuple[int, Uplink]]:
        """See `Chains.handed_on`."""
        return self.chains.handed_on(self.connection, delivered)

    def is_too_old(self, uplink: Uplink) -> bool:
        """Whether an uplink that is to be sent has outlived its validity, perhaps since it was decided about."""
        if self.validity_s is None or self._is_about_its_own(uplink):
            return False
        now = self.clock.now()
        return now is not None and now - emitted_s(uplink) > self.validity_s

    def _is_about_its_own(self, uplink: Uplink) -> bool:
        if uplink.recipient is not None:
            return uplink.recipient == self.connection and not uplink.handed_on
        return uplink.kind in ABOUT_DOWNLINKS and self.own(uplink)

    def _unwanted(self, uplink: Uplink) -> Filtered | None:
        if uplink.recipient is not None:
            if uplink.recipient != self.connection:
                return Filtered.RECIPIENT
            return Filtered.TWICE if self.flow.matchers and self.flow.takes(uplink) else None
        if self.flow.matchers:
            return None if self.flow.takes(uplink) else Filtered.FLOW
        return Filtered.CHAIN if self.chains.names(self.connection) else None

    def _body(self, uplink: Uplink) -> bytes:
        if self.form == "whole":
            return self._with_url(uplink)
        if self.form == "fields":
            fields = orjson.dumps(uplink.fields)
            return fields if "downlinkUrl" in uplink.fields else self._inserted(fields, len(fields) - 1)
        payload = uplink.fields.get("payload")
        return orjson.dumps(payload) if isinstance(payload, dict) else self._with_url(uplink)

    def _with_url(self, uplink: Uplink) -> bytes:
        """The report with its downlinkUrl, otherwise byte for byte as it came; one that has one already keeps it.

        The last brace closes the report, and the one before it the object inside the root.
        """
        body = uplink.body
        if not self.url_field or (b'"downlinkUrl"' in body and "downlinkUrl" in uplink.fields):
            return body
        return self._inserted(body, body.rindex(b"}", 0, body.rindex(b"}")))

    def _inserted(self, body: bytes, end: int) -> bytes:
        """The body with the address in front of the brace at `end`."""
        field = self.url_field
        if body[end - 1] in b"{ \t\r\n" and body[:end].rstrip().endswith(b"{"):
            field = field[1:]  # nothing stands before it
        return b"%b%b%b" % (body[:end], field, body[end:])


def url_field(url: str | None) -> bytes:
    """See `Outbound.url_field`."""
    return b"" if url is None else b',"downlinkUrl":' + orjson.dumps(url)
