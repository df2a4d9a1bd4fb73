"""How to reach a message broker: the part of a `[configuration]` that MQTT and AMQP share.

Source: ThingPark X IoT Flow, "MQTT connector" and "AMQP connector".
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from tpxd.config import ConnectorConfig, HostPort, Pem, Secret
from tpxd.wire.streams import Endpoint
from tpxd.wire.tls import check_pems


class LinkConfig(ConnectorConfig):
    """Address, TLS and login; a connector gives the default ports and adds its own keys."""

    default_ports: ClassVar[dict[str, int]]

    protocol: Literal["TCP", "SSL"] = Field(description="TCP sends everything in the clear, SSL is TLS.")
    hostName: HostPort = Field(
        description="The broker as host:port; default port for MQTT 1883, with SSL 8883; for AMQP 5672, with SSL 5671."
    )
    username: str | None = Field(
        None, min_length=1, max_length=1_000, description="The user name at the broker; default none."
    )
    password: Secret | None = Field(None, description="The password of that user; default none.")
    certificate: Pem | None = Field(None, description="The client's certificate with its intermediates; needs SSL.")
    privateKey: Pem | None = Field(None, description="The key of that certificate, without a password.")
    trustedCaCertificate: Pem | None = Field(
        None, description="What to trust instead of the system's trust store, such as a private CA; needs SSL."
    )
    trustedCaCertficate: Pem | None = Field(
        None, description="The same as trustedCaCertificate, as ThingPark spells it."
    )

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
        if self.trustedCaCertificate is not None and self.trustedCaCertficate is not None:
            raise ValueError("trustedCaCertificate and trustedCaCertficate are the same; keep one of them")
        if (self.certificate is None) != (self.privateKey is None):
            present, absent = ("certificate", "privateKey") if self.certificate else ("privateKey", "certificate")
            raise ValueError(f"{present} needs {absent}")
        if self.protocol == "TCP" and (self.certificate is not None or self.trusted_ca is not None):
            raise ValueError('certificates need protocol = "SSL"; with TCP nothing is encrypted')
        check_pems(ca=plain(self.trusted_ca))
        if (certificate := plain(self.certificate)) and (private_key := plain(self.privateKey)):
            check_pems(certificate=certificate, private_key=private_key)
        return self

    @property
    def trusted_ca(self) -> SecretStr | None:
        """What to trust, by whichever name it was given."""
        return self.trustedCaCertificate or self.trustedCaCertficate

    def endpoint(self, tls: Callable[..., ssl.SSLContext]) -> Endpoint:
        """Where to connect to; `tls` is a `connector.TlsContexts`."""
        if self.protocol == "TCP":
            return Endpoint(self.hostName.host, self.hostName.port)
        context = tls(
            ca=plain(self.trusted_ca), certificate=plain(self.certificate), private_key=plain(self.privateKey)
        )
        return Endpoint(self.hostName.host, self.hostName.port, context)


def plain(secret: SecretStr | None) -> str | None:
    """The secret's text; one that was not resolved, which only a lenient check allows, is as good as none."""
    return secret.get_secret_value() or None if secret is not None else None


def check_ports(ports: list[int]) -> None:
    """Raise a ValueError when `topics` has two entries for one FPort."""
    if repeated := {port for port in ports if ports.count(port) > 1}:
        raise ValueError(f"topics has more than one entry for fPort {min(repeated)}")
