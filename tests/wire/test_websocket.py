"""Byte streams over WebSockets: frames byte by byte, and what hostile servers send."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, check_two_way_stream, memory_stream_pair

from tests.wire.websocket_link import MQTT, PLACE, MemoryStream, accepting, frame, read_frame, shake_hands
from tests.wire.websocket_server import ServerEnd, accept_websocket
from tpxd.errors import RemoteViolation
from tpxd.wire.flood import AT_ONCE, PER_SECOND
from tpxd.wire.streams import explain
from tpxd.wire.websocket import READ_BYTES, WebSocketStream, open_websocket


async def opened(tasks: trio.Nursery) -> tuple[WebSocketStream, MemoryStream, MemoryStream]:
    """Our stream, our end beneath it, and the server's."""
    stream, near, far, _ = await shake_hands(tasks, accepting)
    return stream, near, far


@contextmanager
def slow(near: MemoryStream, wait: Callable[[], Awaitable[object]]) -> Iterator[None]:
    """Whatever goes through this end while the block lasts waits for `wait` first."""
    sender = near.send_stream
    hand_over = sender.send_all_hook
    assert hand_over is not None

    async def waiting() -> None:
        await wait()
        await hand_over()

    sender.send_all_hook = waiting
    yield
    sender.send_all_hook = hand_over


# ---- frames


async def test_each_send_is_one_masked_binary_message(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    stream, _, far = await opened(nursery)
    for size in (1, 125, 126, 70_000):
        async with trio.open_nursery() as block:
            block.start_soon(stream.send_all, b"\x5a" * size)
            assert await read_frame(far) == (0x82, b"\x5a" * size, True)
    await stream.aclose()


async def test_borders_of_messages_and_fragments_mean_nothing(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    stream, _, far = await opened(nursery)
    await far.send_all(frame(0x82, b"ab") + frame(0x02, b"c") + frame(0x00, b"d") + frame(0x80, b"e") + b"\x82")
    assert await stream.receive_some(3) == b"abc"
    assert await stream.receive_some() == b"de"
    await far.send_all(b"\x01f")
    assert await stream.receive_some() == b"f"
    await stream.aclose()


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=200), max_size=5), st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_bytes_arrive_however_they_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    async def main(tasks: trio.Nursery) -> None:
        stream, _, far = await opened(tasks)
        wire = b"".join(frame(0x82, message) for message in messages) + frame(0x88, struct.pack(">H", 1000))

        async def send() -> None:
            rest, number = wire, 0
            while rest:
                cut = cuts[number % len(cuts)]
                await far.send_all(rest[:cut])
                rest, number = rest[cut:], number + 1

        received = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while data := await stream.receive_some():
                received += data
        assert received == b"".join(messages)
        assert await stream.receive_some() == b""
        await stream.aclose()

    async def in_a_nursery() -> None:
        async with trio.open_nursery() as tasks:
            await main(tasks)

    trio.run(in_a_nursery, clock=MockClock(autojump_threshold=0))


