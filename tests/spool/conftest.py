"""A house for the spool of each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.spool.house import House


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "state" / "spool.db")
