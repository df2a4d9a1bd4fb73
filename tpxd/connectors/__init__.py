"""The built-in connectors: one technology, one file."""

from __future__ import annotations

from importlib import import_module

BUILT_IN = ("amqp", "aws_iot", "http", "mqtt")


def load() -> None:
    """Import every built-in connector, which registers it."""
    for name in BUILT_IN:
        import_module(f"{__name__}.{name}")
