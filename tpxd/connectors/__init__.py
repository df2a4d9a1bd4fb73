"""The built-in connectors, a file or a folder a technology; none imports another.

amqp      AMQP 0-9-1 over TCP or TLS: uplinks are published to an exchange, downlinks come from a queue
aws_iot/  AWS IoT Core: uplinks over MQTT, devices into its registry
http/     uplinks to a web server, one POST each
mqtt      MQTT 3.1.1 over TCP, TLS or WebSocket: uplinks are published, downlinks are subscribed to
parts/    what several connectors share; it imports none of them

Imports connector, wire, config; each technology besides only parts/; the ground is open to all.
"""

from __future__ import annotations

from importlib import import_module

BUILT_IN = ("amqp", "aws_iot", "http", "mqtt")


def load() -> None:
    """Import every built-in connector, which registers it."""
    for name in BUILT_IN:
        import_module(f"{__name__}.{name}")
