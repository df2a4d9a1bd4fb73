"""Whatever a test does with a connection, its states follow one another as the table says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tpxd.connection import health

__all__ = ["_possible_states"]


@pytest.fixture(autouse=True)
def _possible_states(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    records = [record for phase in ("setup", "call") for record in caplog.get_records(phase)]
    bugs = [record.getMessage() for record in records if record.name == health.__name__]
    assert bugs == [], "a state that may not follow the one before"
