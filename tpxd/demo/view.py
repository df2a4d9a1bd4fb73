"""What people see while a demo runs."""

from __future__ import annotations

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
        Panel(Group(*_hints(play)), title="try", title_align="left"),
    )


def _connections(play: Play) -> Table:
    table = Table(box=None, pad_edge=False, expand=True)
    for heading in ("connection", "connector", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("received", "delivered", "waiting", "rate"):
        table.add_column(heading, justify="right")
    table.add_column("", ratio=1)
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
            Text(document["reason"] or document["file"]["error"] or "", style="red", overflow="ellipsis"),
        )
    return table


def _lrc(play: Play) -> Group:
    counters = play.counters
    answers = ", ".join(f"{answer} × {times}" for answer, times in counters.answers.most_common())
    p50_s, p99_s = counters.latency.quantile(0.5), counters.latency.quantile(0.99)
    took = (
        ""
        if p50_s is None or p99_s is None
        else f"half within {p50_s * 1000:.1f} ms, 99 % within {p99_s * 1000:.1f} ms"
    )
    table = Table.grid(padding=(0, 2))
    for at, report, outcome in list(counters.newest)[-UPLINKS_SHOWN:]:
        fields = report.fields
        style = "green" if outcome.startswith("2") else "red"
        table.add_row(
            Text(at, style="dim"),
            fields["DevEUI"],
            fields["CustomerData"]["name"],
            f"FPort {fields['FPort']}",
            f"FCntUp {fields['FCntUp']}",
            fields["payload_hex"],
            Text(outcome, style=style),
        )
    return Group(Text(f"{counters.posted} posted: {answers or 'nothing yet'}   {took}"), table)


def _hints(play: Play) -> Iterator[Text]:
    scene = play.scene
    port = scene.broker.rpartition(":")[2]
    yield Text.assemble("health     ", (f"http://{scene.control}/health", "cyan"))
    yield Text.assemble("edit       ", (f"{scene.directory}/connections.d/web.toml", "cyan"), "   (save it and look)")
    yield Text.assemble("subscribe  ", (f"mosquitto_sub -p {port} -t 'demo/#' -v", "cyan"))
    yield Text.assemble("command    ", (command_example(play), "cyan"))
    for downlink in play.receiver.downlinks:
        yield Text.assemble("           the LRC got ", (downlink, "green"))
    yield Text.assemble("log        ", (str(scene.log), "cyan"), "   Ctrl-C ends it")


def command_example(play: Play) -> str:
    """A shell command that sends a downlink to one of the devices over the embedded broker."""
    dev_eui = "70B3D5E75E000001"
    document = f'{{"DevEUI_downlink":{{"DevEUI":"{dev_eui}","FPort":2,"payload_hex":"01"}}}}'
    port = play.scene.broker.rpartition(":")[2]
    return f"mosquitto_pub -q 1 -p {port} -t demo/{dev_eui}/downlink -m '{document}'"
