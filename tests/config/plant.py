"""A connector of the tests' own, so that these tests hold whatever the built-in ones become."""

from __future__ import annotations

from typing import Any, Literal, NoReturn

from pydantic import Field

from tpxd.config.connection_file import ConnectorConfig
from tpxd.config.fields import HeaderPattern, HostPort, MqttPattern, Part, Pem, Secret
from tpxd.connector import Context

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


def plant(host: str = "broker.example.net:8883", *, name: str = "Plant", more: str = "", top: str = "") -> str:
    """The text of a connection file that is fine unless `more` or `top` is not."""
    return f'connectorId = "{CONNECTOR}"\nname = "{name}"\n{top}\n\n[configuration]\nhostName = "{host}"\n{more}\n'
