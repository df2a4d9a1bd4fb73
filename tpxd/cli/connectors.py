"""`tpxd connectors`."""

from __future__ import annotations

from typing import Annotated, Any, Final

import orjson
import typer
from rich.text import Text

from tpxd import connectors as built_in
from tpxd.cli.options import Json
from tpxd.cli.render import screen, table_of
from tpxd.connector import REGISTRY, Connector
from tpxd.errors import TpxdError

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def connectors(
    cid: Annotated[str | None, typer.Argument(metavar="[CID]", help="A connector's id.", show_default=False)] = None,
    schema: Annotated[bool, typer.Option("--schema", help="The JSON Schema of [configuration].")] = False,
    json: Json = False,
) -> None:
    """List the connectors, or show what a file of one of them may say in [configuration]."""
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
        _explain(document)


def _list(found: list[Connector], json: bool) -> None:
    if json:
        documents = [{"id": one.id, "title": one.title, "description": one.description} for one in found]
        print(orjson.dumps(documents).decode())
        return
    table = table_of("ID", "TITLE", "DESCRIPTION")
    for one in found:
        table.add_row(one.id, one.title, one.description)
    screen().print(table)


def _explain(document: dict[str, Any]) -> None:
    required = document.get("required", [])
    table = table_of("KEY", "NEEDED")
    table.add_column("MEANING", overflow="fold")
    for key, field in document["properties"].items():
        table.add_row(key, "yes" if key in required else "", Text(field.get("description", "")))
    screen().print(table)
