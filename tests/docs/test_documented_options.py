"""The models have every option, and every value of an option, that ThingPark documents."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from tests.docs.documented import NOT_YET, NOT_YET_CONNECTORS, OF_CONNECTOR, VALUES, documented
from tests.docs.models import models_in
from tpxd import connectors
from tpxd.connector import REGISTRY
from tpxd.reload.files import file_model

connectors.load()
FILES: dict[str, type[BaseModel]] = {one.id: file_model(one.id, one.config) for one in REGISTRY.values()}


def names_of(key: str, field: FieldInfo) -> list[str]:
    """Every name by which a field is read."""
    if isinstance(field.validation_alias, AliasChoices):
        return [str(choice) for choice in field.validation_alias.choices]
    return [key]


def options_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted names of everything that a file of this model may say."""
    for key, field in model.model_fields.items():
        for name in names_of(key, field):
            yield prefix + name
            for inner in models_in(field.annotation):
                yield from options_of(inner, f"{prefix}{name}.")


def test_every_documented_connector_is_there() -> None:
    assert set(OF_CONNECTOR) - set(FILES) == NOT_YET_CONNECTORS


@pytest.mark.parametrize("connector", [id for id in OF_CONNECTOR if id in FILES])
def test_every_documented_option_has_its_place(connector: str) -> None:
    assert documented(connector) - set(options_of(FILES[connector])) == NOT_YET


@pytest.mark.parametrize(("connector", "key"), [(id, key) for id, key in VALUES if id in FILES])
def test_every_documented_value_is_taken(connector: str, key: str) -> None:
    schema = REGISTRY[connector].config.model_json_schema()["properties"][key]
    assert VALUES[connector, key] <= set(schema["enum"])
