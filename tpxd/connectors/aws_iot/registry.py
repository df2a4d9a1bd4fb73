"""The device registry of AWS IoT Core: things, their types, and the certificates that belong to them.

    CreateThing, CreateThingType, DescribeThing     what is there already is as good as made
    AttachThingPrincipal                            may be repeated

Errors say which action AWS refused, by the name that its policies use.

Source: AWS IoT API Reference, "AWS IoT" (actions, their HTTP form and errors); "Common Errors".
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Container, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import orjson

from tpxd.connectors.aws_iot.sigv4 import Signer
from tpxd.errors import AuthenticationFailed, LinkLost, Refused, Throttled, TransportError
from tpxd.log import quoted
from tpxd.wire.http.answer import Answer, patience_s, request_head, status_text
from tpxd.wire.http.client import HttpClient, open_http_client
from tpxd.wire.proxy import host_and_port
from tpxd.wire.streams import Dial, Endpoint

NOT_FOUND: Final = "ResourceNotFoundException"
EXISTS: Final = "ResourceAlreadyExistsException"
THROTTLED: Final = frozenset(
    {"ThrottlingException", "Throttling", "TooManyRequestsException", "LimitExceededException"}
)
DENIED: Final = frozenset({"AccessDeniedException", "AccessDenied", "UnauthorizedException"})


@dataclass(frozen=True, slots=True)
class Registry:
    """What the body of `open_registry` asks through; several tasks may ask at once.

    Every method raises:
        AuthenticationFailed: the keys are wrong, or their policy does not allow the action.
        Throttled: too many questions.
        Refused: the registry says no for another reason.
        LinkLost: it cannot be reached, or is broken at the moment.

    Cancellation: what was asked may or may not have been done.
    """

    client: HttpClient
    host: str
    signer: Signer
    wall: Callable[[], float] = time.time

    async def describe_thing(self, name: str) -> bool:
        """Whether there is a thing of this name."""
        return await self._ask("DescribeThing", "GET", f"/things/{name}", tolerated=(NOT_FOUND,)) is None

    async def create_thing(self, name: str, type_name: str) -> bool:
        """Make a thing; False when the type is not there. One that exists stays as it is."""
        body = orjson.dumps({"thingTypeName": type_name})
        fault = await self._ask("CreateThing", "POST", f"/things/{name}", body, tolerated=(NOT_FOUND, EXISTS))
        return fault != NOT_FOUND

    async def create_thing_type(self, name: str) -> None:
        """Make a type; one that exists stays as it is."""
        await self._ask("CreateThingType", "POST", f"/thing-types/{name}", b"{}", tolerated=(EXISTS,))

    async def attach_principal(self, name: str, principal: str) -> None:
        """Say that a certificate belongs to a thing.

        Args:
            principal: the certificate's ARN.
        """
        headers = [("X-Amzn-Principal", principal)]
        await self._ask("AttachThingPrincipal", "PUT", f"/things/{name}/principals", headers=headers)

    async def _ask(
        self,
        action: str,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Sequence[tuple[str, str]] = (),
        tolerated: Container[str] = (),
    ) -> str | None:
        """None when it was done, or which of the tolerated errors came instead."""
        unsigned = [("Host", self.host), ("Content-Type", "application/json"), *headers]
        now = datetime.fromtimestamp(self.wall(), UTC)
        signed = [*unsigned, *self.signer.signed_headers(method, path, unsigned, body, now)]
        lines = [(name.encode(), value.encode()) for name, value in signed]
        answer = await self.client.post(request_head(method.encode(), path.encode(), lines), body)
        if 200 <= answer.status < 300:
            return None
        fault, text = _said(answer)
        if fault in tolerated:
            return fault
        raise self._failure(action, answer, fault, text)

    def _failure(self, action: str, answer: Answer, fault: str, text: str) -> TransportError:
        named = f"{status_text(answer.status)} {fault}".rstrip()
        message = f"{self.host}: iot:{action}: {named}" + (f": {text}" if text else "")
        if answer.status == 429 or fault in THROTTLED:
            return Throttled(message, retry_after_s=patience_s(answer.headers.get(b"retry-after"), self.wall()))
        if fault in DENIED:
            return AuthenticationFailed(message, hint=f"allow iot:{action} in the IAM policy of accessKeyId")
        if answer.status in (401, 403):
            hint = "are accessKeyId, secretAccessKey and region right, and is the clock of this machine right?"
            return AuthenticationFailed(message, hint=hint)
        if answer.status >= 500:
            return LinkLost(message, hint="AWS's health dashboard tells whether the registry has an outage")
        if not fault:
            return Refused(message, hint="is apiEndpoint the address of an AWS IoT registry?")
        return Refused(message, hint=_HINTS.get(action))


_HINTS = {
    "CreateThing": "is deviceType a thing type that is not deprecated?",
    "AttachThingPrincipal": "is certificateId the ARN of a certificate of this account and region?",
}


def _said(answer: Answer) -> tuple[str, str]:
    """The error's name and its text; AWS sends the name with a colon and more behind it at times."""
    try:
        document = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        document = None
    parts = document if isinstance(document, dict) else {}
    name = answer.headers.get(b"x-amzn-errortype", b"").decode("latin-1") or str(parts.get("__type", ""))
    text = str(parts.get("message") or parts.get("Message") or "")
    return quoted(name.partition(":")[0].rpartition("#")[2]), quoted(text)


@asynccontextmanager
async def open_registry(
    endpoint: Endpoint, signer: Signer, dial: Dial, *, connect_timeout_s: float, answer_timeout_s: float
) -> AsyncIterator[Registry]:
    """Open a link to the registry, and yield what asks through it.

    Raises:
        ConnectFailed, AuthenticationFailed: it cannot be reached, or a proxy before it refuses us.

    Cancellation: all links are closed.
    """
    default_port = 80 if endpoint.tls is None else 443
    host = host_and_port(endpoint.host, endpoint.port).removesuffix(f":{default_port}")
    async with open_http_client(
        endpoint, dial, connect_timeout_s=connect_timeout_s, answer_timeout_s=answer_timeout_s
    ) as client:
        yield Registry(client, host, signer)
