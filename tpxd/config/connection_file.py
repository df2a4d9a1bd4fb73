"""A whole connection file, but for the model of its `[configuration]`, which belongs to the connector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
)

from tpxd.config.alarms import Alarm
from tpxd.config.fields import Address, ConnectionId, Duration, FPort, Part, ReconnectStrategy, TimeoutMs
from tpxd.config.flow import Flow
from tpxd.config.secret import DownlinkUuid, HexKey, forgives, plain
from tpxd.lorawan.downlink_request import Signing


class ConnectorConfig(Part):
    """What every connector's `[configuration]` takes; a connector adds its own keys.

    Source: ThingPark X IoT Flow, "About connections", common configuration keys.
    """

    registers_devices: ClassVar[bool] = False

    description: str | None = Field(None, description="Free text for people; default none.")
    sendMetadata: bool = Field(
        False,
        description="true sends uplinks without their DevEUI_uplink root, and no other report type but those about the"
        " connection's own downlinks; default false.",
    )
    sendRawDecodedFormat: bool = Field(
        False,
        description="true sends only the decoded payload where there is one and sendMetadata is false; default false.",
    )
    uplinkTimeValidity: Duration | None = Field(
        None, description='An uplink older than this duration, such as "72h", is not sent any more; default no limit.'
    )
    uplinkRateLimiter: int | None = Field(
        None, ge=1, description="The most uplinks to send per second; default no limit but the connector's own."
    )
    backlogShare: float | None = Field(
        None,
        gt=0,
        le=1,
        description="The share, above 0 to 1, of what is sent that a backlog gets while new uplinks go before it; each"
        " device's order is kept; default none: all in order.",
    )
    chainedWithConnectionIds: list[ConnectionId] = Field(
        default_factory=list,
        description="Connections that get the original of what this one delivered; default none.",
    )
    downlinkEnabled: bool = Field(
        True, description="false takes no downlinks from the far end of this connection; default true."
    )
    downlinkAsId: str | None = Field(
        None, description="The AS_ID of downlinks that bring none; default [lrc] as_id of tpxd.toml."
    )
    downlinkAsKey: HexKey | None = Field(
        None, description="The key of 32 hex digits that signs downlinks; default [lrc] as_key of tpxd.toml."
    )
    downlinkPort: FPort | None = Field(
        None, description="The FPort, 1 to 224, of downlinks that bring none; default none."
    )
    downlinkUuid: DownlinkUuid | None = Field(
        None,
        description="The last part of this connection's downlink URL, which is a secret; default one that is made once"
        " and kept.",
    )
    createDevices: bool | None = Field(
        None, description="Has no effect here, where no far end registers devices; exported files carry it."
    )
    debugMode: bool = Field(
        False,
        description="true logs each uplink, where it went and its fate; ends by itself after two days; default false.",
    )
    reconnectStrategy: ReconnectStrategy = Field(
        "NORMAL",
        description="How patiently a lost connection is opened again: CALM, NORMAL or AGGRESSIVE; default NORMAL.",
    )
    connectionTimeout: TimeoutMs = Field(
        5_000, description="The longest time in ms that opening may take; 100 to 60000, default 5000."
    )
    actionTimeout: TimeoutMs = Field(
        10_000,
        description="The longest time in ms without a receipt while any is due; 100 to 60000, default 10000.",
    )

    @field_validator("uplinkTimeValidity")
    @classmethod
    def _check_validity(cls, seconds: float | None, info: ValidationInfo) -> float | None:
        if seconds == 0 and not forgives(info):
            raise ValueError("no uplink is ever younger than that; leave the key out for no limit")
        return seconds

    @property
    def signing(self) -> Signing:
        """With what its downlinks are signed, as far as the file says; "" stands for what it does not say."""
        return Signing(self.downlinkAsId or "", plain(self.downlinkAsKey) or "")

    @property
    def downlink_sources(self) -> list[str]:
        """The topic filters or binding keys that downlinks are taken from; a connector with some overrides this."""
        return []

    @property
    def comes_back(self) -> bool:
        """Whether what it sends may come in again as a downlink; where it can, a connector overrides this."""
        return False

    @property
    def remarks(self) -> dict[str, str]:
        """What is allowed and may surprise whoever wrote it, by key."""
        found = {}
        if self.createDevices is not None and not self.registers_devices:
            found["createDevices"] = "has no effect here, only AWS IoT registers devices; leave it out"
        if self.comes_back:
            text = "fits what this connection itself sends, which would all come back"
            found["downlinkTopicPattern"] = f"{text}; let the topics differ in one level"
        return found

    def pems(self) -> Mapping[str, str]:
        """The certificates, not the keys, that the connection works with: PEM text by field; their ends are watched."""
        return {}

    def way(self) -> str | None:
        """What stands between us and the far end, such as "proxy 192.0.2.1:3128"; errors name it."""
        return None


class HealthConfig(Part):
    """`[health]` of a connection file."""

    listen: Address = Field(description="Where this connection answers for its own health, host:port.")


class ConnectionFile(Part):
    """A whole connection file; `reload.versions` says which model of `[configuration]` its connectorId means."""

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
