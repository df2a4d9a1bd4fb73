"""An AMQP session with brokers that do not let us in, and with brokers that do not behave."""

from __future__ import annotations

import pytest
import trio
from pamqp.commands import Channel, Connection
from trio.testing import MockClock

from tests.wire.amqp_link import OPTIONS, Fates, Script, link_to
from tests.wire.scripted_rabbit import ScriptedRabbit, ack, closed_channel, on
from tpxd.errors import AuthenticationFailed, ConnectFailed, LinkLost
from tpxd.wire.amqp.session import open_amqp

# ---- brokers that do not let us in


async def turned_away(script: Script, error: type[Exception], match: str) -> str | None:
    """Open a session at this broker, which must fail so; returns the hint."""
    async with trio.open_nursery() as nursery:
        with pytest.raises(error, match=match) as caught:
            async with open_amqp(link_to(script, nursery), OPTIONS):
                pytest.fail("opened")
        assert type(caught.value) is error
    hint: str | None = caught.value.hint  # type: ignore[attr-defined]
    return hint


async def test_wrong_credentials() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        assert (await broker.greet()).response == "\0tpx\0p"
        await broker.say(0, Connection.Close(403, "ACCESS_REFUSED - Login was refused.", 0, 0))
        await broker.expect(Connection.CloseOk)
        await broker.ended()

    assert await turned_away(script, AuthenticationFailed, r"the login: ACCESS_REFUSED - Login was refused \(403\)")


async def test_wrong_credentials_said_by_closing() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.greet()
        await broker.stream.aclose()

    assert await turned_away(script, AuthenticationFailed, "ended the connection during the login")


async def test_no_virtual_host() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.greet()
        await broker.tune()
        assert (await broker.expect(Connection.Open)).virtual_host == "/"
        await broker.say(0, Connection.Close(530, "NOT_ALLOWED - vhost / not found", 10, 40))
        await broker.expect(Connection.CloseOk)

    hint = await turned_away(script, ConnectFailed, r"NOT_ALLOWED - vhost / not found \(530\)")
    assert hint is not None
    assert "virtual host" in hint


@pytest.mark.parametrize("stage", [0, 1, 2])
async def test_silence(autojump_clock: MockClock, stage: int) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        if stage:
            await broker.greet()
        if stage > 1:
            await broker.tune()
        await trio.sleep(60)

    begun = trio.current_time()
    assert await turned_away(script, ConnectFailed, "did not let us in within 5 s")
    assert trio.current_time() - begun == pytest.approx(60)


@pytest.mark.parametrize("greeting", [b"", b"\x01\0\0", b"AMQP\3\1\0\0"])
async def test_no_broker_of_ours(greeting: bytes) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await broker.next()
        await broker.send(greeting)
        await broker.stream.aclose()

    assert await turned_away(script, ConnectFailed, r"no greeting from a broker: .* closed|speaks AMQP 1-0-0")


# ---- brokers that do not behave


async def lose(script: Script) -> tuple[LinkLost, Fates]:
    """Publish three messages to this broker; returns how the link was lost, and which receipts had come."""
    fates = Fates()

    async def body(stream: trio.abc.Stream) -> None:
        async with open_amqp(stream, OPTIONS) as session:
            await fates.publish(session, *"abc")
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        with pytest.raises(LinkLost) as caught:
            await body(link_to(script, nursery))
        assert type(caught.value) is LinkLost
    return caught.value, fates


async def accept_and_read(broker: ScriptedRabbit) -> None:
    await broker.accept()
    for _ in range(3):
        await broker.expect_publish()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (ack(9), "broke the protocol: a confirmation of 9"),
        (ack(1) + ack(1), "broke the protocol: a confirmation of 1"),
        (on(1, Channel.OpenOk()), "broke the protocol: Channel.OpenOk answers nothing"),
        (on(0, Connection.OpenOk()), "broke the protocol: Connection.OpenOk while CONNECTED"),
        (b"\x01\0\0\0\0\0\x04\x00\x63\0\1\xce", "broke the protocol: a method 99.1"),
        (ack(1)[:-1] + b"\0", "broke the protocol: a method ends with 0x00"),
        (b"\xff" * 20, "broke the protocol: a frame of the unknown kind 255"),
    ],
)
async def test_violations(autojump_clock: MockClock, said: bytes, reason: str) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept_and_read(broker)
        await broker.send(said)

    lost, fates = await lose(script)
    assert reason in str(lost)
    assert fates.delivered == []


async def test_closed_in_the_middle_of_a_frame() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept_and_read(broker)
        await broker.send(ack(2) + ack(3)[:-4])
        await broker.stream.aclose()

    lost, fates = await lose(script)
    assert str(lost) == "connection lost: the broker closed the connection"
    assert lost.hint
    assert fates.delivered == [1]


async def test_closed_with_a_reason() -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept_and_read(broker)
        await broker.send(ack(1) + on(0, Connection.Close(320, "CONNECTION_FORCED - shutdown", 0, 0)))
        await broker.expect(Connection.CloseOk)
        await broker.ended()

    lost, fates = await lose(script)
    assert str(lost) == "the broker closed the connection: CONNECTION_FORCED - shutdown (320)"
    assert lost.hint
    assert fates.delivered == [0]


@pytest.mark.parametrize(
    ("code", "text"), [(404, "NOT_FOUND - no exchange 'x' in vhost '/'"), (403, "ACCESS_REFUSED - topic k")]
)
async def test_a_channel_error_on_a_message(code: int, text: str) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept_and_read(broker)
        await broker.send(ack(1) + closed_channel(code, text, 1))
        await broker.expect(Channel.CloseOk)
        await broker.goodbye()

    lost, fates = await lose(script)
    assert str(lost) == f"the broker closed the channel: {text} ({code})"
    assert {403: "right to write", 404: "deleted"}[code] in str(lost.hint)
    assert fates.delivered == [0]


async def test_receipts_stay_away(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept_and_read(broker)
        await trio.sleep(6)
        await broker.send(ack(1))
        await broker.goodbye()

    begun = trio.current_time()
    lost, fates = await lose(script)
    assert "confirmed nothing for 7 s" in str(lost)
    assert lost.hint
    assert fates.delivered == [0]
    assert trio.current_time() - begun == pytest.approx(13)


async def test_slow_receipts_are_no_loss(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept_and_read(broker)
        for tag in (1, 2, 3):
            await trio.sleep(6)
            await broker.send(ack(tag))
        await broker.stream.aclose()

    lost, fates = await lose(script)
    assert "closed" in str(lost)
    assert fates.delivered == [0, 1, 2]


async def test_blocked_for_too_long(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept_and_read(broker)
        await broker.say(0, Connection.Blocked("low on disk"))
        await broker.goodbye()

    lost, fates = await lose(script)
    assert str(lost) == "the broker takes no messages for 7 s: low on disk"
    assert lost.hint is not None
    assert fates.delivered == []


async def test_two_heartbeats_are_missed(autojump_clock: MockClock) -> None:
    async def script(broker: ScriptedRabbit) -> None:
        await accept_and_read(broker)
        await broker.send(ack(3, multiple=True))
        while True:
            _, value = await broker.next()
            if isinstance(value, Connection.Close):
                return

    begun = trio.current_time()
    lost, fates = await lose(script)
    assert str(lost) == "the broker was silent for 120 s, the time of two heartbeats"
    assert fates.delivered == [0, 1, 2]
    assert trio.current_time() - begun == pytest.approx(120, abs=2)
