"""`tpxd trace`."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import quote

import orjson
import typer
from rich.table import Table
from rich.text import Text

from tpxd.cli.daemon_client import Declined, ask, document_of
from tpxd.cli.options import DEFAULT_CONFIG, Config, Json
from tpxd.cli.render import screen, table_of
from tpxd.log import visible
from tpxd.lorawan.on_air import in_words

PAYLOAD_WIDTH: Final = 24


def trace(
    dev_eui: Annotated[str, typer.Argument(metavar="DEVEUI", help="16 hex digits, in any notation.")],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    config: Config = DEFAULT_CONFIG,
    json: Json = False,
) -> None:
    """Show the newest reports and downlinks of a device, and what became of each.

    Reports: what became of them on each connection, and why; `[spool] retention` says how long delivered ones are kept.
    Of downlinks, the newest ten thousand of all devices are.
    """
    response = ask(config, "GET", f"/trace/{quote(dev_eui, safe='')}?limit={limit}")
    if response.status_code != 200:
        raise Declined(str(document_of(response).get("message")))
    entries: list[dict[str, Any]] = response.json()
    if json:
        print(orjson.dumps(entries).decode())
        return
    if not entries:
        print("nothing is kept of this device")
        return
    console = screen()
    console.print(trace_table(entries, folded=console.is_terminal))


def trace_table(entries: list[dict[str, Any]], *, folded: bool) -> Table:
    """One row per report and downlink; folded, a long payload leaves room for what became of it."""
    table = table_of("RECEIVED", "TYPE", "FPORT", "FCNT")
    table.add_column("PAYLOAD", overflow="fold", max_width=PAYLOAD_WIDTH if folded else None)
    table.add_column("WHAT BECAME OF IT", overflow="fold")
    for entry in entries:
        table.add_row(*(Text(visible(cell)) for cell in _cells(entry)))
    return table


def _cells(entry: dict[str, Any]) -> list[str]:
    if entry["type"] == "DevEUI_downlink":
        counter = entry.get("FCntDn", "-")
        became = entry["state"] + (f": {entry['cause']}" if entry["cause"] else "")
        if entry["doubts"]:
            became += f"; written {entry['doubts']} times without an answer"
        if entry["transmitted"]:
            became += f"; {in_words(entry['transmitted'])}"
        fields = entry
    else:
        fields = entry["fields"]
        counter = fields.get("FCntUp", fields.get("FCntDn", "-"))
        why = {id: f" ({reason})" for id, reason in entry["why"].items()}
        fates = [f"{id} {word}{why.get(id, '')}" for id, word in entry["connections"].items()]
        became = ", ".join(fates) or "no connection"
        became += f": {fields['DownlinkRejectionCause']}" if "DownlinkRejectionCause" in fields else ""
        became += f": {entry['onAir']}" if "onAir" in entry else ""
    shown = (fields.get("FPort"), counter, fields.get("payload_hex"))
    return [entry["received"], entry["type"], *("-" if one in (None, "") else str(one) for one in shown), became]
