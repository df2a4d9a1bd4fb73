"""The token with which an LRC signs a report, and the one that it wants with a downlink.

Source: LRC tunnel interface, "Token": SHA-256 over body elements, query elements and the AS key, none separated; of a
downlink, which has no body, over everything before `&Token=`, not percent-encoded, and the key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_plus

ELEMENTS = {
    "DevEUI_uplink": ("FPort", "FCntUp", "payload_hex"),
    "DevEUI_downlink_Sent": ("FPort", "FCntDn"),
    "DevEUI_location": (),
    "DevEUI_notification": (),
}
"""What follows CustomerID and DevEUI; nothing is documented for other reports."""

WHEN_MISSING = {"FPort": "0"}


def sign(kind: str, fields: Mapping[str, Any], query: Iterable[tuple[str, str]], key: str) -> str:
    """The token of a report, 64 lower-case hex digits.

    Args:
        kind: the report's root key.
        fields: what stands inside it, numbers as integers.
        query: the parameters before `Token`, decoded, in the order in which they are sent.
        key: the AS key as it was entered, case and all.

    A join request has neither FCntUp nor payload; both count as empty here, which is not documented.
    """
    dev_eui = fields["DevEUI"].lower() if kind == "DevEUI_location" else fields["DevEUI"]
    elements = [str(fields.get(name, WHEN_MISSING.get(name, ""))) for name in ELEMENTS[kind]]
    parameters = "&".join(f"{name}={value}" for name, value in query)
    text = fields["CustomerID"] + dev_eui + "".join(elements) + parameters + key
    return hashlib.sha256(text.encode()).hexdigest()


def is_signed(query: str, key: str) -> bool:
    """Whether a downlink's query string, percent-encoded as it came, ends with the token that this key makes.

    A `+` that was not encoded is a space here, as for any server that decodes a query; the token does not hold then.
    """
    signed, _, token = query.rpartition("&Token=")
    expected = hashlib.sha256((unquote_plus(signed, errors="surrogateescape") + key).encode("utf-8", "surrogateescape"))
    return hmac.compare_digest(expected.hexdigest().encode(), token.encode("utf-8", "surrogateescape"))
