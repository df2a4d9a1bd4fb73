"""The command line: one file per command, imported only when it is the one that was asked for.

check          everything that is wrong with files, before the daemon reads them
connectors     lists the connectors, and every key of their files
daemon_client  asks the running daemon over its Unix socket or its control address
decode         decodes a payload as the daemon would
demo           everything embedded, to see what tpxd does before anything is configured
downlink       sends a downlink to a device
driver         lists drivers, and runs the examples that they bring
encode         encodes a downlink's payload as the daemon would
failures       what a command that fails says, and its exit code
options        options that several commands share
reconnect      tries a connection, or all, again now
reference      makes `examples/all-options/CONNECTOR.toml`: every key that a file of a connector may hold
render         tables for people
run            runs the daemon
scripting      what `tpxd decode` and `tpxd encode` share: a driver found by name or path
secret_files   whether the files that secrets are in may be read by everyone
simulate       a simulated LRC for trying connections without devices
status         the connections of the running daemon, in a table
trace          what became of a device's uplinks and downlinks
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import wraps
from importlib import import_module
from typing import Annotated, Any, Final

import typer

from tpxd import __version__
from tpxd.cli.failures import exit_codes

COMMANDS: Final = {
    "run": ("run", "Run the daemon."),
    "demo": ("demo", "Show everything embedded; needs nothing else."),
    "check": ("check_command", "Validate connection files and tpxd.toml."),
    "status": ("status", "Show the connections of the running daemon."),
    "connectors": ("connectors", "List the connectors and what their files may say."),
    "downlink": ("downlink", "Send a command to a device."),
    "trace": ("trace", "Show what became of a device's uplinks and commands."),
    "reconnect": ("reconnect", "Try a connection, or all, again now."),
    "decode": ("decode", "Decode a payload as the daemon would."),
    "encode": ("encode", "Encode a downlink's payload as the daemon would."),
    "driver": ("driver", "List payload drivers, or run the examples that they bring."),
    "simulate": ("simulate", "Post uplinks as an LRC would."),
}
"""Command to the function in `tpxd.cli.COMMAND`, and the summary that the list of commands shows."""


WAITS: Final = ("lrc", "sent")
"""The values of `--wait`; typer does not know options whose value may be left out, so `main` writes them with one."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `tpxd ARGUMENTS…` and exit; without arguments, those of the process."""
    given = _with_wait(sys.argv[1:] if arguments is None else arguments)
    application(given)(given, prog_name="tpxd")


def _with_wait(arguments: Sequence[str]) -> list[str]:
    """`--wait` alone as `--wait=lrc`, and `--wait sent` as `--wait=sent`."""
    given: list[str] = []
    for each in arguments:
        if given and given[-1] == "--wait":
            given[-1] = f"--wait={each}" if each in WAITS else "--wait=lrc"
            if each in WAITS:
                continue
        given.append(each)
    return [f"{each}=lrc" if each == "--wait" else each for each in given]


def application(arguments: Sequence[str]) -> typer.Typer:
    """The application, with the one command imported that these arguments name; of the others it knows the summary."""
    # Plain help and plain errors: boxes wrap lines that editors want to read, and drawing them takes the longest.
    app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(_root)
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, (function, summary) in COMMANDS.items():
        if name == asked:
            app.command(name)(_translated(getattr(import_module(f"tpxd.cli.{name}"), function)))
        else:
            app.command(name, help=summary)(_root)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        print(f"tpxd {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """tpxd carries LoRaWAN uplinks from ThingPark's LRC over every connection that a TOML file declares."""


def _translated(command: Any) -> Any:
    """The command, its expected failures as a line and an exit code."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> None:
        with exit_codes():
            command(*args, **options)

    return run
