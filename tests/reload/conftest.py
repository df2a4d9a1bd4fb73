"""Files are read here with the connector that the tests of what people type have."""

from __future__ import annotations

from tests.config.conftest import _plant_connector, directory, kept, opened

__all__ = ["_plant_connector", "directory", "kept", "opened"]
