"""JSONPath over reports, for patterns and matchers: what does not fit a report's types finds nothing in it.

Source: python-jsonpath, whose dialect has filters, `=~`, `in` and `contains`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonpath


class JsonPath:
    """A path as people write it.

    Raises:
        ValueError: it is none; why, in one line.
    """

    def __init__(self, text: str) -> None:
        try:
            self._query = jsonpath.compile(text)
        except (jsonpath.JSONPathError, re.error, ValueError, OverflowError) as error:
            # The last two come from numbers that are none, or that are too large, in paths and regular expressions.
            reason = str(error).partition("\n")[0]
            raise ValueError(f'"{text}" is no JSONPath: {reason}') from error

    def values(self, document: Mapping[str, Any]) -> Iterator[Any]:
        """What it finds, in order; it ends where a filter meets types that it cannot compare."""
        try:
            for match in self._query.finditer(document):
                yield match.obj
        except (jsonpath.JSONPathError, TypeError):
            # The library leaves the type to Python where `in` and `contains` look into a text.
            return
