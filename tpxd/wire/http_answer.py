"""What every HTTP client makes of an answer: how long it asks to wait, and how much of its words is repeated.

Source: RFC 9110, 10.2.3 (Retry-After).
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Final

PATIENCE_S: Final = 5.0
"""How long to wait when a server asks for patience and does not say how much."""
MOST_PATIENCE_S: Final = 3_600.0
EXCERPT_CHARACTERS: Final = 200
"""So much of a server's own words is shown."""


def patience_s(retry_after: bytes | None, now_s: float) -> float:
    """Read a Retry-After header: seconds or a date (RFC 9110, 10.2.3).

    Returns:
        1 to `MOST_PATIENCE_S` seconds; `PATIENCE_S` where the header is missing or says nothing.
    """
    text = (retry_after or b"").decode("latin-1").strip()
    try:
        seconds = float(text[:10]) if text.isdecimal() else parsedate_to_datetime(text).timestamp() - now_s
    except (ValueError, OverflowError):
        return PATIENCE_S
    return min(max(seconds, 1.0), MOST_PATIENCE_S)
