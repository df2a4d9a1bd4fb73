"""What these tests run with: the connector of their own, a directory of files, and what reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.config.plant import CONNECTOR, PlantConfig, never_opened
from tests.config.reading import unhurried
from tpxd.connector import REGISTRY, connector
from tpxd.reload.versions import ConfigDir


@pytest.fixture(autouse=True)
def _plant_connector() -> Iterator[None]:
    connector(CONNECTOR, PlantConfig, title="Plant", description="For tests")(never_opened)
    yield
    del REGISTRY[CONNECTOR]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An empty directory of connection files."""
    path = tmp_path / "connections.d"
    path.mkdir()
    return path


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Where last-good copies go."""
    return tmp_path / "state" / "last-good"


@pytest.fixture
def opened(directory: Path, kept: Path) -> Callable[[], ConfigDir]:
    """Makes a ConfigDir as a start of the daemon does."""
    return lambda: ConfigDir(directory, kept, settle=unhurried)
