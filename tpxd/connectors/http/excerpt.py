"""What may be shown of a request and its answer: headers' names that are no secret, and a server's own words."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Final

from tpxd.log import quoted

KNOWN: Final = frozenset({
    "accept", "accept-encoding", "accept-language", "api-key", "apikey", "authorization", "cache-control",
    "content-encoding", "content-length", "content-type", "cookie", "date", "fiware-service", "fiware-servicepath",
    "from", "host", "link", "ocp-apim-subscription-key", "origin", "pragma", "prefer", "proxy-authorization",
    "referer", "traceparent", "user-agent", "via",
})  # fmt: skip
_OF_WORDS: Final = re.compile(r"x(-[a-z]{1,12}){1,4}", re.IGNORECASE)
"""Names that people give to headers of their own. A secret that came to the place of a name hardly looks like one."""

_UNSEEN: Final = re.compile(r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
_TAG: Final = re.compile(r"<[^>]*(?:>|\Z)")


def names_shown(names: Sequence[str]) -> str:
    """The names of headers, in one line; `…` for one that might be a secret in the wrong place."""
    return ", ".join(name if name.lower() in KNOWN or _OF_WORDS.fullmatch(name) else "…" for name in names)


def excerpt(text: str, secrets: Sequence[str]) -> str:
    """The first of what a server says, in one line, without what repeats our secrets; of a page only what one reads."""
    text = _masked(text, secrets)
    if text.lstrip("\ufeff \t\r\n").startswith("<"):
        text = _masked(html.unescape(_TAG.sub(" ", _UNSEEN.sub(" ", text))), secrets)
    return quoted(text.lstrip())


def _masked(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "*****")
    return text
