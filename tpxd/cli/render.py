"""Tables for people. Colours, and lines folded to the screen's width, on a terminal only."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tpxd.log import visible
from tpxd.lorawan.durations import format_duration

UNFOLDED: Final = 1_000
COLOURS: Final = {"OPENED": "green", "DEACTIVATED": "dim", "OPENING": "yellow", "AUTHENTICATING": "yellow"}


def screen() -> Console:
    """Standard output."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=UNFOLDED)


def show_health(health: dict[str, Any]) -> None:
    """The document of `GET /health`: the table of connections, then kept queues and what needs a person, by lines."""
    console = screen()
    connections = health["connections"]
    if connections:
        console.print(connections_table(connections))
    else:
        console.print("no connections: put a file into connections.d, or see: tpxd demo")
    for line in (*kept_queues(health), *concerns(health)):
        console.print(Text(visible(line)), soft_wrap=True)


def connections_table(connections: dict[str, dict[str, Any]]) -> Table:
    """One row per connection, from its health document."""
    table = table_of("ID", "CONNECTOR", "STATE")
    for title in ("DELIVERED", "WAITING", "REJECTED", "OLDEST"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("LAST ERROR", overflow="fold")
    for id, document in connections.items():
        uplinks = document["uplinks"]
        state = document["state"]
        oldest = document["oldestWaitingSeconds"]
        error = document["lastError"]
        table.add_row(
            Text(id),
            Text(document["connectorId"] or "-"),
            Text(state, style=COLOURS.get(state, "red") if document["healthy"] or state != "OPENED" else "yellow"),
            str(uplinks["delivered"]),
            str(uplinks["waiting"]),
            Text(str(uplinks["rejected"]), style="red" if uplinks["rejected"] else ""),
            "-" if oldest is None else format_duration(oldest),
            Text(visible(error["message"]) if error else "-"),
        )
    return table


def kept_queues(health: dict[str, Any]) -> list[str]:
    """The queues whose file is gone, which go on when it comes back; an older daemon tells of none."""
    return [
        f"{id}: its file is gone; its queue, in which {kept['waiting']} uplinks wait, is kept until {kept['until']}"
        for id, kept in health.get("keptQueues", {}).items()
    ]


def concerns(health: dict[str, Any]) -> list[str]:
    """What needs a person: errors in files with their places, and the parts that are not healthy."""
    errors = (document["file"]["error"] for document in health["connections"].values())
    parts = [f"{name}: {health[name]['reason']}" for name in ("intake", "lrc", "spool") if not health[name]["healthy"]]
    return [*(error for error in errors if error is not None), *health["problems"], *parts]


def table_of(*titles: str) -> Table:
    """A table without lines, whose first columns are never folded."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(title, no_wrap=True)
    return table
