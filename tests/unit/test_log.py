from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpxd.log import JournalFormatter, JsonFormatter, Repeats, TextFormatter, configure, is_journal, visible


def record(
    message: str, level: int = logging.WARNING, connection: str | None = None, *args: object
) -> logging.LogRecord:
    made = logging.LogRecord("tpxd.test", level, __file__, 1, message, args, None)
    if connection is not None:
        made.connection = connection
    return made


def crash() -> logging.LogRecord:
    try:
        raise ValueError("broken")
    except ValueError:
        return logging.LogRecord("tpxd.test", logging.ERROR, __file__, 1, "a bug", (), sys.exc_info())


@pytest.fixture
def root() -> Iterator[None]:
    """Whatever `configure` does ends with the test."""
    logger = logging.getLogger()
    before = logger.level, list(logger.handlers)
    yield
    logger.handlers[:] = before[1]
    logger.setLevel(before[0])


def test_a_line_for_a_terminal() -> None:
    line = TextFormatter().format(record("lost %s", logging.WARNING, "plant", "the link"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d WARNING plant: lost the link", line)


def test_a_connection_is_named_once() -> None:
    assert JournalFormatter().format(record("plant: OPENED", logging.INFO, "plant")) == "<6>plant: OPENED"
    assert JournalFormatter().format(record("plants grow", logging.INFO, "plant")) == "<6>plant: plants grow"


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (logging.WARNING + 5, 4),
        (logging.INFO, 6),
        (logging.DEBUG, 7),
        (1, 7),
    ],
)
def test_the_journal_reads_the_level(level: int, priority: int) -> None:
    assert JournalFormatter().format(record("m", level)) == f"<{priority}>m"


def test_every_line_of_a_traceback_keeps_its_level() -> None:
    lines = JournalFormatter().format(crash()).splitlines()
    assert lines[0] == "<3>a bug"
    assert lines[-1] == "<3>ValueError: broken"
    assert all(line.startswith("<3>") for line in lines)


def test_a_traceback_on_a_terminal() -> None:
    assert TextFormatter().format(crash()).endswith("\nValueError: broken")


def test_json_lines() -> None:
    warning = record("lost\nlink", logging.WARNING, "plant")
    warning.event = "state"
    document = json.loads(JsonFormatter().format(warning))
    assert document.pop("at").endswith("Z")
    assert document == {
        "level": "warning",
        "logger": "tpxd.test",
        "connection": "plant",
        "event": "state",
        "message": "lost\nlink",
    }
    traceback = json.loads(JsonFormatter().format(crash()))["traceback"]
    assert traceback.endswith("ValueError: broken")
    assert "\n" not in JsonFormatter().format(crash())


@given(st.text())
def test_what_a_far_end_wrote_stays_on_one_line_and_drives_no_terminal(text: str) -> None:
    shown = visible(text)
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", shown)
    assert visible(shown) == shown


def test_a_forged_line() -> None:
    line = JournalFormatter().format(record("topic a\n<2>all is lost\x1b[2J"))
    assert line == "<4>topic a\\n<2>all is lost\\x1b[2J"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_warning_that_repeats_is_shown_once_a_minute_with_a_count() -> None:
    clock = Clock()
    repeats = Repeats(clock)
    shown = []
    for _ in range(130):
        again = record("connection refused", logging.WARNING, "plant")
        if repeats.filter(again):
            shown.append(JournalFormatter().format(again))
        clock.now += 1
    assert shown == [
        "<4>plant: connection refused",
        "<4>plant: connection refused (59 more of these in the last 60 s)",
        "<4>plant: connection refused (59 more of these in the last 60 s)",
    ]


def test_only_identical_warnings_are_repeats() -> None:
    repeats = Repeats(Clock())
    different = [
        record("refused", logging.WARNING, "plant"),
        record("refused", logging.WARNING, "cloud"),
        record("refused", logging.ERROR, "plant"),
        record("timed out", logging.WARNING, "plant"),
    ]
    assert [repeats.filter(one) for one in different + different] == [True] * 4 + [False] * 4


def test_lines_about_states_come_in_pairs_already() -> None:
    repeats = Repeats(Clock())
    closed = record("CLOSED: connection refused", logging.WARNING, "plant")
    closed.event = "state"
    assert [repeats.filter(closed) for _ in range(3)] == [True] * 3


def test_news_and_bugs_are_never_hidden() -> None:
    repeats = Repeats(Clock())
    assert all(repeats.filter(record("OPENED", logging.INFO)) for _ in range(3))
    assert all(repeats.filter(crash()) for _ in range(3))


def test_what_is_remembered_is_bounded() -> None:
    repeats = Repeats(Clock())
    for number in range(5_000):
        assert repeats.filter(record(f"warning {number}"))
    assert len(repeats._shown) == 1_000
    assert repeats.filter(record("warning 0"))
    assert not repeats.filter(record("warning 4999"))


@pytest.mark.usefixtures("root")
def test_configure_writes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning", "text")
    configure("warning", "json")
    logging.getLogger("tpxd.x").info("not this")
    logging.getLogger("tpxd.x").warning("this", extra={"connection": "plant"})
    out, err = capsys.readouterr()
    assert out == ""
    assert [json.loads(line)["message"] for line in err.splitlines()] == ["this"]


@pytest.mark.usefixtures("root")
def test_foreign_loggers_are_tamed_at_debug(capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug", "text")
    logging.getLogger("httpcore.http11").debug("Authorization: Bearer secret")
    logging.getLogger("amqtt.broker").info("a packet")
    logging.getLogger("tpxd.x").debug("ours")
    err = capsys.readouterr().err
    assert [line.rpartition(" ")[2] for line in err.splitlines()] == ["ours"]


def test_the_journal_is_known_by_its_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "a").open("w") as ours, (tmp_path / "b").open("w") as redirected:
        status = os.fstat(ours.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert is_journal(ours)
        assert not is_journal(redirected)
        assert not is_journal(io.StringIO())


@pytest.mark.usefixtures("root")
def test_configure_speaks_to_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    with path.open("w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        monkeypatch.setattr(sys, "stderr", stream)
        configure("info", "text")
        logging.getLogger("tpxd.x").warning("this")
    assert path.read_text() == "<4>this\n"
