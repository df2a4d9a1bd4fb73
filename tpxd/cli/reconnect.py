"""`tpxd reconnect`."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from tpxd.cli.daemon_client import Declined, ask, document_of
from tpxd.cli.options import DEFAULT_CONFIG, Config


def reconnect(
    id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Which; without it, all.", show_default=False)
    ] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Let the running daemon try a connection, or all, again now instead of at the end of its back-off."""
    response = ask(config, "POST", "/reconnect" if id is None else f"/connections/{quote(id, safe='')}/reconnect")
    message = str(document_of(response).get("message"))
    if response.status_code != 202:
        raise Declined(message)
    print(message)
