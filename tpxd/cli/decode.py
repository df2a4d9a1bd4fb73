"""`tpxd decode`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import orjson
import typer

from tpxd.cli.options import DEFAULT_CONFIG, Config, Json
from tpxd.cli.scripting import ScriptFailed, driver_named, run_driver


def decode(
    payload: Annotated[str, typer.Argument(metavar="HEX", help="The payload.")],
    driver: Annotated[
        str, typer.Option(metavar="DRIVER", help="A driver's file or folder, or its name in drivers_dir.")
    ],
    port: Annotated[int, typer.Option(metavar="FPORT", min=0, max=255, help="The FPort it came on.")] = 1,
    time: Annotated[str | None, typer.Option(metavar="TIME", help="When it was received; default now.")] = None,
    downlink: Annotated[bool, typer.Option("--downlink", help="It is a downlink's payload.")] = False,
    config: Config = DEFAULT_CONFIG,
    json: Json = False,
) -> None:
    """Decode a payload exactly as the daemon would; exit code 1 when the driver gives no result."""
    try:
        content = bytes.fromhex(payload)
    except ValueError:
        raise typer.BadParameter(f'"{payload}" is not hex digits in pairs', param_hint="HEX") from None
    received = time or datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    given = {"bytes": list(content), "fPort": port, "recvTime": received}
    found = driver_named(driver, config)
    result = run_driver(found, "decodeDownlink" if downlink else "decodeUplink", given, config).result
    if not isinstance(result, dict) or "data" not in result:
        raise ScriptFailed(f"{found.path}: the driver returned no data")
    shown = {key: result[key] for key in ("data", "warnings") if result.get(key)} | {"data": result["data"]}
    print(orjson.dumps(shown, option=0 if json else orjson.OPT_INDENT_2).decode())
