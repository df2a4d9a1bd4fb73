"""`tpxd encode`."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
import typer

from tpxd.cli.options import DEFAULT_CONFIG, Config, Json
from tpxd.cli.scripting import driver_named, run_driver


def encode(
    payload: Annotated[str, typer.Argument(metavar="JSON", help="What the driver makes a payload of.")],
    driver: Annotated[
        str, typer.Option(metavar="DRIVER", help="A driver's file or folder, or its name in drivers_dir.")
    ],
    port: Annotated[
        int | None, typer.Option(metavar="FPORT", min=1, max=224, help="For drivers that want to know it.")
    ] = None,
    config: Config = DEFAULT_CONFIG,
    json: Json = False,
) -> None:
    """Encode a downlink's payload exactly as the daemon would; exit code 1 when the driver gives no result."""
    try:
        data: Any = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f"is no JSON: {error.msg} at column {error.colno}", param_hint="JSON") from None
    found = driver_named(driver, config)
    given = {"data": data} if port is None else {"data": data, "fPort": port}
    result = run_driver(found, "encodeDownlink", given, config).result
    content, f_port = bytes(result["bytes"]), result.get("fPort", port)
    if json:
        print(orjson.dumps({"payload_hex": content.hex(), "fPort": f_port}).decode())
    else:
        print(content.hex() + ("" if f_port is None else f"  FPort {f_port}"))
