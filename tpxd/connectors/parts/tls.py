"""How a connection proves who it is and whom it trusts, and by which proxy it goes: what all connectors share.

Source: ThingPark X IoT Flow, "MQTT connector" (certificates) and "About connections" (proxy).
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import AliasChoices, Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from tpxd.config.connection_file import ConnectorConfig
from tpxd.config.fields import HostAndPort, Part, Pem, Secret, parse_host_and_port
from tpxd.config.secret import plain
from tpxd.wire.proxy import Proxy
from tpxd.wire.tls import TlsContexts, check_pems


@dataclass(frozen=True, slots=True)
class ProxyAddress:
    """Where a proxy listens, and whether it speaks TLS itself."""

    place: HostAndPort
    secure: bool

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.place}"


def _proxy_address(value: Any) -> ProxyAddress:
    if isinstance(value, ProxyAddress):
        return value
    example = 'write "proxy.example.net:3128", or a URL that begins with http:// or https://'
    if not isinstance(value, str):
        raise ValueError(f"is not text; {example}")
    scheme, separator, rest = value.rpartition("://")
    if scheme not in ("", "http", "https") or (separator and not scheme):
        raise ValueError(f"is no kind of proxy that tpxd knows; {example}")
    rest = rest.removesuffix("/")
    if "@" in rest:
        raise ValueError("holds a user name or a password; put them into proxy.username and proxy.password")
    if ":" not in rest or rest.endswith("]"):
        if not scheme:
            raise ValueError(f"has no port; {example}")
        rest = f"{rest}:{443 if scheme == 'https' else 80}"
    return ProxyAddress(parse_host_and_port(rest), scheme == "https")


class ProxyConfig(Part):
    """The HTTP proxy that stands between us and the far end."""

    hostname: Annotated[
        ProxyAddress,
        PlainValidator(_proxy_address),
        PlainSerializer(str, return_type=str),
        WithJsonSchema({"type": "string", "examples": ["proxy.example.net:3128", "https://proxy.example.net/"]}),
    ] = Field(description="The proxy as host:port or as a URL; https:// means TLS to the proxy itself; required.")
    username: str | None = Field(
        None, min_length=1, max_length=1_000, description="The user name at the proxy; default none."
    )
    password: Secret | None = Field(None, description="The password of that user; default none.")

    @model_validator(mode="after")
    def _check_login(self) -> Self:
        if self.password is not None and self.username is None:
            raise ValueError("password needs username")
        if self.username is not None and ":" in self.username:
            raise ValueError("username holds a colon, which the proxy would take for the begin of the password")
        return self


class TlsConfig(ConnectorConfig):
    """Certificates and proxy; connectors whose far end may speak TLS derive from it."""

    certificate: Pem | None = Field(None, description="The client's certificate with its intermediates; needs TLS.")
    privateKey: Pem | None = Field(None, description="The key of that certificate, without a password.")
    trustedCaCertificate: Pem | None = Field(
        None,
        validation_alias=AliasChoices("trustedCaCertificate", "trustedCaCertficate"),
        description="What to trust instead of the system's trust store, such as a private CA; needs TLS. "
        "ThingPark's spelling trustedCaCertficate is read too.",
    )
    proxy: ProxyConfig | None = Field(
        None, description="The HTTP proxy to go through, { hostname, username, password }; default none."
    )

    @model_validator(mode="before")
    @classmethod
    def _check_spellings(cls, values: Any) -> Any:
        if isinstance(values, dict) and {"trustedCaCertificate", "trustedCaCertficate"} <= values.keys():
            raise ValueError("trustedCaCertificate and trustedCaCertficate are the same; keep one of them")
        return values

    @model_validator(mode="after")
    def _check_certificates(self) -> Self:
        if (self.certificate is None) != (self.privateKey is None):
            present, absent = ("certificate", "privateKey") if self.certificate else ("privateKey", "certificate")
            raise ValueError(f"{present} needs {absent}")
        check_pems(ca=plain(self.trustedCaCertificate))
        if (certificate := plain(self.certificate)) and (private_key := plain(self.privateKey)):
            check_pems(certificate=certificate, private_key=private_key)
        return self

    def has_useless_certificates(self, *, tls: bool) -> bool:
        """Whether one has no effect with a far end that speaks TLS, or does not."""
        secure_proxy = self.proxy is not None and self.proxy.hostname.secure
        useless_ca = self.trustedCaCertificate is not None and not secure_proxy
        return not tls and (self.certificate is not None or useless_ca)

    def pems(self) -> Mapping[str, str]:
        """See `ConnectorConfig.pems`."""
        given = {"certificate": plain(self.certificate), "trustedCaCertificate": plain(self.trustedCaCertificate)}
        return {field: text for field, text in given.items() if text is not None}

    def way(self) -> str | None:
        """See `ConnectorConfig.way`."""
        return None if self.proxy is None else f"proxy {self.proxy.hostname.place}"

    def tls_context(self, contexts: TlsContexts, alpn: Sequence[str] = ()) -> ssl.SSLContext:
        """The context for the far end.

        Args:
            alpn: see `wire.tls.TlsContexts`.

        Raises:
            ValueError: a certificate does not load.
        """
        return contexts(
            ca=plain(self.trustedCaCertificate),
            certificate=plain(self.certificate),
            private_key=plain(self.privateKey),
            alpn=alpn,
        )

    def proxy_hop(self, contexts: TlsContexts) -> Proxy | None:
        """The proxy as streams need it; it is trusted as the far end is, and never sees the client's certificate."""
        if self.proxy is None:
            return None
        address = self.proxy.hostname
        tls = contexts(ca=plain(self.trustedCaCertificate)) if address.secure else None
        return Proxy(address.place.host, address.place.port, tls, self.proxy.username, plain(self.proxy.password))
