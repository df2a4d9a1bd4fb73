"""Tokens that came before, so that a captured one is good for its own report alone.

A Token covers a few fields without separators, and only these: the same Token may fit another body. It is valid for as
long as its Time is, and so long its body is remembered here.
"""

from __future__ import annotations

from typing import Final

MOST: Final = 262_144
_DIGITS: Final = 16
"""Of a Token's hex digits, so many are kept: 8 bytes."""


class SeenTokens:
    """Which body came with each Token; the oldest are forgotten first, at the latest after twice the window.

    Two generations, so that nothing needs a time of its own: when the young one is a window old, or has half of all,
    it becomes the old one, and the old one is forgotten.

    Args:
        window_s: for how long a Token can be valid.
    """

    def __init__(self, window_s: float, most: int = MOST) -> None:
        self._window_s = window_s
        self._half = most // 2
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}
        self._began_s = 0.0

    def first_with(self, token: str, body: bytes, now_s: float) -> bool:
        """Whether no other body came with this Token; `token` is 64 hex digits that were verified."""
        if len(self._young) >= self._half or abs(now_s - self._began_s) >= self._window_s:
            self._old, self._young, self._began_s = self._young, {}, now_s
        short, mark = int(token[:_DIGITS], 16), hash(body)
        known = self._old.get(short)
        if known is None:
            known = self._young.setdefault(short, mark)
        return known == mark
