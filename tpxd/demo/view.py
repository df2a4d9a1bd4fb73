"""What people see while a demo runs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator

import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tpxd.demo.play import Play

REFRESH_S = 0.25
UPLINKS_SHOWN = 6
DOWNLINKS_SHOWN = 3
STATE_STYLES = {"OPENED": "green", "DEACTIVATED": "dim", "OPENING": "yellow", "AUTHENTICATING": "yellow"}


async def show_live(screen: Console, play: Play) -> None:
    """Keep the picture up to date until cancelled; the last one stays on the screen."""
    with Live(render(play), console=screen, auto_refresh=False) as live:
        try:
            while True:
                await trio.sleep(REFRESH_S)
                live.update(render(play), refresh=True)
        finally:
            live.update(render(play), refresh=True)


def render(play: Play) -> RenderableType:
    """The whole picture."""
    return Group(
        Panel(_connections(play), title="connections", title_align="left", subtitle=play.phase),
        Panel(_lrc(play), title="simulated LRC", title_align="left"),
        # No border: it would be copied along with the downlinks.
        *_hints(play),
    )


def _connections(play: Play) -> Group:
    table = Table(box=None, pad_edge=False, expand=True)
    for heading in ("connection", "connector", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("received", "delivered", "waiting", "rate"):
        table.add_column(heading, justify="right", no_wrap=True)
    reasons = []
    for connection, document in sorted(play.looks.connections.items()):
        uplinks = document["uplinks"]
        table.add_row(
            connection,
            document["connectorId"],
            Text(document["state"], style=STATE_STYLES.get(document["state"], "red")),
            str(uplinks["received"]),
            str(uplinks["delivered"]),
            Text(str(uplinks["waiting"]), style="yellow" if uplinks["waiting"] else ""),
            f"{play.looks.rate(connection):.1f}/s",
        )
        if document["reason"]:
            reasons.append(Text(f"{connection}: {document['reason']}", style="red"))
    return Group(table, *reasons)


def _lrc(play: Play) -> Group:
    counters = play.counters
    answers = ", ".join(f"{answer} × {times}" for answer, times in counters.answers.most_common())
    latency = counters.to_document()["latencyMs"]
    took = f"   half within {latency['p50']} ms, 99 % within {latency['p99']} ms" if counters.accepted else ""
    table = Table.grid(padding=(0, 2), expand=True)
    for _ in ("time", "DevEUI", "name", "FPort", "FCntUp"):
        table.add_column(no_wrap=True)
    table.add_column(ratio=1, no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for at, report, outcome in list(counters.newest)[-UPLINKS_SHOWN:]:
        fields = report.fields
        table.add_row(
            Text(at, style="dim"),
            fields["DevEUI"],
            fields["CustomerData"]["name"],
            f":{fields['FPort']}",
            f"#{fields['FCntUp']}",
            fields.get("payload_hex", report.kind),
            Text(outcome, style="green" if outcome.startswith("2") else "red"),
        )
    return Group(Text(f"{counters.posted} posted: {answers or 'nothing yet'}{took}"), table, *_all_downlinks(play))


def _all_downlinks(play: Play) -> Iterator[RenderableType]:
    """The newest downlinks, once there is one."""
    downlinks = play.downlinks
    if not downlinks.received:
        return
    yield Text(f"{downlinks.received} downlinks: {downlinks.accepted} taken, {downlinks.transmitted} transmitted")
    table = Table.grid(padding=(0, 2), expand=True)
    for _ in ("time", "DevEUI", "FPort"):
        table.add_column(no_wrap=True)
    table.add_column(ratio=1, no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for downlink in list(downlinks.newest)[-DOWNLINKS_SHOWN:]:
        style = "green" if downlink.answer.status == 200 else "red"
        told = Text(downlink.answer.text, style=style)
        asked = (downlink.dev_eui, f":{downlink.f_port}", downlink.payload_hex)
        table.add_row(Text(downlink.at, style="dim"), *map(Text, asked), told)
    yield table


def _hints(play: Play) -> Iterator[Text]:
    scene = play.scene
    port = scene.broker.rpartition(":")[2]
    yield _hint("health", f"http://{scene.control}/health")
    yield _hint("log", str(scene.log))
    yield _hint("edit", f"{scene.directory}/connections.d/web.toml")
    yield _hint("watch", f"mosquitto_sub -p {port} -t 'demo/#' -v")
    dev_eui, f_port = play.devices[0].dev_eui, play.devices[0].model.f_port
    # A backslash, so that a narrow terminal does not break it where a shell would end the command.
    yield _hint("command", f"{_program()} downlink {dev_eui} --port {f_port} \\")
    yield _hint("", f"--hex 02ff --wait=sent --config {scene.directory}")
    yield Text(" Ctrl-C ends the demo", style="dim")


def _program() -> str:
    """How to call tpxd again: by its name, or from an environment beside the PATH as it was called."""
    return "tpxd" if shutil.which("tpxd") else sys.argv[0]


def _hint(what: str, where: str) -> Text:
    return Text.assemble(f" {what:<8} ", (where, "cyan"), overflow="fold")
