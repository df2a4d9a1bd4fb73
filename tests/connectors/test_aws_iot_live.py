"""The AWS IoT connector against a Mosquitto behind AWS's kind of gate, and moto as the registry of devices."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.connectors.aws_gate import DATA_HOST, Gate, open_gate
from tests.connectors.opening import context
from tests.connectors.peers import AwsIotPeer
from tests.connectors.traffic import LANES, Receipts, outgoing
from tests.daemon.conftest import Subscriber
from tests.daemon.harness import eventually
from tests.peers import pki
from tests.peers.mosquitto import running_mosquitto
from tests.peers.moto import Moto
from tests.peers.ports import free_port
from tests.peers.tinyproxy import running_tinyproxy
from tpxd.connector import Outgoing
from tpxd.connectors.aws_iot.config import ALPN, WSS_HINT, AwsIotConfig
from tpxd.connectors.aws_iot.connector import MAX_BODY_BYTES, open_aws_iot
from tpxd.errors import AuthenticationFailed, TransportError

pytestmark = pytest.mark.broker

A, B, C = LANES
BODIES = ['{"name": "Pömpe"}'.encode(), bytes(range(256)) * 4, b"x" * MAX_BODY_BYTES, b"{}"]
EXPECTED = [(f"plant/{(A, B)[n % 2]}/up", body) for n, body in enumerate(BODIES)]
WSS = {"protocol": "WSS", "certificate": None, "privateKey": None}


def config(moto: Moto, gate: Gate | None = None, **values: Any) -> AwsIotConfig:
    basis: dict[str, Any] = {"apiEndpoint": moto.url, "trustedCaCertificate": pki.ca().certificate}
    if gate is not None:
        basis["proxy"] = {"hostname": f"127.0.0.1:{gate.port}"}
    return AwsIotConfig.model_validate(AwsIotPeer.settings | basis | values)


def batch() -> list[Outgoing]:
    return [replace(outgoing(n, (A, B)[n % 2]), body=body) for n, body in enumerate(BODIES)]


@asynccontextmanager
async def witness(port: int) -> AsyncIterator[Subscriber]:
    """An independent subscriber."""
    subscriber = await trio.to_thread.run_sync(Subscriber, port)
    try:
        yield subscriber
    finally:
        await trio.to_thread.run_sync(subscriber.close)


async def deliver(settings: AwsIotConfig, subscriber: Subscriber) -> list[tuple[str, bytes]]:
    """Send the batch; returns what the subscriber has got of it, in order of arrival."""
    receipts = Receipts()
    async with open_aws_iot(settings, context()) as transport:
        await transport.send(batch(), receipts)
    assert receipts.delivered_ == [*range(len(BODIES))]
    await trio.to_thread.run_sync(eventually, "the subscriber has all", lambda: len(subscriber.messages) == len(BODIES))
    return subscriber.messages


async def refusal(settings: AwsIotConfig) -> TransportError:
    """What becomes of an opening that is not wanted."""
    with pytest.raises(TransportError) as caught:
        async with open_aws_iot(settings, context()):
            pytest.fail("it opened")
    return caught.value


# ---- the gate


@pytest.mark.parametrize(("endpoint", "protocol"), [(None, None), (f"{DATA_HOST}:443", ALPN)])
async def test_tls_names_its_protocol_where_the_port_is_for_several(
    tmp_path: Path, moto: Moto, endpoint: str | None, protocol: str | None
) -> None:
    async with (
        running_mosquitto(tmp_path) as broker,
        open_gate(tmp_path, broker.port) as gate,
        witness(broker.port) as subscriber,
    ):
        assert await deliver(config(moto, gate, endpoint=endpoint), subscriber) == EXPECTED
    assert gate.asked[:2] == [endpoint or f"{DATA_HOST}:8883", moto.url.removeprefix("http://")]
    assert (gate.protocols, gate.names, gate.clients) == ([protocol], [DATA_HOST], ["plant"])
    assert moto.things() == {A: "sensor", B: "sensor"}


async def test_a_signed_url_lets_in_and_a_wrong_key_does_not(tmp_path: Path, moto: Moto) -> None:
    web = free_port()
    # Debian's Mosquitto 2.0.11 ends at once with WebSocket listeners alone, so the plain one stays
    async with (
        running_mosquitto(tmp_path, listener=f"listener {web} 127.0.0.1\nprotocol websockets") as broker,
        open_gate(tmp_path, web, websocket=True) as gate,
        witness(broker.port) as subscriber,
    ):
        assert await deliver(config(moto, gate, **WSS), subscriber) == EXPECTED
        error = await refusal(config(moto, gate, **WSS, secretAccessKey="another"))
    assert type(error) is AuthenticationFailed
    assert error.message.startswith(f"{DATA_HOST}:443 through proxy ")
    assert error.message.endswith(": 403 Forbidden (WebSocket handshake)")
    assert error.hint == WSS_HINT
    assert len(gate.urls) == 2
    assert all(re.fullmatch(r"/mqtt\?X-Amz-Algorithm=AWS4-HMAC-SHA256&\S+", url) for url in gate.urls)
    assert (gate.protocols, gate.clients) == ([None, None], ["", ""])


async def test_a_signed_url_passes_mosquittos_own_tls_too(tmp_path: Path, moto: Moto) -> None:
    certificate, key = pki.server("127.0.0.1").write(tmp_path, "server")
    port = free_port()
    listener = f"listener {port} 127.0.0.1\nprotocol websockets\ncertfile {certificate}\nkeyfile {key}"
    async with running_mosquitto(tmp_path, listener=listener) as broker, witness(broker.port) as subscriber:
        assert await deliver(config(moto, None, endpoint=f"127.0.0.1:{port}", **WSS), subscriber) == EXPECTED
        foreign = pki.issue("Another CA", is_ca=True).certificate
        error = await refusal(config(moto, None, endpoint=f"127.0.0.1:{port}", **WSS, trustedCaCertificate=foreign))
    assert "was not issued by the CA that is set" in error.message


@pytest.mark.parametrize("reaches_registry", [True, False])
async def test_a_real_proxy_carries_uplinks_and_questions(tmp_path: Path, moto: Moto, reaches_registry: bool) -> None:
    certificate, key = pki.server("127.0.0.1").write(tmp_path, "server")
    authority, _ = pki.ca().write(tmp_path, "ca")
    port = free_port()
    listener = f"listener {port} 127.0.0.1\nrequire_certificate true\ncafile {authority}\n"
    ports = [port, int(moto.url.rpartition(":")[2])] if reaches_registry else [port]
    with running_tinyproxy(login="tpx:s3cret-of-the-proxy", tunnels_to=ports) as proxy:

        def behind(password: str) -> AwsIotConfig:
            hop = {"hostname": f"127.0.0.1:{proxy.port}", "username": "tpx", "password": password}
            return config(moto, endpoint=f"127.0.0.1:{port}", proxy=hop)

        async with (
            running_mosquitto(tmp_path, listener=f"{listener}certfile {certificate}\nkeyfile {key}") as broker,
            witness(broker.port) as subscriber,
        ):
            # the registry is no part of the way of an uplink
            assert await deliver(behind("s3cret-of-the-proxy"), subscriber) == EXPECTED
            error = await refusal(behind("wrong"))
    assert type(error) is AuthenticationFailed
    assert error.message.startswith(f"proxy 127.0.0.1:{proxy.port}: 40")
    assert moto.things() == (dict.fromkeys((A, B), "sensor") if reaches_registry else {})


# ---- the registry


async def test_what_moto_refuses_is_told_with_the_next_step(tmp_path: Path, moto: Moto) -> None:
    foreign = "arn:aws:iot:eu-central-1:123456789012:cert/0a1b2c"
    moto.client.create_thing_type(thingTypeName="retired")
    moto.client.deprecate_thing_type(thingTypeName="retired")
    cases: dict[str, dict[str, Any]] = {
        A: {"certificateId": foreign},
        # to make a type again is enough for moto to forget that it was deprecated
        B: {"deviceType": "retired", "createDeviceTypes": False},
        C: {"deviceType": "new", "createDeviceTypes": False},
    }
    troubles: list[TransportError | None] = []
    async with running_mosquitto(tmp_path) as broker, open_gate(tmp_path, broker.port) as gate:
        for lane, values in cases.items():
            receipts = Receipts()
            here = context(troubled=troubles.append)
            async with open_aws_iot(config(moto, gate, **values), here) as transport:
                await transport.send([outgoing(1, lane)], receipts)
            assert receipts.delivered_ == [0], "the registry is no part of the way of an uplink"
    assert [error and error.hint for error in troubles] == [
        "is certificateId the ARN of a certificate of this account and region?",
        "is deviceType a thing type that is not deprecated?",
        "create it, or set createDeviceTypes = true",
    ]


async def test_what_moto_does_not_know_is_left_out(tmp_path: Path, moto: Moto) -> None:
    moto.client.create_thing(thingName=A)
    receipts = Receipts()
    async with (
        running_mosquitto(tmp_path) as broker,
        open_gate(tmp_path, broker.port) as gate,
        open_aws_iot(config(moto, gate, createDevices=False), context()) as transport,
    ):
        await transport.send([outgoing(n, lane) for n, lane in enumerate((A, B, A, C))], receipts)
    assert (receipts.delivered_, [*receipts.filtered_]) == ([0, 2], [1, 3])
    assert moto.asked("POST") == [f"/things/{A}"], "by this test itself"
    assert sorted(moto.asked("GET")) == [f"/things/{lane}" for lane in LANES]
