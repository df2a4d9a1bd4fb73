"""The token with which an LRC signs a report.

Source: LRC tunnel interface, "Token": SHA-256 over body elements, query elements and the AS key, none separated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

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
