"""Files are read here with the connector that the tests of what people type have, and states follow one another."""

from __future__ import annotations

from tests.config.conftest import _plant_connector, directory, kept, opened
from tests.connection.conftest import _possible_states

__all__ = ["_plant_connector", "_possible_states", "directory", "kept", "opened"]
