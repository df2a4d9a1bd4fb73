"""The beginning of each campaign; `python -m tests.durability` goes on with it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.durability.kinds import Kind, kinds

pytestmark = pytest.mark.broker
BEGINNING = 30
"""One in so many of what a whole campaign does."""


def beginnings() -> list[Kind]:
    """Those that anybody can run; a loop device needs root."""
    chosen = [kind for kind in kinds() if "loop device" not in kind.name]
    for kind in chosen:
        kind.goal = max(1, kind.goal // BEGINNING)
    return chosen


@pytest.mark.parametrize("kind", beginnings(), ids=lambda kind: kind.name)
def test_nothing_is_lost_and_nobody_alarmed(in_memory: Path, kind: Kind) -> None:
    try:
        kind.work(in_memory / "campaign", time.monotonic() + 100)
    finally:
        kind.close()
    assert (kind.done, kind.ended) == (kind.goal, None)
    assert kind.found.wrong == []
