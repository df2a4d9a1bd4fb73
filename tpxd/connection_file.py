"""A whole connection file, but for the model of its `[configuration]`, which belongs to the connector."""

from __future__ import annotations

from pydantic import Field

from tpxd.alarms import Alarm
from tpxd.config import Address, ConnectorConfig, Part
from tpxd.flow import Flow


class HealthConfig(Part):
    """`[health]` of a connection file."""

    listen: Address = Field(description="Where this connection answers for its own health, host:port.")


class ConnectionFile(Part):
    """A whole connection file; `engine.config_dir` says which model of `[configuration]` its connectorId means."""

    connectorId: str = Field(description="Which connector carries the uplinks; `tpxd connectors` lists them.")
    name: str = Field(min_length=1, description="What people call the connection.")
    brand: str | None = Field(
        None,
        description='ThingPark\'s mark of a variant of the connector, such as "TAGO"; kept for people, default none.',
    )
    active: bool = Field(True, description="false is a pause: uplinks wait; default true.")
    configuration: ConnectorConfig = Field(description="The connector's own settings.")
    health: HealthConfig | None = Field(None, description="A health endpoint of this connection alone; default none.")
    alarms: list[Alarm] = Field(default_factory=list, description="Alarms for too few uplinks; default none.")
    flow: Flow = Field(Flow(), description="Which uplinks the connection takes; default all of them.")
