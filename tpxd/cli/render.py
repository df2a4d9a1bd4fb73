"""Tables for people. Colours, and lines folded to the screen's width, on a terminal only."""

from __future__ import annotations

from datetime import UTC, datetime
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
    """One row per connection, from its health document; `DL` columns count its downlinks."""
    table = table_of("ID", "CONNECTOR", "STATE")
    for title in ("DELIVERED", "WAITING", "REJECTED", "OLDEST", "DL SENT", "DL WAITING", "DL REJECTED"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("LAST ERROR", overflow="fold")
    for id, document in connections.items():
        uplinks, downlinks = document["uplinks"], document["downlinks"]
        state = document["state"]
        oldest = document["oldestWaitingSeconds"]
        table.add_row(
            Text(id),
            Text(document["connectorId"] or "-"),
            Text(state, style=COLOURS.get(state, "red") if document["healthy"] or state != "OPENED" else "yellow"),
            str(uplinks["delivered"]),
            str(uplinks["waiting"]),
            _losses(uplinks["rejected"]),
            "-" if oldest is None else format_duration(oldest),
            str(downlinks["sent"]),
            str(downlinks["waiting"]),
            _losses(downlinks["rejected"]),
            _last_error(document),
        )
    return table


def kept_queues(health: dict[str, Any]) -> list[str]:
    """The queues whose file is gone, which go on when it comes back; an older daemon tells of none."""
    return [
        f"{id}: its file is gone; its queue, in which {kept['waiting']} uplinks wait, is kept until {kept['until']}"
        for id, kept in health.get("keptQueues", {}).items()
    ]


def _losses(count: int) -> Text:
    return Text(str(count), style="red" if count else "")


def _last_error(document: dict[str, Any]) -> Text:
    """The newest error and when it was; one that is overcome says so."""
    error = document["lastError"]
    if error is None:
        return Text("-")
    at, message = _to_the_second(error["at"]), visible(error["message"])
    return Text(f"{at} overcome: {message}", style="dim") if is_overcome(document) else Text(f"{at} {message}")


def is_overcome(document: dict[str, Any]) -> bool:
    """Whether what a connection's last error was about works again: it opened, or delivered something, afterwards."""
    error = document["lastError"]
    if document["reason"] == error["message"]:
        return False
    at, delivered = _moment(error["at"]), document["lastDelivery"]
    if delivered is not None and _moment(delivered) > at:
        return True
    return document["state"] in ("OPENED", "DEACTIVATED") and _moment(document["since"]) >= at


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _to_the_second(text: str) -> str:
    return f"{_moment(text).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def concerns(health: dict[str, Any]) -> list[str]:
    """What needs a person: what to do about each connection, errors in files, and the parts that are not healthy."""
    connections = health["connections"]
    files = [document["file"] for document in connections.values()]
    return [
        *(f"{id}: {'; '.join(steps)}" for id, document in connections.items() if (steps := _steps(document))),
        *(file["error"] for file in files if file["error"] is not None),
        *(f"warning: {file['warning']}" for file in files if file.get("warning")),
        *health["problems"],
        *(_of_part(name, health[name]) for name in ("intake", "lrc", "spool") if not health[name]["healthy"]),
    ]


def _steps(document: dict[str, Any]) -> list[str]:
    """Why an open connection is not well, what to do about its error, and when it is tried again by itself."""
    error, steps = document["lastError"], []
    if document["state"] == "OPENED" and not document["healthy"] and document["file"]["error"] is None:
        steps.append(document["reason"])
    if error is not None and error["hint"] and not is_overcome(document) and error["hint"] not in "".join(steps):
        steps.append(error["hint"])
    if document["retryAt"] is not None:
        steps.append(f"tried again at {_to_the_second(document['retryAt'])}")
    return steps


def _of_part(name: str, part: dict[str, Any]) -> str:
    hint = (part.get("lastError") or {}).get("hint")
    return f"{name}: {part['reason']}" + (f"; {hint}" if hint else "")


def table_of(*titles: str) -> Table:
    """A table without lines, whose first columns are never folded."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(title, no_wrap=True)
    return table