async def test_a_message_of_any_length_is_handed_on_piece_by_piece(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stream, _, far = await opened(nursery)
    await far.send_all(b"\x82\x7f" + struct.pack(">Q", 1 << 40))
    await far.send_all(b"x" * 20 * READ_BYTES)
    total = 0
    while total < 20 * READ_BYTES:
        received = await stream.receive_some()
        assert len(received) <= READ_BYTES
        total += len(received)
    await stream.aclose()


async def test_pings_are_answered_while_bytes_are_waited_for(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    stream, _, far = await opened(nursery)
    async with trio.open_nursery() as block:
        block.start_soon(stream.receive_some)
        await far.send_all(frame(0x89, b"are you there"))
        assert await read_frame(far) == (0x8A, b"are you there", True)
        await far.send_all(frame(0x8A, b"unasked") + frame(0x82, b"x"))
    await stream.aclose()


async def test_a_flood_of_pings_gets_one_answer_when_there_is_room(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stream, near, far = await opened(nursery)
    room = trio.Event()
    with slow(near, room.wait):
        async with trio.open_nursery() as block:
            block.start_soon(stream.send_all, b"uplink")
            await trio.testing.wait_all_tasks_blocked()
            await far.send_all(b"".join(frame(0x89, b"%d" % n) for n in range(500)) + frame(0x82, b"x"))
            assert await stream.receive_some() == b"x"
            room.set()
    assert await read_frame(far) == (0x82, b"uplink", True)
    assert await read_frame(far) == (0x8A, b"499", True)
    await stream.aclose()


@pytest.mark.parametrize(
    ("noise", "told"),
    [
        (frame(0x89, b"ping"), "a flood of WebSocket pings"),
        (frame(0x8A, b"pong"), "a flood of WebSocket pongs"),
        (frame(0x82, b""), "a flood of empty WebSocket frames"),
    ],
)
async def test_a_storm_of_what_carries_nothing_ends_the_link(
    nursery: trio.Nursery, autojump_clock: MockClock, noise: bytes, told: str
) -> None:
    stream, _, far = await opened(nursery)
    await far.send_all(AT_ONCE * noise + frame(0x82, b"x"))
    assert await stream.receive_some() == b"x"
    await trio.sleep(1)
    await far.send_all(int(PER_SECOND) * noise + frame(0x82, b"y"))
    assert await stream.receive_some() == b"y"
    await far.send_all(noise)
    with pytest.raises(trio.BrokenResourceError) as caught:
        await stream.receive_some()
    assert told in explain(caught.value)[0]
    await stream.aclose()


async def test_pings_while_we_say_goodbye_harm_nothing(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    stream, _, far = await opened(nursery)
    nursery.start_soon(stream.aclose)
    assert await read_frame(far) == (0x88, struct.pack(">H", 1000), True)
    await far.send_all(frame(0x89, b"still there?") + frame(0x82, b"x") + frame(0x88, struct.pack(">H", 1000)))
    assert await far.receive_some() == b""


async def test_what_follows_the_servers_goodbye_is_not_looked_at(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stream, _, far = await opened(nursery)
    await far.send_all(frame(0x88, struct.pack(">H", 1000)) + frame(0x89, b"still there?") + b"\xff\xff")
    assert await stream.receive_some() == b""
    await stream.aclose()


@pytest.mark.parametrize(
    ("wire", "told"),
    [
        (frame(0x81, b"text"), "a WebSocket message of text"),
        (frame(0x82, b"x")[:1] + b"\x81\0\0\0\0x", "no WebSocket frame: "),
        (b"\x83\x00", "no WebSocket frame: "),
        (b"\xc2\x00", "no WebSocket frame: "),
        (frame(0x80, b"a continuation of nothing"), "no WebSocket frame: "),
        (b"\x89\x7e\x00\x7e" + b"x" * 126, "no WebSocket frame: "),
        (b"\x88\x01x", "no WebSocket frame: "),
        (b"\x82\x7e\x00\x01x", "no WebSocket frame: "),
        (b"\x82\x7f" + b"\xff" * 8, "no WebSocket frame: "),
        (frame(0x02, b"") + frame(0x82, b"b"), "no WebSocket frame: "),
        (frame(0x88, struct.pack(">H", 1008) + b"not\nwelcome"), "closed with code 1008 notwelcome"),
        (frame(0x88, struct.pack(">H", 1011)), "closed with code 1011"),
    ],
)
async def test_what_the_server_may_not_send(
    nursery: trio.Nursery, autojump_clock: MockClock, wire: bytes, told: str
) -> None:
    stream, _, far = await opened(nursery)
    await far.send_all(frame(0x82, b"before") + wire)
    assert await stream.receive_some() == b"before"
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.receive_some()
        assert isinstance(caught.value.__cause__, RemoteViolation)
        assert told in explain(caught.value)[0]
    await stream.aclose()


@pytest.mark.parametrize("code", [1000, 1001, None])
async def test_an_ordinary_end(nursery: trio.Nursery, autojump_clock: MockClock, code: int | None) -> None:
    stream, _, far = await opened(nursery)
    await far.send_all(frame(0x82, b"last") + frame(0x88, struct.pack(">H", code) if code else b""))
    assert [await stream.receive_some() for _ in range(3)] == [b"last", b"", b""]
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"too late")
    await stream.aclose()
    first, _, masked = await read_frame(far)
    assert (first, masked) == (0x88, True)
    assert await far.receive_some() == b""


async def test_an_end_without_a_close_frame(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    stream, _, far = await opened(nursery)
    await far.send_all(frame(0x82, b"last"))
    await far.aclose()
    assert [await stream.receive_some() for _ in range(3)] == [b"last", b"", b""]
    await stream.aclose()


async def test_closing_says_goodbye(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    stream, _, far = await opened(nursery)
    await stream.aclose()
    assert await read_frame(far) == (0x88, struct.pack(">H", 1000), True)
    assert await far.receive_some() == b""
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()
    await stream.aclose()


async def test_closing_does_not_wait_for_a_server_that_reads_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stream, near, _ = await opened(nursery)
    with slow(near, trio.sleep_forever), trio.fail_after(1.5):
        await stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"x")


async def test_nothing_follows_a_frame_that_was_cut_off(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    stream, near, far = await opened(nursery)
    with slow(near, trio.sleep_forever), trio.move_on_after(1):
        await stream.send_all(b"cut off")
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"more")
    await far.send_all(frame(0x89, b"ping") + frame(0x82, b"x"))
    assert await stream.receive_some() == b"x"
    with pytest.raises(trio.BrokenResourceError, match="cut off"):
        await stream.receive_some()
    await stream.aclose()


async def test_a_send_that_was_cancelled_before_it_began_harms_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stream, _, far = await opened(nursery)
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.send_all(b"never")
    await stream.send_all(b"second")
    assert await read_frame(far) == (0x82, b"second", True)
    await stream.aclose()


# ---- as a stream of trio


async def test_it_keeps_trios_rules_for_streams(nursery: trio.Nursery) -> None:
    async def both_ends() -> tuple[WebSocketStream, ServerEnd]:
        near, far = memory_stream_pair()
        found: list[WebSocketStream] = []

        async def open_near() -> None:
            found.append(await open_websocket(nursery, near, MQTT, PLACE, "broker.example.net"))

        async with trio.open_nursery() as both:
            both.start_soon(open_near)
            accepted = await accept_websocket(far)
        return found[0], accepted

    await check_two_way_stream(both_ends, None)
