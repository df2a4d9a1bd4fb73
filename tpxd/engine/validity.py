"""When an uplink's age begins."""

from __future__ import annotations

from datetime import UTC, datetime

from tpxd.lorawan.uplink import Uplink


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
