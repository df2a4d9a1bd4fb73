"""Commands invoked beside a control plane that answers them."""

from __future__ import annotations

import json
from pathlib import Path

import trio
from typer.testing import CliRunner, Result

from tpxd.cli import application


def invoke(*arguments: str) -> Result:
    """What a command says, and its exit code."""
    return CliRunner().invoke(application(arguments), list(arguments), prog_name="tpxd")


async def ask(*arguments: str) -> Result:
    """Invoke a command in a thread, so that the control plane can answer it."""
    return await trio.to_thread.run_sync(lambda: invoke(*arguments))


def settings(directory: Path, **control: str) -> str:
    """Write a `tpxd.toml` with this `[control]`; returns its directory."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in control.items()]
    (directory / "tpxd.toml").write_text("\n".join(["[control]", *lines]))
    return str(directory)
