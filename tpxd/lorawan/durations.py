"""Durations and sizes as people write them in a file, and durations as tpxd writes them back."""

from __future__ import annotations

import re
from decimal import Decimal

MAX_DURATION_S = 36_500 * 86_400
MAX_SIZE_BYTES = 1 << 60

_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "tib": 1 << 40,
}

_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,9})?)"
_PART = re.compile(rf"{_NUMBER}(ms|[dhms])")
_DURATION = re.compile(r"(?:[0-9.]+(?:ms|[dhms]) ?)+")
_SIZE = re.compile(rf"{_NUMBER} ?([A-Za-z]{{1,3}})")


def parse_duration(text: str) -> float:
    """Read a duration such as "90s", "5m", "72h", "2d", "1h30m", "2h 5m" or "250ms" and return seconds.

    Units go from large to small, each at most once.

    Raises:
        ValueError: it is no duration; the message gives an example.
    """
    text = text.strip()
    parts = _PART.findall(text)
    units = [unit for _, unit in parts]
    # What was found must be everything that is there: findall skips over what it does not know.
    if not _DURATION.fullmatch(text) or "".join(map("".join, parts)) != text.replace(" ", ""):
        raise ValueError(f'{text[:40]!r} is no duration; write it as "90s", "5m", "1h30m", "72h" or "2d"')
    if units != [unit for unit in _MILLISECONDS if unit in units]:
        raise ValueError(f'{text[:40]!r} names its units out of order or twice; write it as "2d", "1h30m" or "1m30s"')
    seconds = float(sum(Decimal(number) * _MILLISECONDS[unit] for number, unit in parts) / 1_000)
    if seconds > MAX_DURATION_S:
        raise ValueError(f'{text[:40]!r} is longer than 36500 days; write it as "72h" or "2d"')
    return seconds


def format_duration(seconds: float) -> str:
    """Write seconds as "2h 5m", to the millisecond; what `parse_duration` reads, unless they are negative."""
    remaining = round(abs(seconds) * 1_000)
    sign = "-" if seconds < 0 and remaining else ""
    parts = []
    for unit, milliseconds in _MILLISECONDS.items():
        count, remaining = divmod(remaining, milliseconds)
        if count:
            parts.append(f"{count}{unit}")
    return sign + (" ".join(parts) or "0s")


def parse_size(text: str) -> int:
    """Read a size such as "256 KiB", "1 GiB", "64 kB" or "512 B" and return bytes.

    Raises:
        ValueError: it is no size; the message gives an example.
    """
    match = _SIZE.fullmatch(text.strip())
    factor = _BYTES.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f'{text[:40]!r} is no size; write it as "256 KiB", "64 MiB" or "1 GiB"')
    size = int(Decimal(match[1]) * factor)
    if size > MAX_SIZE_BYTES:
        raise ValueError(f'{text[:40]!r} is more than any disk holds; write it as "256 KiB" or "1 GiB"')
    return size
