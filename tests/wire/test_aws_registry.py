"""Questions to the registry of AWS IoT, and what its answers mean."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.wire.scripted_registry import (
    BROKEN,
    DENIED,
    KEY_ID,
    REGION,
    SECRET,
    THROTTLED,
    WRONG_KEY,
    Fault,
    ScriptedRegistry,
)
from tpxd.connectors.aws_iot.registry import Registry, open_registry
from tpxd.connectors.aws_iot.sigv4 import Signer
from tpxd.errors import AuthenticationFailed, LinkLost, Refused, Throttled, TransportError
from tpxd.wire.streams import Endpoint

THING = "70B3D5E75E00A1C4"
ARN = "arn:aws:iot:eu-central-1:076081621542:cert/28e7cc38a99f78b3"


@asynccontextmanager
async def asking(registry: ScriptedRegistry, secret: str = SECRET, port: int = 80) -> AsyncIterator[Registry]:
    async with trio.open_nursery() as nursery:

        async def dial(endpoint: Endpoint, timeout_s: float) -> trio.abc.Stream:
            near, far = memory_stream_pair()
            nursery.start_soon(registry.serve, far)
            await trio.lowlevel.checkpoint()
            return near

        endpoint = Endpoint(f"iot.{REGION}.amazonaws.com", port)
        signer = Signer(KEY_ID, secret, REGION, "iot")
        async with open_registry(endpoint, signer, dial, connect_timeout_s=5, answer_timeout_s=10) as ours:
            yield ours
        nursery.cancel_scope.cancel()


async def test_things_are_made_found_and_attached(autojump_clock: MockClock) -> None:
    registry = ScriptedRegistry()
    async with asking(registry) as ours:
        assert not await ours.describe_thing(THING)
        assert not await ours.create_thing(THING, "sensor")
        await ours.create_thing_type("sensor")
        assert await ours.create_thing(THING, "sensor")
        assert await ours.describe_thing(THING)
        await ours.attach_principal(THING, ARN)
    assert registry.things == {THING: "sensor"}
    assert registry.attached == [(ARN, THING)]
    assert registry.asked[0] == f"GET /things/{THING}"
    assert registry.asked[-1] == f"PUT /things/{THING}/principals"


async def test_what_exists_is_as_good_as_made(autojump_clock: MockClock) -> None:
    registry = ScriptedRegistry(things={THING: "other"}, types={"sensor"})
    async with asking(registry) as ours:
        await ours.create_thing_type("sensor")
        assert await ours.create_thing(THING, "sensor")
    assert registry.things == {THING: "other"}


@pytest.mark.parametrize("name", ["sensor:type-1_a", "a" * 128])
async def test_names_that_aws_allows_are_signed_as_they_are_sent(name: str, autojump_clock: MockClock) -> None:
    registry = ScriptedRegistry()
    async with asking(registry, port=8443) as ours:
        await ours.create_thing_type(name)
    assert registry.types == {name}


@pytest.mark.parametrize(
    ("fault", "error", "message", "hint"),
    [
        (DENIED, AuthenticationFailed, "403 Forbidden AccessDeniedException: User: arn", "iot:CreateThing in"),
        (Fault(401, "UnauthorizedException"), AuthenticationFailed, "iot:CreateThing: 401", "in the IAM policy"),
        (WRONG_KEY, AuthenticationFailed, "UnrecognizedClientException", "are accessKeyId"),
        (THROTTLED, Throttled, "iot:CreateThing: 429", None),
        (Fault(400, "ThrottlingException"), Throttled, "iot:CreateThing: 400", None),
        (BROKEN, LinkLost, "iot:CreateThing: 503", "outage"),
        (Fault(500, "InternalFailureException"), LinkLost, "iot:CreateThing: 500", "outage"),
        (Fault(400, "InvalidRequestException", "it is deprecated"), Refused, "it is deprecated", "deviceType"),
        (Fault(404, ""), Refused, "404 Not Found", "apiEndpoint"),
    ],
)  # fmt: skip
async def test_refusals_name_the_action_and_the_next_step(
    fault: Fault, error: type[TransportError], message: str, hint: str | None, autojump_clock: MockClock
) -> None:
    async with asking(ScriptedRegistry(faults=deque([fault]))) as ours:
        with pytest.raises(error, match=message) as caught:
            await ours.create_thing(THING, "sensor")
    assert type(caught.value) is error
    assert str(caught.value).startswith(f"iot.{REGION}.amazonaws.com: ")
    assert (hint or "") in (caught.value.hint or "")


async def test_patience_is_as_long_as_told(autojump_clock: MockClock) -> None:
    registry = ScriptedRegistry()
    registry.faults.append(THROTTLED)
    async with asking(registry) as ours:
        with pytest.raises(Throttled) as caught:
            await ours.describe_thing(THING)
    assert caught.value.retry_after_s == 7


async def test_a_wrong_secret_is_told_and_never_shown(autojump_clock: MockClock) -> None:
    async with asking(ScriptedRegistry(), secret="fAke-secret") as ours:
        with pytest.raises(AuthenticationFailed, match="InvalidSignatureException") as caught:
            await ours.describe_thing(THING)
    assert "fAke" not in f"{caught.value} {caught.value.hint}"


async def test_silence_is_a_lost_link(autojump_clock: MockClock) -> None:
    async with asking(ScriptedRegistry(silent=True)) as ours:
        with pytest.raises(LinkLost, match="no answer within 10000 ms"):
            await ours.describe_thing(THING)
