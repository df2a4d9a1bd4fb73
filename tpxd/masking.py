"""What is shown of texts that others wrote: one function for every output, the log, the control plane and the shell.

A far end may repeat our request to us, and people write passwords where none belong. A secret that stands behind its
usual name, or before the @ of a URL, is masked wherever the text came from.
"""

from __future__ import annotations

import re
from typing import Final

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
