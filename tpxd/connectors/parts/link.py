"""How to reach a message broker: the part of a `[configuration]` that MQTT and AMQP share.

Source: ThingPark X IoT Flow, "MQTT connector" and "AMQP connector".
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from tpxd.config.fields import HostPort, Secret
from tpxd.connectors.parts.tls import TlsConfig
from tpxd.wire.streams import Endpoint
from tpxd.wire.tls import TlsContexts


def without_null(text: str) -> str:
    """A field's validator: brokers close the link on a null character, without a word (MQTT 3.1.1, 1.5.3; RFC 4616)."""
    if "\0" in text:
        raise ValueError("holds a null character")
    return text


class LinkConfig(TlsConfig):
    """Address, TLS and login; a connector gives the default ports and adds its own keys."""

    default_ports: ClassVar[dict[str, int]]

    protocol: Literal["TCP", "SSL", "WSS"] = Field(
        description="TCP sends everything in the clear, SSL is TLS, WSS is a WebSocket over TLS."
    )
    hostName: HostPort = Field(
        description="The broker as host:port; default port for MQTT 1883, with SSL 8883, with WSS 443; for AMQP 5672, "
        "with SSL 5671."
    )
    username: Annotated[str, AfterValidator(without_null)] | None = Field(
        None, min_length=1, max_length=1_000, description="The user name at the broker; default none."
    )
    password: Secret | None = Field(None, description="The password of that user; default none.")

    @field_validator("hostName", mode="before")
    @classmethod
    def _add_port(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and (":" not in value or value.endswith("]")):
            return f"{value}:{cls.default_ports[info.data.get('protocol', 'TCP')]}"
        return value

    @model_validator(mode="after")
    def _check_link(self) -> Self:
        if self.password is not None and self.username is None:
            raise ValueError("password needs username")
        if self.has_useless_certificates(tls=self.protocol != "TCP"):
            raise ValueError('certificates need protocol = "SSL"; with TCP nothing is encrypted')
        return self

    def endpoint(self, contexts: TlsContexts) -> Endpoint:
        """Where to connect to, and how."""
        tls = None if self.protocol == "TCP" else self.tls_context(contexts)
        return Endpoint(self.hostName.host, self.hostName.port, tls, proxy=self.proxy_hop(contexts))


def check_ports(ports: list[int]) -> None:
    """Raise a ValueError when `topics` has two entries for one FPort."""
    if repeated := {port for port in ports if ports.count(port) > 1}:
        raise ValueError(f"topics has more than one entry for fPort {min(repeated)}")
