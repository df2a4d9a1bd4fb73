"""AWS Signature Version 4: proves that a request comes from who holds a secret access key, without sending the key.

Pure: nothing is sent, and time is an argument. A signature is valid for some minutes around that time.

What this does not do: temporary credentials (session tokens), bodies signed in chunks, the path rules of Amazon S3.

Source: AWS Identity and Access Management User Guide, "AWS Signature Version 4 for API requests"; for the signed URL
AWS IoT Core Developer Guide, "MQTT over the WebSocket Protocol".
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final
from urllib.parse import quote, unquote

ALGORITHM: Final = "AWS4-HMAC-SHA256"

Pairs = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs requests to one service of one region.

    Attributes:
        service: the name by which the service is signed for, such as "iot".
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    region: str
    service: str

    def signed_headers(
        self, method: str, target: str, headers: Pairs, body: bytes, now: datetime
    ) -> list[tuple[str, str]]:
        """The headers that a request needs besides: X-Amz-Date and Authorization.

        Args:
            target: path and query, encoded as they go out.
            headers: what is signed, Host among them; intermediaries may change others, so leave those out.
            now: with a time zone.
        """
        date = _date(now)
        path, _, query = target.partition("?")
        signed = [*headers, ("X-Amz-Date", date)]
        request = _canonical_request(method, path, _parameters(query), signed, sha256(body).hexdigest())
        authorization = (
            f"{ALGORITHM} Credential={self.access_key_id}/{self._scope(date)}, "
            f"SignedHeaders={_names(signed)}, Signature={self._signature(date, request)}"
        )
        return [("X-Amz-Date", date), ("Authorization", authorization)]

    def signed_query(self, path: str, host: str, now: datetime, lasts_s: int) -> str:
        """The query that lets a GET of `path` in, for so long.

        Args:
            host: the Host header that the request will carry.
            now: with a time zone.
        """
        date = _date(now)
        parameters = [
            ("X-Amz-Algorithm", ALGORITHM),
            ("X-Amz-Credential", f"{self.access_key_id}/{self._scope(date)}"),
            ("X-Amz-Date", date),
            ("X-Amz-Expires", str(lasts_s)),
            ("X-Amz-SignedHeaders", "host"),
        ]
        request = _canonical_request("GET", path, parameters, [("host", host)], sha256(b"").hexdigest())
        return f"{_canonical_query(parameters)}&X-Amz-Signature={self._signature(date, request)}"

    def _scope(self, date: str) -> str:
        return f"{date[:8]}/{self.region}/{self.service}/aws4_request"

    def _signature(self, date: str, request: str) -> str:
        to_sign = f"{ALGORITHM}\n{date}\n{self._scope(date)}\n{sha256(request.encode()).hexdigest()}"
        key = f"AWS4{self.secret_access_key}".encode()
        for part in (*self._scope(date).split("/"), to_sign):
            key = hmac.digest(key, part.encode(), "sha256")
        return key.hex()


def _date(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def _canonical_request(method: str, path: str, parameters: Pairs, headers: Pairs, body_digest: str) -> str:
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name.lower(), []).append(" ".join(value.split()))
    lines = "".join(f"{name}:{','.join(values[name])}\n" for name in sorted(values))
    return "\n".join(
        (method, _canonical_path(path), _canonical_query(parameters), lines, ";".join(sorted(values)), body_digest)
    )


def _names(headers: Pairs) -> str:
    return ";".join(sorted({name.lower() for name, _ in headers}))


def _canonical_path(path: str) -> str:
    """The path without detours, encoded once more: every service but Amazon S3 wants what is encoded encoded again."""
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            segments[-1:] = []
        elif segment not in ("", "."):
            segments.append(segment)
    end = "/" if segments and path.endswith("/") else ""
    return quote(f"/{'/'.join(segments)}{end}", safe="/~")


def _parameters(query: str) -> Pairs:
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        yield unquote(name), unquote(value)


def _canonical_query(parameters: Pairs) -> str:
    encoded = sorted((quote(name, safe="~"), quote(value, safe="~")) for name, value in parameters)
    return "&".join(f"{name}={value}" for name, value in encoded)
