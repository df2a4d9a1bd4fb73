"""What is remembered of what a connection left at a broker."""

from __future__ import annotations

import pytest
import trio

from tests.connectors.opening import context
from tests.notebook import Notebook
from tpxd.connectors.parts.leftovers import BROKERS, LeftAtBroker
from tpxd.errors import SpoolUnavailable


def left(memory: Notebook, broker: str = "one", connection: str = "plant") -> LeftAtBroker:
    return LeftAtBroker(context(memory=memory, connection_id=connection), "filters", broker)


async def test_each_broker_of_each_connection_has_its_own() -> None:
    memory = Notebook()
    assert left(memory).recall() == []
    await left(memory).remember(["a", "b"])
    await left(memory, "two").remember([("q", "x", "k")])
    assert left(memory).recall() == ["a", "b"]
    assert left(memory, "two").recall() == [["q", "x", "k"]]
    assert left(memory, connection="cloud").recall() == []
    assert list(memory.kept) == ["connector/plant/filters"]
    await left(memory).remember([])
    assert (left(memory).recall(), len(left(memory, "two").recall())) == ([], 1)


async def test_brokers_that_were_left_longest_are_forgotten_first() -> None:
    memory = Notebook()
    for number in range(BROKERS):
        await left(memory, f"broker {number}").remember(["a"])
    await left(memory, "broker 0").remember(["b"])
    await left(memory, "one more").remember(["c"])
    found = [left(memory, f"broker {number}").recall() for number in range(BROKERS)]
    assert found == [["b"], [], *[["a"]] * (BROKERS - 2)]
    assert left(memory, "one more").recall() == ["c"]


async def test_what_is_known_already_is_not_written_again() -> None:
    class Counting(Notebook):
        written = 0

        async def remember(self, key: str, value: str) -> None:
            self.written += 1
            await super().remember(key, value)

    memory = Counting()
    await left(memory).remember([])
    for _ in range(3):
        await left(memory).remember([("q", "x", "k")])
    assert memory.written == 1


async def test_a_full_disk_is_no_obstacle(caplog: pytest.LogCaptureFixture) -> None:
    class Full(Notebook):
        async def remember(self, key: str, value: str) -> None:
            await trio.lowlevel.checkpoint()
            raise SpoolUnavailable("the disk is full")

    await left(Full()).remember(["a"])
    assert "filters cannot be remembered, so stale ones may stay at the broker: the disk is full" in caplog.text
