"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

DEFAULT_CONFIG: Final = Path("/etc/tpxd")

Config = Annotated[Path, typer.Option("--config", metavar="DIR", help="The directory of tpxd.toml and connections.d.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")]
