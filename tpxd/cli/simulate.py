"""`tpxd simulate`: a simulated LRC for trying connections without devices."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import orjson
import trio
import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tpxd.simulate.downlink_lrc import Answering, DownlinkCounters, DownlinkLrc
from tpxd.simulate.downlink_rules import PATH, Rules
from tpxd.simulate.downlink_server import SLOW_S, open_listeners, take_downlinks
from tpxd.simulate.lrc import DEFAULT_AS_ID, Counters, Pace, Signature, drive
from tpxd.simulate.post import Target
from tpxd.simulate.reports import make_devices

REFRESH_S = 0.25


def simulate(
    to: Annotated[list[str], typer.Option(metavar="URL", help="Where to post; repeated: tried in this order.")],
    devices: Annotated[int, typer.Option(min=1, max=0xFFFFFF, help="How many devices report.")] = 20,
    rate: Annotated[float, typer.Option(min=0, help="Reports per second; 0: as fast as they are answered.")] = 10,
    duration: Annotated[float | None, typer.Option(min=0, help="Seconds; without it, until Ctrl-C.")] = None,
    count: Annotated[int | None, typer.Option(min=0, help="How many reports in all.")] = None,
    key_env: Annotated[str | None, typer.Option(metavar="VAR", help="Variable with the tunnel key: sign.")] = None,
    key_file: Annotated[Path | None, typer.Option(metavar="FILE", help="File with the tunnel key: sign.")] = None,
    as_id: Annotated[str, typer.Option(help="AS_ID of signed reports.")] = DEFAULT_AS_ID,
    clients: Annotated[int, typer.Option(min=1, max=1000, help="Connections; at most one per device.")] = 4,
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Joins, sent downlinks, locations, notifications too.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal devices.")] = 1,
    timeout: Annotated[float, typer.Option(min=0.01, help="Seconds to wait for an answer.")] = 10,
    downlinks: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help=f"Take downlinks at http://HOST:PORT{PATH}")
    ] = None,
    downlink_answer: Annotated[
        Answering,
        typer.Option(help=f"To right downlinks: take, refuse, take and answer after {SLOW_S:g} s, take and hang up."),
    ] = Answering.OK,
    json: Annotated[bool, typer.Option("--json", help="One JSON object at the end, nothing else.")] = False,
) -> None:
    """Post realistic uplinks to an intake, as the LRC of a network would, and take downlinks like it.

    Ctrl-C waits for the answers that are under way; a second one does not. The exit code is 1 when a report was lost,
    which is when no URL answered with 2xx.

    With --downlinks it goes on until Ctrl-C or the end of --duration, takes downlinks for the devices that report, and
    posts a DevEUI_downlink_Sent for each, one per device and second. With a key, downlinks must be signed with it.
    """
    targets = [_target(url) for url in to]
    key = _key(key_env, key_file)
    signature = Signature(as_id, key) if key is not None else None
    counters = Counters()
    made = make_devices(devices, seed)
    rules = Rules({device.dev_eui: device for device in made}, signature)
    lrc = DownlinkLrc(rules, DownlinkCounters(), downlink_answer)

    async def run() -> None:
        pace = Pace(rate, count, duration)
        screen = Console(stderr=True)
        listeners = await _listeners(downlinks)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_at_signal, pace, nursery.cancel_scope)
            if screen.is_terminal and not json:
                nursery.start_soon(_show, screen, targets, counters, lrc)
            if listeners:
                nursery.start_soon(take_downlinks, listeners, lrc, targets, counters, signature)
            await drive(
                targets,
                pace,
                counters,
                devices=made,
                clients=clients,
                signature=signature,
                mixed=mixed,
                timeout_s=timeout,
            )
            if listeners:
                await pace.over()
            nursery.cancel_scope.cancel()

    trio.run(run)
    if json:
        taken = {"commands": lrc.counters.to_document()} if downlinks is not None else {}
        print(orjson.dumps(counters.to_document() | taken).decode())
    else:
        for line in [*_summary(counters), *(_summary_of_downlinks(lrc.counters) if downlinks is not None else [])]:
            print(line)
    if counters.lost:
        raise typer.Exit(1)


def _target(url: str) -> Target:
    try:
        return Target.parse(url)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--to") from error


def _key(variable: str | None, file: Path | None) -> str | None:
    """The tunnel key, from where the user keeps it; never from the command line, which every process can read."""
    if variable is not None and file is not None:
        raise typer.BadParameter("only one of --key-env and --key-file", param_hint="--key-file")
    if variable is not None:
        key = os.environ.get(variable, "")
        if not key:
            raise typer.BadParameter(f"the variable {variable} is not set", param_hint="--key-env")
        return key
    if file is not None:
        try:
            return file.read_text().removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"{file} cannot be read: {error}", param_hint="--key-file") from error
    return None


async def _listeners(address: str | None) -> Sequence[trio.SocketListener]:
    if address is None:
        return []
    try:
        return await open_listeners(address)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--downlinks") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise typer.BadParameter(f"cannot listen on {address}: {reason.lower()}", param_hint="--downlinks") from error


async def _stop_at_signal(pace: Pace, scope: trio.CancelScope) -> None:
    """The first signal ends the posting, the second one the waiting for answers too."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            pace.stop()
            async for _ in signals:
                scope.cancel()


async def _show(screen: Console, targets: Sequence[Target], counters: Counters, lrc: DownlinkLrc) -> None:
    """Keep one line up to date until cancelled."""
    begun = trio.current_time()
    with Live(console=screen, auto_refresh=False, transient=True) as live:
        while True:
            elapsed_s = trio.current_time() - begun
            rate = counters.accepted / elapsed_s if elapsed_s else 0
            line = Table.grid(padding=(0, 2))
            line.add_row(
                Text(targets[0].url, style="dim"),
                f"{counters.posted} posted",
                Text(f"{counters.accepted} accepted", style="green"),
                Text(f"{counters.lost} lost", style="red" if counters.lost else "dim"),
                f"{rate:.0f}/s",
                f"{lrc.counters.received} downlinks" if lrc.counters.received else "",
            )
            live.update(line, refresh=True)
            await trio.sleep(REFRESH_S)


def _summary(counters: Counters) -> list[str]:
    """What people read at the end."""
    lines = [f"{counters.posted} posted, {counters.accepted} accepted, {counters.lost} lost"]
    refusals = [f"{answer} × {times}" for answer, times in counters.answers.most_common() if not answer.startswith("2")]
    if refusals:
        lines.append(f"not accepted: {', '.join(refusals)}")
    latency = counters.to_document()["latencyMs"]
    if counters.accepted:
        lines.append(f"answered within {latency['p50']} ms (half of them), {latency['p99']} ms (99 %)")
    return lines


def _summary_of_downlinks(counters: DownlinkCounters) -> list[str]:
    """The same of downlinks."""
    doubled, unanswered = f"{counters.doubled} of them twice", f"{counters.unanswered} left without an answer"
    lines = [f"{counters.received} downlinks, {counters.accepted} accepted, {doubled}, {unanswered}"]
    lines.append(f"{counters.transmitted} transmitted")
    for what, causes in (("refused", counters.refused), ("not transmitted", counters.not_transmitted)):
        if causes:
            lines.append(f"{what}: {', '.join(f'{cause} × {times}' for cause, times in causes.most_common())}")
    return lines
