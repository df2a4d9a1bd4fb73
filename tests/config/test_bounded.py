"""Calls that hang keep no others waiting, and their threads do not heap up."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tpxd.reload import bounded
from tpxd.reload.bounded import Bounded


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "PATIENCE_S", 0.2)
    monkeypatch.setattr(bounded, "SLOW_S", 0.02)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What calls hang on; open at the end."""
    event = threading.Event()
    yield event
    event.set()


def test_every_key_gets_its_answer() -> None:
    keys = [str(n) for n in range(1_000)]
    assert Bounded().each(keys, int) == {key: int(key) for key in keys}
    assert Bounded().each([], int) == {}


def test_what_hangs_is_left_out_and_the_others_are_not(gate: threading.Event) -> None:
    calls: list[str] = []

    def call(key: str) -> str:
        calls.append(key)
        if key.startswith("hung"):
            gate.wait(30)
        return key.upper()

    keys = ["a", "hung1", "b", "hung2", "c"]
    looks = Bounded()
    for _ in range(3):
        assert looks.each(keys, call) == {"a": "A", "b": "B", "c": "C"}
    assert sorted(calls) == sorted(["hung1", "hung2", *"abc" * 3]), "what hangs is not tried again"
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "tpxd-files":
            thread.join(5)
    assert looks.each(keys, call) == {key: key.upper() for key in keys}


def test_threads_do_not_heap_up(gate: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MOST_HANGING", 4)
    looks = Bounded()
    for _ in range(2):
        assert looks.each([str(n) for n in range(10)], lambda key: gate.wait(30)) == {}
    assert sum(thread.name == "tpxd-files" for thread in threading.enumerate()) == 4


def test_a_bug_is_the_bug_of_one_key(caplog: pytest.LogCaptureFixture) -> None:
    assert Bounded().each(["1", "2", "x", "3"], int) == {"1": 1, "2": 2, "3": 3}
    assert "reading x: crashed" in caplog.text
