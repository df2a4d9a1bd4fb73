"""The log: one line per record on standard error, for a terminal, for the journal, or as JSON.

    terminal   2026-11-20T10:00:01.234+01:00 WARNING plant: connection refused
    journal    <4>plant: connection refused          (systemd adds the time, and reads the level from <N>)
    json       {"at":"…","level":"warning","logger":"tpxd.events","connection":"plant","message":"…"}

A record that carries `connection` (by `extra=` or a `LoggerAdapter`) shows it. Control characters in messages are
escaped, since far ends write into them, and secrets that they repeat are masked. A warning or an error without
traceback that repeats word by word is shown once a minute; the next one shown says how many were not. Lines about a
connection's state are all shown, since they come in pairs: `connection.state_lines` sees to that.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import orjson

from tpxd.events import utc_text

MASK: Final = "*****"

_OF_TOKENS: Final = ("token=", "token\\", "token'", 'token" ', 'token":"', 'token": ')
_SIGNS: Final = (*_OF_TOKENS, "as_key", "askey", "authorization", "@", "downlinkmessages/")
"""Without one of these, in small letters, there is nothing to mask: long documents are passed on quickly."""

_IS: Final = r"""(?:\s*[:=]\s*|\\*["']\s*[:=]\s*\\*["'])"""
_WORD: Final = r"""[^\s"'\\,;<>&{}]+"""
_SECRETS: Final = re.compile(
    rf"""
    (?P<name> \b\w*token (?: = | \\*["']\s*[:=]\s*\\*["'] ) | \bas_?key{_IS} (?= [0-9a-f-]{{8}} ) ) {_WORD}
    | (?P<login> \b(?:proxy-)?authorization{_IS} ) (?! (?:basic|bearer) \\*["'] ) (?: [a-z][\w-]*\s+ )? {_WORD}
    | (?P<address> downlinkMessages/ ) {_WORD}
    | (?P<scheme> :// ) [^\s/"'\\@]+ (?=@)
    """,
    re.IGNORECASE | re.VERBOSE,
)


def masked(text: str) -> str:
    """The text as it may be shown; `Token=`, `AS_KEY`, `Authorization`, downlink addresses and logins in URLs lose
    their values."""
    small = text.lower()
    if not any(sign in small for sign in _SIGNS):
        return text
    return _SECRETS.sub(_without_value, text)


def _without_value(found: re.Match[str]) -> str:
    return (found["name"] or found["login"] or found["address"] or found["scheme"]) + MASK


QUOTED: Final = 200
"""So many characters of what a stranger or a far end wrote are repeated, at most."""


def quoted(text: str) -> str:
    """What somebody else wrote, as a message may repeat it: masked, on one line, and only then cut, since half of a
    secret is not recognised as one."""
    start = masked(text[: 8 * QUOTED])
    return " ".join("".join(c if c.isprintable() else " " for c in start).split())[:QUOTED]


REPEAT_S: Final = 60.0
REMEMBERED: Final = 1_000

# At DEBUG some of these write headers, credentials included, or a line for each packet.
FOREIGN: Final = ("aiormq", "amqtt", "asyncio", "hpack", "httpcore", "httpx", "hypercorn", "transitions", "watchfiles")

# The levels of syslog(3).
PRIORITIES: Final = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
ESCAPES: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 0x09} | {10: "\\n"}


def configure(level: str, form: str) -> None:
    """Send all records of the process to standard error; calling it again replaces what was set before.

    Args:
        level: the least that is logged, such as "info".
        form: "text" or "json".
    """
    stream = sys.stderr
    out = logging.StreamHandler(stream)
    out.setFormatter(_formatter(form, stream))
    out.addFilter(Repeats())
    logging.basicConfig(level=level.upper(), handlers=[out], force=True)
    for name in FOREIGN:
        logging.getLogger(name).setLevel(logging.WARNING)


def _formatter(wanted: str, stream: TextIO) -> logging.Formatter:
    if wanted == "json":
        return JsonFormatter()
    return JournalFormatter() if is_journal(stream) else TextFormatter()


def is_journal(stream: TextIO) -> bool:
    """Whether systemd connected this very stream to its journal.

    Source: systemd.exec(5), `$JOURNAL_STREAM`: device and inode of the stream; a child may have been redirected since.
    """
    try:
        there = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{there.st_dev}:{there.st_ino}"


class TextFormatter(logging.Formatter):
    """Local time with its offset, level, connection, message; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text, without a line break at the end."""
        at = datetime.fromtimestamp(record.created, UTC).astimezone().isoformat(timespec="milliseconds")
        lines = [f"{at} {record.levelname} {_message(record)}"]
        if record.exc_info:
            lines.append(masked(self.formatException(record.exc_info)))
        return "\n".join(lines)


class JournalFormatter(logging.Formatter):
    """The level as systemd reads it, in front of each line, so that a traceback keeps its level too."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text, without a line break at the end."""
        priority = next((number for level, number in PRIORITIES.items() if record.levelno >= level), 7)
        lines = [_message(record)]
        if record.exc_info:
            lines += masked(self.formatException(record.exc_info)).splitlines()
        return "\n".join(f"<{priority}>{line}" for line in lines)


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON, without a line break at the end."""
        document: dict[str, Any] = {
            "at": utc_text(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "connection": getattr(record, "connection", None),
            "event": getattr(record, "event", None),
            "message": masked(record.getMessage()) + getattr(record, "repeated", ""),
            "traceback": masked(self.formatException(record.exc_info)) if record.exc_info else None,
        }
        return orjson.dumps({key: value for key, value in document.items() if value is not None}).decode()


def _message(record: logging.LogRecord) -> str:
    message = masked(record.getMessage()) + getattr(record, "repeated", "")
    connection = getattr(record, "connection", None)
    if connection is not None and not message.startswith(f"{connection}:"):
        message = f"{connection}: {message}"
    return visible(message)


def visible(text: str) -> str:
    """The text on one line, control characters escaped: what a far end wrote must not drive a terminal."""
    return text.translate(ESCAPES)


class Repeats(logging.Filter):
    """Lets a warning pass once a minute, however often it comes, and counts the rest."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._shown: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown; the next one shown says how many were not."""
        if record.levelno < logging.WARNING or record.exc_info or getattr(record, "event", None) == "state":
            return True
        key = (record.name, record.levelno, getattr(record, "connection", None), record.getMessage())
        now = self._clock()
        shown_at, hidden = self._shown.pop(key, (float("-inf"), 0))
        if now - shown_at < REPEAT_S:
            self._shown[key] = (shown_at, hidden + 1)
            return False
        if len(self._shown) >= REMEMBERED:
            del self._shown[next(iter(self._shown))]
        self._shown[key] = (now, 0)
        if hidden:
            record.repeated = f" ({hidden} more of these in the last {now - shown_at:.0f} s)"
        return True
