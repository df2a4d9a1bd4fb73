"""Long work on the spool is seen to go on."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from tests.spool.journals import store
from tpxd.spool.damage import repair
from tpxd.spool.progress import Progress
from tpxd.spool.starting import start_journal


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What systemd has heard so far."""
    path = tmp_path / "notify"
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(path))
    receiver.setblocking(False)
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))

    def all_of_it() -> list[str]:
        texts = []
        with receiver:
            while True:
                try:
                    texts.append(receiver.recv(4_096).decode())
                except BlockingIOError:
                    return texts

    return all_of_it


def test_pages_in_which_nothing_is_found_are_signs_of_life_too(tmp_path: Path) -> None:
    path, told = tmp_path / "spool.db", list[str]()
    journal = start_journal(path, 4_096, lambda: 1_795_000_000.0, lambda event: None)
    store(journal, [10] * 20)
    journal.close()
    path.write_bytes(b"?" * 4_096 * 12 + path.read_bytes())
    start_journal(path, 4_096, lambda: 1_795_000_000.0, lambda event: None, alive=told.append).close()
    searched = [text for text in told if text.startswith("damaged pages of the spool are searched: ")]
    assert [int(text.split()[-1]) for text in searched] == list(range(1, len(searched) + 1))
    assert len(searched) >= 12


def test_a_long_repair_tells_systemd_and_the_log(
    tmp_path: Path, heard: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "spool.db"
    journal = start_journal(path, 4_096, lambda: 1_795_000_000.0, lambda event: None)
    store(journal, [10] * 20)
    journal.close()
    monkeypatch.setattr(repair, "TELL_EVERY", 10)
    seconds = count()
    progress = Progress(lambda: float(next(seconds)) * 4)
    content = path.read_bytes()
    path.write_bytes(b"?" + content[1:])
    with caplog.at_level(logging.INFO, "tpxd.spool.progress"):
        start_journal(path, 4_096, lambda: 1_795_000_000.0, lambda event: None, alive=progress).close()
    progress.done()
    texts = heard()
    assert "EXTEND_TIMEOUT_USEC=30000000" in texts
    assert "STATUS=the spool is moved into a new file: 20 rows so far" in texts
    assert texts[-1] == "STATUS="
    assert progress.text is None
    assert 0 < len(caplog.records) < texts.count("EXTEND_TIMEOUT_USEC=30000000"), "the log hears less often"
