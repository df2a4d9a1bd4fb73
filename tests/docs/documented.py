"""Every option that ThingPark X IoT Flow documents for the connectors that tpxd has, under its documented name.

Source: ThingPark X IoT Flow, "About connections", "Setting up an IoT Flow instance", the pages of the HTTP, MQTT, AMQP
and AWS IoT connectors, and the schema of the AWS IoT connector. `OURS` is what the documentation shows without a name.
"""

from __future__ import annotations

from typing import Final

TOP: Final = {
    "connectorId", "name", "active", "configuration", "brand", "upOperations",
    "alarms", "alarms.startTime", "alarms.endTime", "alarms.timezone", "alarms.uplinkRateMinPerHour", "alarms.message",
    "alarms.recurrence", "alarms.recurrence.frequency", "alarms.recurrence.byDays",
    "flow", "flow.matchers", "flow.matchers.type", "flow.matchers.tags", "flow.matchers.key",
}  # fmt: skip

# createDevices stands with the connector whose far end keeps a registry of devices; elsewhere it would mean nothing
COMMON: Final = {
    "description", "sendMetadata", "sendRawDecodedFormat", "uplinkTimeValidity", "uplinkRateLimiter",
    "downlinkEnabled", "downlinkAsId", "downlinkAsKey", "downlinkPort", "downlinkUuid", "reconnectStrategy",
    "chainedWithConnectionIds", "connectionTimeout", "actionTimeout",
}  # fmt: skip

PROXY: Final = {"proxy", "proxy.hostname", "proxy.username", "proxy.password"}

TOPICS: Final = {
    "uplinkTopicPattern", "downlinkTopicPattern",
    "topics", "topics.fPort", "topics.uplinkTopicPattern", "topics.downlinkTopicPattern",
}  # fmt: skip

CERTIFICATES: Final = {"certificate", "privateKey"}
TRUSTED: Final = {"trustedCaCertificate", "trustedCaCertficate"}
"""The second spelling is the documentation's own."""

OF_CONNECTOR: Final = {
    "actility-http-iot": {"destinationURL", "headers", "lrcCompliance", *PROXY},
    "actility-mqtt-iot": {"hostName", "protocol", "username", "password", *CERTIFICATES, *TRUSTED, *TOPICS},
    "actility-amqp-0.9.1-iot": {
        "hostName", "protocol", "username", "password", "exchangeName", *CERTIFICATES, *TOPICS,
    },
    "actility-aws-iot": {
        "region", "accountPrefix", "accessKeyId", "secretAccessKey", "deviceType", "createDevices", "createDeviceTypes",
        "protocol", "certificateId", *CERTIFICATES, *TOPICS, *PROXY,
    },
}  # fmt: skip

OURS: Final = {
    "actility-http-iot": {"strictMode", "tunnelInterfaceAuthenticationKey", "debugMode", *TRUSTED, *CERTIFICATES},
    "actility-mqtt-iot": {"clientId", "retain", "qos", "downlinkStatusTopicPattern", "debugMode", *PROXY},
    "actility-amqp-0.9.1-iot": {
        "virtualHost",
        "unroutable",
        "downlinkQueue",
        "downlinkStatusTopicPattern",
        "debugMode",
        *TRUSTED,
    },
    "actility-aws-iot": {"clientId", "endpoint", "apiEndpoint", "downlinkStatusTopicPattern", "debugMode"},
}

VALUES: Final = {
    ("actility-mqtt-iot", "protocol"): {"TCP", "SSL", "WSS"},
    ("actility-amqp-0.9.1-iot", "protocol"): {"TCP", "SSL"},
    ("actility-aws-iot", "protocol"): {"SSL", "WSS"},
    ("actility-http-iot", "reconnectStrategy"): {"CALM", "NORMAL", "AGGRESSIVE"},
}
"""The documented values of keys of `[configuration]` that take only some."""


NOT_YET: Final = {
    "upOperations",
}  # fmt: skip
NOT_YET_CONNECTORS: Final[set[str]] = set()
"""What is documented and not there; the tests fail for what is there and still named here."""


def documented(connector: str) -> set[str]:
    """The documented options of a file of this connector, as dotted names."""
    return TOP | {f"configuration.{name}" for name in COMMON | OF_CONNECTOR[connector] | OURS[connector]}
