"""A connector of the tests' own, so that these tests hold whatever the built-in ones become."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NoReturn

import pytest
from pydantic import Field

from tpxd.config import ConnectorConfig, HeaderPattern, HostPort, MqttPattern, Part, Pem, Secret
from tpxd.connector import REGISTRY, Context, connector

CONNECTOR = "test-plant"


class Topic(Part):
    """One of `[[configuration.topics]]`."""

    fPort: int
    uplinkTopicPattern: MqttPattern


class PlantConfig(ConnectorConfig):
    """Has a field of every kind."""

    hostName: HostPort
    protocol: Literal["TCP", "SSL", "WSS"] = "TCP"
    qos: Literal[0, 1] = 1
    retain: bool = False
    username: str | None = Field(None, min_length=1)
    password: Secret | None = None
    certificate: Pem | None = None
    headers: dict[str, HeaderPattern] = Field(default={})
    topics: tuple[Topic, ...] = ()


def never_opened(config: Any, context: Context) -> NoReturn:
    """Files are read here, nothing is opened."""
    raise AssertionError(config, context)


@pytest.fixture(autouse=True)
def _plant_connector() -> Iterator[None]:
    connector(CONNECTOR, PlantConfig, title="Plant", description="For tests")(never_opened)
    yield
    del REGISTRY[CONNECTOR]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An empty directory of connection files."""
    path = tmp_path / "connections.d"
    path.mkdir()
    return path


def plant(host: str = "broker.example.net:8883", *, name: str = "Plant", more: str = "", top: str = "") -> str:
    """The text of a connection file that is fine unless `more` or `top` is not."""
    return f'connectorId = "{CONNECTOR}"\nname = "{name}"\n{top}\n\n[configuration]\nhostName = "{host}"\n{more}\n'
