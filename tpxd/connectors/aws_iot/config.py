"""What a connection file says for AWS IoT Core, and where that leads to.

Source: ThingPark X IoT Flow, "AWS IoT connector" and its JSON schema; AWS General Reference, "AWS IoT Core endpoints
and quotas"; AWS IoT Core Developer Guide, "Device communication protocols" (ports, ALPN, WebSockets), "Basic Ingest".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import httpx
from pydantic import (
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from tpxd.config.fields import HostAndPort, HostPort, MqttPattern, Secret
from tpxd.config.secret import plain
from tpxd.connectors.aws_iot.sigv4 import Signer
from tpxd.connectors.parts.link import check_ports
from tpxd.connectors.parts.mqtt import PortTopics
from tpxd.connectors.parts.tls import TlsConfig
from tpxd.connectors.parts.topics import TopicSources
from tpxd.lorawan.patterns import Pattern
from tpxd.wire.proxy import host_and_port
from tpxd.wire.streams import Endpoint, WebSocket
from tpxd.wire.tls import TlsContexts

MAX_TOPIC_BYTES: Final = 256
MAX_SLASHES: Final = 7
MAX_CLIENT_ID: Final = 128
MAX_FILTERS: Final = 50
ALPN: Final = "x-amzn-mqtt-ca"
URL_LASTS_S: Final = 300
WSS_HINT: Final = (
    "are accessKeyId and secretAccessKey right, does their policy allow iot:Connect, and is the clock of this machine "
    "right?"
)


_BASIC_INGEST = re.compile(r"\A\$aws/rules/[^/]*/", re.IGNORECASE)


def topic_limit(text: str) -> str | None:
    """Why AWS takes no topic of this text, or None; what leads to a rule of Basic Ingest does not count."""
    if text.startswith("$"):
        text = _BASIC_INGEST.sub("", text)
    if (slashes := text.count("/")) > MAX_SLASHES:
        return f"has {slashes} slashes, and AWS IoT takes {MAX_SLASHES}"
    if len(text) * 4 > MAX_TOPIC_BYTES and (size := len(text.encode(errors="replace"))) > MAX_TOPIC_BYTES:
        return f"has {size} bytes, and AWS IoT takes {MAX_TOPIC_BYTES}"
    return None


def _check_topic(pattern: Pattern | None) -> Pattern | None:
    if pattern is not None and (fault := topic_limit(pattern.literal)):
        raise ValueError(fault)
    return pattern


class AwsPortTopics(PortTopics):
    """Topics for one FPort, within the limits of AWS."""

    _limits = field_validator("uplinkTopicPattern", "downlinkTopicPattern")(_check_topic)


def _protocol(value: Any) -> Any:
    if value == "TCP":
        raise ValueError("AWS IoT has no port without encryption; write SSL, or WSS")
    return value


def _registry_url(value: Any) -> httpx.URL:
    if isinstance(value, httpx.URL):
        return value
    example = 'write it as "https://iot.eu-central-1.amazonaws.com"'
    if not isinstance(value, str) or not value.startswith(("http://", "https://")):
        raise ValueError(f"must begin with http:// or https://; {example}")
    try:
        url = httpx.URL(value)
    except httpx.InvalidURL:
        raise ValueError(f"is no URL; {example}") from None
    if not url.host or url.userinfo or url.path not in ("", "/") or url.query or url.fragment:
        raise ValueError(f"must hold a host and perhaps a port, and nothing else; {example}")
    return url


@dataclass(frozen=True, slots=True)
class _Form:
    """Text of this form; who writes something else reads what is wanted instead of an expression."""

    pattern: str
    wanted: str

    def __get_pydantic_core_schema__(self, source: Any, build: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, build(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, build: GetJsonSchemaHandler) -> dict[str, Any]:
        return build(schema) | {"pattern": f"^{self.pattern}$"}

    def _check(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(self.wanted)
        return text


Region = Annotated[str, _Form("[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}", 'is no region of AWS; write it as "eu-central-1"')]
AccountPrefix = Annotated[
    str,
    _Form(
        # in cn-north-1 what is "-ats" elsewhere is a label of its own
        r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.ats)?",
        'is what the data endpoint has before ".iot.", such as "a1b2c3d4e5f6g7-ats"; put a whole name into endpoint',
    ),
]
ThingType = Annotated[
    str,
    _Form("[A-Za-z0-9:_-]{1,128}", 'is no name of a thing type, which has 1 to 128 letters, digits, "-", "_" and ":"'),
]
CertificateArn = Annotated[
    str,
    _Form(
        "arn:aws[a-z-]*:iot:[a-z0-9-]+:[0-9]+:cert/[A-Za-z0-9]+",
        'is no ARN of a certificate; write it as "arn:aws:iot:eu-central-1:123456789012:cert/0a1b2c"',
    ),
]


class AwsIotConfig(TopicSources, TlsConfig):
    """`[configuration]` of `actility-aws-iot`."""

    registers_devices: ClassVar[bool] = True

    region: Region = Field(description="The AWS region, such as eu-central-1.")
    accountPrefix: AccountPrefix = Field(
        description="What the account's data endpoint has before .iot., such as a1b2c3d4e5f6g7-ats."
    )
    accessKeyId: Secret = Field(description="The IAM access key, which registers devices, and logs in with WSS.")
    secretAccessKey: Secret = Field(description="The secret of that access key.")
    deviceType: ThingType = Field(description="The thing type of the devices that are registered.")
    uplinkTopicPattern: MqttPattern = Field(
        description="The topic that an uplink is published to, of at most 7 slashes and 256 bytes."
    )
    protocol: Annotated[Literal["SSL", "WSS"], BeforeValidator(_protocol)] = Field(
        "SSL",
        description="SSL logs in with certificate and privateKey, WSS with the access key; default SSL.",
    )
    createDevices: bool = Field(
        True,
        description="true registers a device at its first uplink, false leaves out uplinks of devices that are not "
        "registered; default true.",
    )
    createDeviceTypes: bool = Field(
        True, description="true makes the thing type of deviceType when it is missing; default true."
    )
    certificateId: CertificateArn | None = Field(
        None, description="The ARN of a certificate that is attached to each device registered; default none."
    )
    downlinkTopicPattern: MqttPattern | None = Field(
        None, description="The topic to take downlinks from; default none."
    )
    downlinkStatusTopicPattern: MqttPattern | None = Field(
        None,
        description="The topic of DevEUI_downlink_Rejected and DevEUI_downlink_Sent reports, instead of "
        "uplinkTopicPattern; default none.",
    )
    topics: list[AwsPortTopics] = Field(default_factory=list, description="Other topics for uplinks of some FPorts.")
    clientId: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_CLIENT_ID,
        description="The client id, of at most 128 characters; two clients of one id drive each other out; default "
        "tpxd-INSTANCE-ID.",
    )
    endpoint: HostPort | None = Field(
        None,
        description="Where uplinks go, as host:port, such as a VPC endpoint; without a port it is 8883, with WSS 443; "
        "SSL uses ALPN on port 443; default ACCOUNTPREFIX.iot.REGION.amazonaws.com.",
    )
    apiEndpoint: (
        Annotated[
            httpx.URL,
            PlainValidator(_registry_url),
            PlainSerializer(str, return_type=str),
            WithJsonSchema({"type": "string", "format": "uri", "examples": ["https://iot.eu-central-1.amazonaws.com"]}),
        ]
        | None
    ) = Field(
        None,
        description="The URL of the device registry; trustedCaCertificate holds for it only where this is set; "
        "default https://iot.REGION.amazonaws.com.",
    )
    uplinkRateLimiter: int | None = Field(
        100, ge=1, description="The most uplinks to send per second, which AWS IoT limits too; default 100."
    )

    @field_validator("accessKeyId")
    @classmethod
    def _check_key_id(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch(r"[A-Za-z0-9_]{,128}", value.get_secret_value()):
            raise ValueError("is no access key id; it has letters and digits only, such as AKIAIOSFODNN7EXAMPLE")
        return value

    @field_validator("endpoint", mode="before")
    @classmethod
    def _add_port(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and (":" not in value or value.endswith("]")):
            return f"{value}:{443 if info.data.get('protocol') == 'WSS' else 8883}"
        return value

    _limits = field_validator("uplinkTopicPattern", "downlinkTopicPattern", "downlinkStatusTopicPattern")(_check_topic)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_ports([entry.fPort for entry in self.topics])
        if (count := len(self.downlink_sources)) > MAX_FILTERS:
            raise ValueError(f"topics: {count} different topics for downlinks, and AWS IoT takes {MAX_FILTERS}")
        if self.protocol == "SSL" and self.certificate is None:
            raise ValueError("protocol = SSL needs certificate and privateKey; without them, write WSS")
        return self

    @property
    def domain(self) -> str:
        """What all host names of AWS in this region end with."""
        return f"{self.region}.amazonaws.com" + (".cn" if self.region.startswith("cn-") else "")

    @property
    def remarks(self) -> dict[str, str]:
        """See `ConnectorConfig.remarks`."""
        if self.endpoint is not None or self.trustedCaCertificate is not None or self.accountPrefix.endswith("ats"):
            return super().remarks
        text = (
            "does not end in ats: such an endpoint has a certificate that few systems trust still; `aws iot "
            "describe-endpoint --endpoint-type iot:Data-ATS` tells the one to use"
        )
        return super().remarks | {"accountPrefix": text}

    def signer(self, service: str) -> Signer:
        """Signs for a service with the access key."""
        return Signer(plain(self.accessKeyId) or "", plain(self.secretAccessKey) or "", self.region, service)

    def data_endpoint(self, contexts: TlsContexts, now: datetime) -> Endpoint:
        """Where uplinks go; with WSS, a URL that lets in for some minutes from `now`."""
        place = self.endpoint or HostAndPort(
            f"{self.accountPrefix}.iot.{self.domain}", 443 if self.protocol == "WSS" else 8883
        )
        proxy = self.proxy_hop(contexts)
        if self.protocol == "SSL":
            alpn = (ALPN,) if place.port == 443 else ()
            return Endpoint(place.host, place.port, self.tls_context(contexts, alpn), proxy=proxy)
        host = host_and_port(place.host, place.port).removesuffix(":443")
        query = self.signer("iotdevicegateway").signed_query("/mqtt", host, now, URL_LASTS_S)
        tls = contexts(ca=plain(self.trustedCaCertificate))
        return Endpoint(place.host, place.port, tls, proxy=proxy, websocket=WebSocket("/mqtt", "mqtt", query, WSS_HINT))

    def registry_endpoint(self, contexts: TlsContexts) -> Endpoint:
        """Where the device registry answers."""
        url = self.apiEndpoint or httpx.URL(f"https://iot.{self.domain}")
        host, proxy = url.raw_host.decode("ascii"), self.proxy_hop(contexts)
        if url.scheme == "http":
            return Endpoint(host, url.port or 80, proxy=proxy)
        tls = contexts(ca=plain(self.trustedCaCertificate) if self.apiEndpoint else None)
        return Endpoint(host, url.port or 443, tls, proxy=proxy)
