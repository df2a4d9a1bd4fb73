"""Regular expressions of a file that meet what a device or its owner wrote: neither can hold up everything else.

Only the first thousand characters of a text are looked at, and one evaluation gets 50 ms of processor time for all its
expressions together. Python's own `re` cannot be stopped; `regex` has its syntax and can.
"""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Callable
from typing import Final

import regex

TEXT_CHARACTERS: Final = 1_000
BUDGET_S: Final = 0.05
MOST_REPEATS: Final = 1_000
"""`regex` writes out what is repeated: a thousand times a thousand would take memory and minutes."""

_TOKEN: Final = re.compile(
    r"""\\. | \[\^?\]?(?:\\.|[^\]\\])*\] | \{(?P<low>\d*)(?P<comma>,?)(?P<high>\d*)\} | .""", re.DOTALL | re.VERBOSE
)


class Overrun(Exception):
    """The time of an evaluation is over."""


class Budget:
    """The processor time that one evaluation may take, on the thread that it runs on."""

    def __init__(self) -> None:
        self._until = 0.0

    def begin(self) -> None:
        """An evaluation begins."""
        self._until = time.thread_time() + BUDGET_S

    def left_s(self) -> float:
        """What is left; raises Overrun when nothing is."""
        left = self._until - time.thread_time()
        if left <= 0:
            raise Overrun
        return left


class BoundedRegex:
    """An expression that shares a budget with the others of its evaluation.

    Args:
        forgiving: one that earlier versions compiled and these bounds refuse runs on `re`, where nothing but the
            length of the text is bounded; for a file that ran before an upgrade.

    Attributes:
        pattern: as it was written.
        nested: a repetition stands inside of another, which may take very long on some texts.

    Raises:
        ValueError: it is none, or repeats too much; why, in one line.
    """

    def __init__(self, pattern: str, flags: int, budget: Budget, *, forgiving: bool = False) -> None:
        repeats, self.nested = survey(pattern)
        self.pattern = pattern
        self._budget = budget
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a set may mean another one some day
            try:
                self._compiled = _compiled(pattern, flags, repeats)
            except ValueError:
                if not forgiving:
                    raise
                self._compiled = _as_before(pattern, flags)

    def fullmatch(self, text: str) -> bool:
        """Whether it matches the whole text, cut at `TEXT_CHARACTERS`; raises Overrun."""
        return self._in_time(self._compiled.fullmatch, text)

    def search(self, text: str) -> bool:
        """Whether it matches some part of the text, cut at `TEXT_CHARACTERS`; raises Overrun."""
        return self._in_time(self._compiled.search, text)

    def _in_time(self, match: Callable[..., object], text: str) -> bool:
        left_s = self._budget.left_s()
        if isinstance(self._compiled, re.Pattern):
            return match(text[:TEXT_CHARACTERS]) is not None
        try:
            return match(text[:TEXT_CHARACTERS], timeout=left_s) is not None
        except TimeoutError:
            raise Overrun from None


def _compiled(pattern: str, flags: int, repeats: int) -> regex.Pattern[str] | re.Pattern[str]:
    if repeats > MOST_REPEATS:
        raise ValueError(f"a regular expression repeats more than {MOST_REPEATS} times")
    try:
        return regex.compile(pattern, flags)
    except regex.error as error:
        raise ValueError(f"{error} of a regular expression") from error


def _as_before(pattern: str, flags: int) -> re.Pattern[str]:
    """The expression on `re`, whose flag for ASCII has another number."""
    try:
        return re.compile(pattern, re.ASCII | flags & ~regex.ASCII if flags & regex.ASCII else flags)
    except re.error as error:
        raise ValueError(f"{error} of a regular expression") from error


def survey(pattern: str) -> tuple[int, bool]:
    """How often the most repeated part of an expression has to come, and whether a repetition stands inside of another.

    A rough reading, as far as these two go: `(a+)*` is nested, `(a{2}-)*` is not, since its inner part cannot vary.
    """
    groups: list[_Part] = [_Part()]
    last = _Part()
    nested = quantified = False
    for token in _TOKEN.finditer(pattern):
        text = token[0]
        is_braces = text[0] == "{" and (token["low"] or token["high"])
        if quantified and text in ("?", "+"):  # lazy or possessive
            quantified = False
        elif text in ("*", "+") or is_braces:
            low = int(token["low"][:9] or 0) if is_braces else 0
            high = low if is_braces and not token["comma"] else float((is_braces and token["high"]) or math.inf)
            nested |= last.varies and high > 1
            last.repeats *= max(low, 1)
            last.varies |= low != high and high > 1
            quantified = True
        elif text == "(":
            groups[-1].add(last)
            groups.append(_Part())
            last, quantified = _Part(), False
        elif text == ")" and len(groups) > 1:
            groups[-1].add(last)
            last, quantified = groups.pop(), False
        elif text != "?":
            groups[-1].add(last)
            last, quantified = _Part(), False
    groups.append(last)
    return max(part.repeats for part in groups), nested


class _Part:
    """A character, set or group: how often its most repeated part comes, and whether repeating varies its length."""

    def __init__(self) -> None:
        self.repeats = 1
        self.varies = False

    def add(self, inner: _Part) -> None:
        """It holds this as well."""
        self.repeats = max(self.repeats, inner.repeats)
        self.varies = self.varies or inner.varies
