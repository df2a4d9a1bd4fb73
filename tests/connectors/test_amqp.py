"""The AMQP connector: what it says to a broker, one that follows a script and RabbitMQ."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
import trio
from pamqp.commands import Channel, Connection, Exchange
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.connectors.amqp_site import accept, amqp_site, config
from tests.connectors.opening import CLIENT, Site, context
from tests.connectors.traffic import LANES, Receipts, outgoing
from tests.peers import pki
from tests.peers.rabbitmq import PASSWORD, Rabbit
from tests.wire.scripted_rabbit import ScriptedRabbit, ack, nack, returned
from tpxd.connector import Outgoing
from tpxd.connectors.amqp import AmqpConfig, AmqpTransport, open_amqp_connection
from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost, Refused, TransportError
from tpxd.lorawan.uplink import Uplink
from tpxd.wire.streams import Endpoint

DEV_EUI = LANES[0]


# ---- against a scripted broker


async def published_one_by_one(broker: ScriptedRabbit, count: int) -> list[str]:
    """Confirm so many messages, each before the next one is asked for; returns their routing keys."""
    keys = []
    for tag in range(1, count + 1):
        keys.append((await broker.expect_publish()).routing_key)
        await broker.send(ack(tag))
    return keys


async def test_it_introduces_itself_and_delivers() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        credentials = await broker.greet()
        assert (credentials.mechanism, credentials.response) == ("PLAIN", "\0tpx\0p")
        assert credentials.client_properties["connection_name"] == "tpxd-0badcafe-plant"
        await broker.tune()
        assert (await broker.expect(Connection.Open)).virtual_host == "plant"
        await broker.say(0, Connection.OpenOk())
        await broker.next()
        await broker.next()
        await broker.send(b"\x01\0\1\0\0\0\x08\0\x14\0\x0b\0\0\0\0\xce\x01\0\1\0\0\0\4\0\x55\0\x0b\xce")
        declared = await broker.grant(Exchange.Declare, Exchange.DeclareOk())
        assert isinstance(declared, Exchange.Declare)
        assert declared.exchange == "IotFlowExchange"
        messages = [await broker.expect_publish()]
        await broker.send(ack(1))
        messages.append(await broker.expect_publish())
        assert [(message.exchange, message.routing_key, message.body) for message in messages] == [
            ("IotFlowExchange", f"plant.{DEV_EUI}.up", b'{"n":1}'),
            ("IotFlowExchange", f"plant.{DEV_EUI}.up", b'{"n":2}'),
        ]
        assert [message.properties.message_id for message in messages] == [
            "0badcafe-1700000000000-1",
            "0badcafe-1700000000000-2",
        ]
        assert messages[0].properties.timestamp is not None
        assert messages[0].properties.timestamp.timestamp() == 1_700_000_000
        await broker.send(ack(2))
        await broker.goodbye()

    async with trio.open_nursery() as nursery:
        site, receipts = amqp_site(nursery, script), Receipts()
        settings = config(virtualHost="plant", connectionTimeout=2_000)
        async with open_amqp_connection(settings, site.context) as transport:
            await transport.send([outgoing(1), outgoing(2)], receipts)
    assert receipts.delivered_ == [0, 1]
    assert site.dialled == [(Endpoint("broker.example.net", 5672), 2.0)]
    assert site.authenticated == 1


async def test_routing_keys_per_port() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept(broker)
        assert await published_one_by_one(broker, 2) == ["two", f"plant.{DEV_EUI}.up"]
        assert (await broker.expect_publish()).routing_key == "two"
        await broker.send(ack(3))
        await broker.goodbye()

    settings = config(topics=[{"fPort": 2, "uplinkTopicPattern": "two"}])
    async with trio.open_nursery() as nursery:
        receipts = Receipts()
        async with open_amqp_connection(settings, amqp_site(nursery, script).context) as transport:
            await transport.send([outgoing(1, FPort=2), outgoing(2, FPort="3"), outgoing(3, FPort="2")], receipts)
    assert receipts.delivered_ == [0, 1, 2]


async def test_reports_about_downlinks_have_a_key_of_their_own() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept(broker)
        status = f"plant.{DEV_EUI}.status"
        assert await published_one_by_one(broker, 2) == [f"plant.{DEV_EUI}.up", status]
        assert (await broker.expect_publish()).routing_key == status
        await broker.send(ack(3))
        await broker.goodbye()

    batch = [outgoing(1)]
    for seq, kind in enumerate(("DevEUI_downlink_Sent", "DevEUI_downlink_Rejected"), 2):
        body = orjson.dumps({kind: {"DevEUI": DEV_EUI, "FPort": 2}})
        batch.append(Outgoing(Uplink(seq, 0, kind, DEV_EUI, "", body), body))
    settings = config(downlinkStatusTopicPattern="plant.{DevEUI}.status")
    async with trio.open_nursery() as nursery:
        receipts = Receipts()
        async with open_amqp_connection(settings, amqp_site(nursery, script).context) as transport:
            await transport.send(batch, receipts)
    assert receipts.delivered_ == [0, 1, 2]


async def test_uplinks_without_a_legal_routing_key_are_rejected_and_the_rest_delivered() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept(broker)
        assert (await broker.expect_publish()).routing_key == "plant.a_b"
        await broker.send(ack(1))
        await broker.goodbye()

    async with trio.open_nursery() as nursery:
        site, receipts = amqp_site(nursery, script), Receipts()
        async with open_amqp_connection(config(uplinkTopicPattern="plant.{Name}"), site.context) as transport:
            await transport.send([outgoing(1), outgoing(2, Name="x" * 250), outgoing(3, Name="a.b")], receipts)
    assert receipts.delivered_ == [2]
    assert receipts.rejected_[0] == "the uplink has no Name, which uplinkTopicPattern asks for"
    assert "routing key too long: 256 bytes, 255 are allowed" in receipts.rejected_[1]


async def return_the_second(broker: ScriptedRabbit) -> None:
    await accept(broker)
    await published_one_by_one(broker, 1)
    messages = [await broker.expect_publish() for _ in range(2)]
    await broker.send(ack(3) + returned(messages[0]) + ack(2))
    await broker.goodbye()


async def send_to(script: Callable[[ScriptedRabbit], Awaitable[None]], settings: AmqpConfig, receipts: Receipts) -> int:
    """Send three uplinks; returns how many were counted as unroutable."""
    async with trio.open_nursery() as nursery:
        async with open_amqp_connection(settings, amqp_site(nursery, script).context) as transport:
            assert isinstance(transport, AmqpTransport)
            await transport.send([outgoing(1), outgoing(2), outgoing(3)], receipts)
        return transport.unroutable


async def refuse_to(script: Callable[[ScriptedRabbit], Awaitable[None]], match: str) -> tuple[Refused, Receipts]:
    receipts = Receipts()
    with pytest.RaisesGroup(pytest.RaisesExc(Refused, match=match)) as caught:
        await send_to(script, config(), receipts)
    error = caught.value.exceptions[0]
    assert isinstance(error, Refused)
    return error, receipts


async def test_an_unroutable_uplink_holds_everything_back() -> None:
    pattern = f"the exchange IotFlowExchange routes plant.{DEV_EUI}.up to no queue"
    error, receipts = await refuse_to(return_the_second, re.escape(pattern))
    assert error.hint is not None
    assert 'unroutable = "count"' in error.hint
    # the third is of the same device: it goes again, behind the second
    assert receipts.delivered_ == [0]
    assert receipts.rejected_ == {}


async def test_an_unroutable_uplink_is_counted() -> None:
    receipts = Receipts()
    assert await send_to(return_the_second, config(unroutable="count"), receipts) == 1
    assert sorted(receipts.delivered_) == [0, 1, 2]


async def test_unroutable_uplinks_show_until_all_went_somewhere_for_a_minute(autojump_clock: MockClock) -> None:
    troubles: list[TransportError | None] = []

    async def script(broker: ScriptedRabbit) -> None:
        await accept(broker)
        for tag in range(1, 6):
            message = await broker.expect_publish()
            await broker.send((returned(message) if tag in (2, 3) else b"") + ack(tag))
        await broker.goodbye()

    async with trio.open_nursery() as nursery:
        watched = replace(amqp_site(nursery, script).context, troubled=troubles.append)
        async with open_amqp_connection(config(unroutable="count"), watched) as transport:
            for pause_s in (0, 1, 1, 59, 1):
                await trio.sleep(pause_s)
                await transport.send([outgoing(1)], Receipts())
    before, one, two, after = troubles
    assert before is None
    assert after is None
    nowhere = f"the exchange IotFlowExchange routes plant.{DEV_EUI}.up to no queue"
    assert str(one) == f"{nowhere}; unroutable uplinks since the connection was opened: 1"
    assert str(two) == f"{nowhere}; unroutable uplinks since the connection was opened: 2"
    assert one is not None
    assert one.hint == "bind a queue to it"


async def test_a_refused_uplink_holds_everything_back() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept(broker)
        await published_one_by_one(broker, 1)
        for _ in range(2):
            await broker.expect_publish()
        await broker.send(nack(2) + ack(3))
        await broker.goodbye()

    error, receipts = await refuse_to(script, "the broker could not take it")
    assert error.hint is not None
    assert receipts.delivered_ == [0]


@pytest.mark.parametrize("routed_before", [False, True])
async def test_what_is_behind_an_unroutable_uplink_of_its_device_does_not_go_before_it(routed_before: bool) -> None:
    """Its FPort decides the routing key, and only the second one leads to a queue."""
    keys: list[str] = []

    async def script(broker: ScriptedRabbit) -> None:
        await accept(broker)
        if routed_before:
            keys.extend(await published_one_by_one(broker, 1))
        message = await broker.expect_publish()
        keys.append(message.routing_key)
        await broker.send(returned(message) + ack(1 + routed_before))
        await broker.goodbye()

    receipts, settings = Receipts(), config(uplinkTopicPattern="plant.{DevEUI}.{FPort}")
    with pytest.RaisesGroup(Refused):
        async with (
            trio.open_nursery() as nursery,
            open_amqp_connection(settings, amqp_site(nursery, script).context) as transport,
        ):
            if routed_before:
                await transport.send([outgoing(0, LANES[1], FPort=2)], Receipts())
            await transport.send([outgoing(1, FPort=1), outgoing(2, FPort=2), outgoing(3, FPort=2)], receipts)
    assert keys[-1] == f"plant.{DEV_EUI}.1"
    assert receipts.delivered_ == []


async def test_nothing_of_any_device_goes_before_it_is_known_that_the_exchange_routes_at_all() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept(broker)
        message = await broker.expect_publish()
        await broker.send(returned(message) + ack(1))
        await broker.goodbye()

    receipts = Receipts()
    with pytest.RaisesGroup(Refused):
        async with (
            trio.open_nursery() as nursery,
            open_amqp_connection(config(), amqp_site(nursery, script).context) as transport,
        ):
            await transport.send([outgoing(n, LANES[n % 3]) for n in range(9)], receipts)
    assert receipts.delivered_ == []


@pytest.mark.parametrize(("code", "error"), [(403, AuthenticationFailed), (320, ConnectFailed), (530, ConnectFailed)])
async def test_turned_away(code: int, error: type[Exception]) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.greet()
        await broker.say(0, Connection.Close(code, "no", 0, 0))
        await broker.expect(Connection.CloseOk)

    async with trio.open_nursery() as nursery:
        with pytest.raises(error):
            async with open_amqp_connection(config(), amqp_site(nursery, script).context):
                pytest.fail("opened")


async def test_a_silent_broker_is_left_within_the_connection_timeout(autojump_clock: MockClock) -> None:
    async def silent_from_the_beginning(broker: ScriptedRabbit) -> None:
        await broker.next()

    async def silent_after_the_login(broker: ScriptedRabbit) -> None:
        await broker.accept()
        await broker.expect(Channel.Open)
        await broker.goodbye()

    for script, match in (
        (silent_from_the_beginning, "did not let us in within 3 s"),
        (silent_after_the_login, "did not answer the declarations within 3 s"),
    ):
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            with pytest.raises(ConnectFailed, match=match):
                async with open_amqp_connection(config(connectionTimeout=3_000), amqp_site(nursery, script).context):
                    pytest.fail("opened")
        assert trio.current_time() - begun == pytest.approx(3)


async def test_no_receipt_within_the_action_timeout(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept(broker)
        await broker.expect_publish()
        await broker.goodbye()

    async def body(site: Site[ScriptedRabbit]) -> None:
        async with open_amqp_connection(config(actionTimeout=4_000), site.context) as transport:
            await transport.send([outgoing(1)], Receipts())

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        with pytest.raises(LinkLost, match="confirmed nothing for 4 s"):
            await body(amqp_site(nursery, script))
    assert trio.current_time() - begun == pytest.approx(4)


async def test_nothing_runs_after_the_block() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept(broker)
        await broker.goodbye()

    async with trio.open_nursery() as nursery:
        async with open_amqp_connection(config(), amqp_site(nursery, script).context):
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert not nursery.child_tasks


async def test_a_lane_is_sent_in_order() -> None:
    batch: list[Outgoing] = [outgoing(number) for number in range(256)]

    async def script(broker: ScriptedRabbit) -> None:
        await accept(broker)
        await published_one_by_one(broker, 1)
        assert [(await broker.expect_publish()).body for _ in batch[1:]] == [item.body for item in batch[1:]]
        await broker.send(ack(256, multiple=True))
        await broker.goodbye()

    receipts = Receipts()
    async with (
        trio.open_nursery() as nursery,
        open_amqp_connection(config(), amqp_site(nursery, script).context) as transport,
    ):
        await transport.send(batch, receipts)
    assert receipts.delivered_ == list(range(256))


# ---- against RabbitMQ


@pytest.mark.broker
async def test_rabbitmq_with_a_client_certificate_and_downlinks(rabbit: Rabbit) -> None:
    common: dict[str, Any] = {
        "hostName": f"127.0.0.1:{rabbit.tls_port}", "protocol": "SSL", "password": PASSWORD, "exchangeName": "secure",
        "connectionTimeout": 20_000,
    }  # fmt: skip
    settings = config(
        **common,
        **CLIENT,
        trustedCaCertficate=pki.ca().certificate,
        uplinkTopicPattern="plant.{DevEUI}.down",
        downlinkTopicPattern="plant.{DevEUI}.down",
    )
    receipts = Receipts()
    async with open_amqp_connection(settings, context()) as transport:
        await transport.send([outgoing(number) for number in range(256)], receipts)
        assert sorted(receipts.delivered_) == list(range(256))
        # what it publishes is routed back to its own queue
        for number in range(256):
            incoming = await transport.receive()
            assert (incoming.source, incoming.body) == (f"plant.{DEV_EUI}.down", b'{"n":%d}' % number)
            await transport.acknowledge(incoming)

    with pytest.raises(ConnectFailed, match="was issued by a CA that is not trusted"):
        async with open_amqp_connection(config(**common, **CLIENT), context()):
            pytest.fail("opened")

    nobody = config(**common, trustedCaCertificate=pki.ca().certificate)
    with pytest.raises(ConnectFailed, match=r"asks for a client certificate|refused the handshake"):
        async with open_amqp_connection(nobody, context()):
            pytest.fail("opened")

    # RabbitMQ offers EXTERNAL only with a plugin
    external = config(**common | {"password": None}, username=None, **CLIENT, trustedCaCertificate=pki.ca().certificate)
    with pytest.raises(AuthenticationFailed, match="not EXTERNAL") as caught:
        async with open_amqp_connection(external, context()):
            pytest.fail("opened")
    assert caught.value.hint is not None


@pytest.mark.broker
async def test_rabbitmq_holds_what_no_queue_wants(rabbit: Rabbit) -> None:
    common: dict[str, Any] = {"hostName": f"127.0.0.1:{rabbit.port}", "password": PASSWORD, "exchangeName": "nobody"}

    async def send(**values: Any) -> list[int]:
        receipts = Receipts()
        async with open_amqp_connection(config(**common, **values), context()) as transport:
            await transport.send([outgoing(1), outgoing(2)], receipts)
        return sorted(receipts.delivered_)

    with pytest.raises(Refused, match=f"routes plant[.]{DEV_EUI}[.]up to no queue"):
        await send()
    assert await send(unroutable="count") == [0, 1]
