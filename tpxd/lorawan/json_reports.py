"""The LRC's JSON, and how much of it: what is larger than any report is refused before it costs much."""

from __future__ import annotations

import json
from typing import Any, Final

import orjson

from tpxd.errors import ReportError

MAX_DEPTH: Final = 64
"""Objects and lists inside each other; real reports have six. What follows may recurse over a document without fear."""

VALUES: Final = b",{["
MAX_VALUES: Final = 16_384
"""Commas and opening brackets, in XML tags, attributes, references and lines too: the time that reading takes grows
with these, and hardly with the length."""


def document_from_json(body: bytes) -> Any:
    """The parsed body; `refuse_dense` it first.

    Raises:
        ReportError: it is no JSON, it nests too deep, or an object has a key twice.
    """
    if not body:
        raise ReportError("the body is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ReportError(f"the body is not valid JSON: {error}") from error
    if len(body) - len(body.translate(None, b"{[")) > MAX_DEPTH:  # counts both in one pass
        refuse_deep(document)
    # Of a doubled key only the last value is left, and with the other went a colon, which only an escape could replace.
    if b"\\u" in body or body.count(b":") != orjson.dumps(document).count(b":"):
        json.loads(body, object_pairs_hook=_refuse_doubled, parse_float=str, parse_int=str)
    return document


def refuse_dense(body: bytes, signs: bytes = VALUES) -> None:
    """Raise `ReportError` for more values than a report has; `signs` are what a body is counted by."""
    if len(body) > MAX_VALUES and len(body) - len(body.translate(None, signs)) > MAX_VALUES:
        raise ReportError(f"the body has more than {MAX_VALUES} values")


def refuse_deep(document: Any) -> None:
    """Raise `ReportError` for too much nesting; level by level, so that none makes this itself too deep."""
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return
    raise ReportError(f"the body nests objects and lists more than {MAX_DEPTH} deep")


def _refuse_doubled(pairs: list[tuple[str, Any]]) -> None:
    """Another parser might take the first value: then the Token would cover what nobody reads, or the reverse."""
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise ReportError(f"the body has the key {key[:40]!a} twice in one object")
        seen.add(key)
