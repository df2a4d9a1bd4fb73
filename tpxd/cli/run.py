"""`tpxd run`."""

from __future__ import annotations

import typer

from tpxd import daemon
from tpxd.cli.options import DEFAULT_CONFIG, Config


def run(config: Config = DEFAULT_CONFIG) -> None:
    """Run the daemon until SIGTERM or Ctrl-C; SIGHUP reads the files again.

    A tpxd.toml that is wrong ends it with 78; a connection file that is wrong does not.
    """
    raise typer.Exit(daemon.run(config))
