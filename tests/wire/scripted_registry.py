"""A registry of AWS IoT that keeps things in memory, for tests: it checks each signature with botocore.

What it answers, real AWS answers: status, `x-amzn-ErrorType` and a JSON message.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from unittest import mock

import orjson
import trio
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

KEY_ID, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
REGION = "eu-central-1"


@dataclass(frozen=True, slots=True)
class Fault:
    """An answer that is no success."""

    status: int
    kind: str
    message: str = "no"
    headers: str = ""


NOT_FOUND = Fault(404, "ResourceNotFoundException", "The specified resource does not exist")
THROTTLED = Fault(429, "ThrottlingException", "Rate exceeded", "Retry-After: 7\r\n")
DENIED = Fault(403, "AccessDeniedException", "User: arn:aws:iam::1:user/x is not authorized to perform it")
WRONG_KEY = Fault(403, "UnrecognizedClientException", "The security token included in the request is invalid")
BROKEN = Fault(503, "ServiceUnavailableException")


@dataclass(slots=True)
class ScriptedRegistry:
    """The registry.

    Attributes:
        things: the type of each thing, by its name.
        attached: certificate and thing.
        asked: method and path of each request, in order.
        faults: given as answers to the next requests, instead of doing what they ask for.
        always: given as the answer to every request of a method and the begin of a path.
        silent: requests are read and never answered.
    """

    things: dict[str, str] = field(default_factory=dict)
    types: set[str] = field(default_factory=set)
    attached: list[tuple[str, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    faults: deque[Fault] = field(default_factory=deque)
    always: dict[str, Fault] = field(default_factory=dict)
    silent: bool = False
    most_at_once: int = 0
    _at_once: int = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Speak on one link until the client closes it."""
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        unread = b""
        try:
            while data := await stream.receive_some():
                unread += data
                head, blank, rest = unread.partition(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
                size = int(headers.get("content-length", 0))
                if not blank or len(rest) < size:
                    continue
                body, unread = bytes(rest[:size]), rest[size:]
                method, target, _ = lines[0].split(" ")
                self.asked.append(f"{method} {target}")
                if not self.silent:
                    await stream.send_all(_written(self._answer(method, target, headers, body)))
        finally:
            self._at_once -= 1

    def _answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Fault | None:
        if headers["authorization"] != _signature(method, target, headers, body):
            return Fault(403, "InvalidSignatureException")
        if self.faults:
            return self.faults.popleft()
        for begin, fault in self.always.items():
            if f"{method} {target}".startswith(begin):
                return fault
        _, kind, name, *more = target.split("/")
        match method, kind, more:
            case "GET", "things", []:
                return None if name in self.things else NOT_FOUND
            case "POST", "thing-types", []:
                if name in self.types:
                    return Fault(409, "ResourceAlreadyExistsException")
                self.types.add(name)
                return None
            case "POST", "things", []:
                type_name = orjson.loads(body)["thingTypeName"]
                if type_name not in self.types:
                    return NOT_FOUND
                if self.things.setdefault(name, type_name) != type_name:
                    return Fault(409, "ResourceAlreadyExistsException")
                return None
            case "PUT", "things", ["principals"]:
                self.attached.append((headers["x-amzn-principal"], name))
                return None
        return Fault(400, "InvalidRequestException")


def _signature(method: str, target: str, headers: dict[str, str], body: bytes) -> str:
    signed = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "x-amz-date"} <= set(signed)
    request = AWSRequest(method, f"https://{headers['host']}{target}", data=body)
    for name in signed:
        if name != "x-amz-date":
            request.headers[name] = headers[name]
    now = datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ")
    with mock.patch("botocore.auth.get_current_datetime", return_value=now):
        SigV4Auth(Credentials(KEY_ID, SECRET), "iot", REGION).add_auth(request)
    return str(request.headers["Authorization"])


def _written(fault: Fault | None) -> bytes:
    if fault is None:
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    body = orjson.dumps({"message": fault.message})
    head = f"HTTP/1.1 {fault.status} X\r\nx-amzn-ErrorType: {fault.kind}:\r\n{fault.headers}Content-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body
