"""`tpxd demo`: everything embedded, to see what tpxd does before anything is configured."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import orjson
import trio
import typer
from rich.console import Console

from tpxd.demo.play import Play, perform
from tpxd.demo.scene import set_scene
from tpxd.demo.stage import DemoFailed
from tpxd.demo.view import show_live


def demo(
    duration: Annotated[float | None, typer.Option(min=0, help="Seconds; without it, until Ctrl-C.")] = None,
    rate: Annotated[float, typer.Option(min=0.1, max=2000, help="Uplinks per second.")] = 10,
    directory: Annotated[Path | None, typer.Option("--dir", help="An empty or new directory, kept afterwards.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object at the end, nothing else.")] = False,
) -> None:
    """Run a broker, a web server, a daemon with a connection to each, and a simulated LRC that posts uplinks.

    Needs nothing else, listens on loopback only, and leaves nothing behind unless --dir says where. At the end, or at
    Ctrl-C, it waits until every queue is empty, at most 30 seconds; the exit code is 1 when one is not, or when the
    daemon did not accept every uplink.
    """
    screen = Console(stderr=True)
    with _stage(directory) as place:
        play = Play(set_scene(place))
        show = None if json else partial(show_live, screen) if screen.is_terminal else _say_where
        try:
            trio.run(partial(perform, play, rate=rate, duration_s=duration, show=show))
        except DemoFailed as failure:
            print(f"the demo failed: {failure}", file=sys.stderr)
            raise typer.Exit(1) from None
    if json:
        print(orjson.dumps(play.to_document()).decode())
    else:
        for line in _summary(play):
            print(line)
    for line in play.failures():
        print(line, file=sys.stderr)
    if play.failures():
        raise typer.Exit(1)


@contextmanager
def _stage(directory: Path | None) -> Iterator[Path]:
    """The directory of the demo: a temporary one, or the user's, which must be empty."""
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="tpxd-demo-") as temporary:
            yield Path(temporary)
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise typer.BadParameter(f"{directory} is not empty", param_hint="--dir")
    except OSError as error:
        raise typer.BadParameter(f"{directory}: {error.strerror}", param_hint="--dir") from error
    yield directory


async def _say_where(play: Play) -> None:
    """For a pipe or a journal: one line at the beginning."""
    print(f"demo in {play.scene.directory}, health at http://{play.scene.control}/health", flush=True)


def _summary(play: Play) -> Iterator[str]:
    """What people read at the end."""
    counters = play.counters
    yield f"{counters.posted} uplinks posted, {counters.accepted} accepted"
    for connection, uplinks in play.to_document()["connections"].items():
        yield f"{connection}: {uplinks['delivered']} delivered, {uplinks['waiting']} waiting"
