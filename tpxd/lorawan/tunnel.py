"""The tunnel's query string as an LRC makes it, for servers that only know the LRC's direct connection.

Source: LRC tunnel interface, uplink; ThingPark X IoT Flow, HTTP connector, "Basic HTTP compliance" and "Tunnel
Interface Authentication Key". Which AS_ID the original sends is not documented: `downlinkAsId` is the one that a
connection has.
"""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

from tpxd.lorawan.reports import LOCATION, field_text
from tpxd.lorawan.token import uplink_token
from tpxd.lorawan.uplink import Uplink


def tunnel_query(uplink: Uplink, *, as_id: str, key: str | None, now: datetime | None = None) -> str:
    """The query string of one report: `LrnDevEui`, `LrnFPort`, `LrnInfos`, and with a key `AS_ID`, `Time`, `Token`.

    `LrnInfos` is what the LRC sent, where it sent one.

    Args:
        key: the Tunnel Interface Authentication Key; None leaves the report unsigned.
        now: the time to sign with; default now.
    """
    fields = uplink.fields
    dev_eui = field_text(fields, "DevEUI") or uplink.lane
    pairs = [
        ("LrnDevEui", dev_eui.lower() if uplink.kind == LOCATION else dev_eui),
        ("LrnFPort", field_text(fields, "FPort") or "0"),
        ("LrnInfos", uplink.lrn_infos or f"{as_id or 'TPXD'}-1-{uplink.seq}"),
    ]
    if key is not None:
        moment = (now or datetime.now(UTC)).isoformat(timespec="milliseconds")
        pairs += [("AS_ID", as_id), ("Time", moment)]
        pairs.append(("Token", uplink_token(uplink.kind, fields, pairs, key)))
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)
