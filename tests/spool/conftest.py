"""A house for the spool of each test."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.spool.faults import Faults
from tests.spool.house import House


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "state" / "spool.db")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[Faults]:
    """Every database that is opened from now on fails when it is told to."""
    for name, value in (("code", None), ("times", None), ("where", Faults.where)):
        monkeypatch.setattr(Faults, name, value)
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect
    monkeypatch.setattr("sqlite3.connect", lambda path, **options: connect(path, factory=Faults, **options))
    return Faults
