"""`tpxd connectors`."""

from __future__ import annotations

from typing import Annotated, Final

import orjson
import typer

from tpxd import connectors as built_in
from tpxd.cli.options import Json
from tpxd.cli.reference import options_file
from tpxd.cli.render import screen, table_of
from tpxd.connector import REGISTRY, Connector
from tpxd.errors import TpxdError

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def connectors(
    cid: Annotated[str | None, typer.Argument(metavar="[CID]", help="A connector's id.", show_default=False)] = None,
    schema: Annotated[bool, typer.Option("--schema", help="The JSON Schema of [configuration].")] = False,
    json: Json = False,
) -> None:
    """List the connectors, or print every key that a file of one of them may hold."""
    built_in.load()
    if cid is None:
        if schema:
            raise typer.BadParameter("needs a connector's id", param_hint="--schema")
        _list(sorted(REGISTRY.values(), key=lambda connector: connector.id), json)
        return
    if cid not in REGISTRY:
        raise TpxdError(f"there is no connector {cid}", hint=f"there are: {', '.join(sorted(REGISTRY))}")
    document = {"$schema": DIALECT, **REGISTRY[cid].config.model_json_schema()}
    if schema or json:
        print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    else:
        print(options_file(REGISTRY[cid]), end="")


def _list(found: list[Connector], json: bool) -> None:
    if json:
        documents = [{"id": one.id, "title": one.title, "description": one.description} for one in found]
        print(orjson.dumps(documents).decode())
        return
    table = table_of("ID", "TITLE", "DESCRIPTION")
    for one in found:
        table.add_row(one.id, one.title, one.description)
    screen().print(table)
