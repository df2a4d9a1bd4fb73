"""What of an uplink goes out over a connection, and in which form: validity, flow and format. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import orjson

from tpxd.config import ConnectorConfig
from tpxd.engine.validity import ClockWatch, emitted_s
from tpxd.flow import Flow
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import Verdict

Format = Literal["whole", "fields", "payload"]


def format_of(config: ConnectorConfig) -> Format:
    """Which of the three documented forms a file asks for; `sendMetadata` wins over `sendRawDecodedFormat`."""
    if config.sendMetadata:
        return "fields"
    return "payload" if config.sendRawDecodedFormat else "whole"


@dataclass(frozen=True, slots=True)
class Outbound:
    """Decides for each uplink of one connection: filtered, expired, or the body to send.

    Attributes:
        flow: which uplinks the connection takes.
        form: `whole` is the report as it came; `fields` is the older format, uplinks only and without their root;
            `payload` is the decoded payload alone where there is one.
        validity_s: an uplink older than this is not sent; None sends all.
    """

    flow: Flow
    form: Format
    validity_s: float | None
    clock: ClockWatch

    def decide(self, uplink: Uplink) -> Verdict | bytes:
        """The body to send, or why the uplink is not sent."""
        if self.flow.matchers and not self.flow.takes(uplink):
            return Verdict.FILTERED
        if self.form == "fields" and uplink.kind != "DevEUI_uplink":
            return Verdict.FILTERED
        if self.validity_s is not None:
            now = self.clock.now()
            if now is not None and now - emitted_s(uplink) > self.validity_s:
                return Verdict.EXPIRED
        if self.form == "whole":
            return uplink.body
        if self.form == "fields":
            return orjson.dumps(uplink.fields)
        payload = uplink.fields.get("payload")
        return orjson.dumps(payload) if isinstance(payload, dict) else uplink.body
