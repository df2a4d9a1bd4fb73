"""`tpxd status`."""

from __future__ import annotations

import orjson

from tpxd.cli.daemon_client import Declined, ask, document_of
from tpxd.cli.options import DEFAULT_CONFIG, Config, Json
from tpxd.cli.render import show_health


def status(config: Config = DEFAULT_CONFIG, json: Json = False) -> None:
    """Show the connections of the running daemon, and everything that needs a person.

    The exit code is 0 when the status could be shown, be it good or bad; for probes there is GET /health.
    """
    health = document_of(ask(config, "GET", "/health"))
    if "connections" not in health:
        raise Declined("what answers at the control address is not tpxd", hint="see [control] in tpxd.toml")
    if json:
        print(orjson.dumps(health).decode())
    else:
        show_health(health)
