"""Hostile senders: each attacks for as long as it is let, and counts what it did.

They come from several addresses of this machine, the LRC's among them, as from behind the same NAT.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

import trio

from tests.benchmarks.load import AS_ID, request

MOST_BODY: Final = 256 * 1024
SOURCES: Final = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
ANSWER_S: Final = 5.0


@dataclass(slots=True)
class Aim:
    """What is attacked, and how often it was hit.

    Attributes:
        intake, control: ports on 127.0.0.1.
        count: requests sent, or connections opened where no request is complete.
        answers: how often each status came back; 0 where the connection ended without one.
    """

    intake: int
    control: int
    count: int = 0
    answers: dict[int, int] = field(default_factory=dict)
    choose: random.Random = field(default_factory=lambda: random.Random(8090))
    sources: itertools.cycle[str] = field(default_factory=lambda: itertools.cycle(SOURCES))

    def answered(self, data: bytes) -> None:
        """Count an answer by its status."""
        status = int(data[9:12]) if data.startswith(b"HTTP/1.1 ") else 0
        self.answers[status] = self.answers.get(status, 0) + 1


Attack = Callable[[Aim], Awaitable[None]]


@asynccontextmanager
async def connected(aim: Aim, port: int) -> AsyncIterator[trio.SocketStream]:
    """A connection from the next address."""
    with trio.socket.socket() as sock:
        await sock.bind((next(aim.sources), 0))
        await sock.connect(("127.0.0.1", port))
        async with trio.SocketStream(sock) as stream:
            yield stream


async def send_often(aim: Aim, port: int, make: Callable[[], bytes]) -> None:
    """One request after the other, each over a new connection, until its answer."""
    while True:
        try:
            async with connected(aim, port) as stream:
                with trio.move_on_after(ANSWER_S):
                    await stream.send_all(make())
                    aim.count += 1
                    aim.answered(bytes(await stream.receive_some()))
        except (OSError, trio.BrokenResourceError):
            aim.answered(b"")
            await trio.sleep(0.01)


async def hold_many(aim: Aim, port: int, *parts: bytes, at_once: int = 400, pause_s: float = 0.5) -> None:
    """Many connections at a time, over each these parts with pauses, then silence until it is closed."""

    async def hold() -> None:
        while True:
            try:
                async with connected(aim, port) as stream:
                    aim.count += 1
                    for part in parts:
                        await stream.send_all(part)
                        await trio.sleep(pause_s)
                    aim.answered(bytes(await stream.receive_some()))
            except (OSError, trio.BrokenResourceError):
                await trio.sleep(0.01)
            await trio.sleep(0.2)

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(hold)


def post(body: bytes, query: str = "", head: bytes = b"", path: bytes = b"/uplink") -> bytes:
    """A POST of intake."""
    first = b"POST %b?%b HTTP/1.1\r\nHost: x\r\n" % (path, query.encode())
    return first + head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def forged() -> str:
    """A query that needs no key: its Token is wrong, everything else right."""
    at = quote(datetime.now(UTC).isoformat(timespec="milliseconds"), safe="")
    return f"LrnDevEui=70B3D5E75E200000&LrnFPort=5&LrnInfos=x&AS_ID={AS_ID}&Time={at}&Token={'0' * 64}"


def filled(before: bytes, unit: bytes, after: bytes) -> bytes:
    """As long as a body may be."""
    return before + unit * ((MOST_BODY - len(before) - len(after)) // len(unit)) + after


XML_BOMB: Final = filled(b'<x xmlns="' + b"u" * 100_000 + b'">', b"<b/>", b"</x>")
BOMBS: Final = (
    XML_BOMB,
    filled(b"<x>", b"<FCntUp>1.5</FCntUp>", b"</x>"),
    filled(b"<x>", b'<a b="c"/>', b"</x>"),
    filled(b"<x>", b"&amp;", b"</x>"),
    filled(b'{"x":{"a":[', b"[],", b"0]}}"),
    filled(b'{"x":{"a":["', b"\\u003a", b'"]}}'),
    filled(b'{"x":{"a":[', b"0.12345678901234567e-300,", b"0]}}"),
    b"[" * MOST_BODY,
    filled(b'{"x":{"a":1,"a":2,"b":[', b'{"c":0},' + b" " * 64, b"0]}}"),
)


async def silent(aim: Aim) -> None:
    """Connections without a byte."""
    await hold_many(aim, aim.intake)


async def half_heads(aim: Aim) -> None:
    """Heads that never end."""
    await hold_many(aim, aim.intake, b"POST /uplink HTTP/1.1\r\nHost: x\r\n")


async def half_bodies(aim: Aim) -> None:
    """Bodies of which a part is missing."""
    await hold_many(aim, aim.intake, post(b"x" * 1000)[:-1])


async def drips(aim: Aim) -> None:
    """A byte now and then."""
    await hold_many(aim, aim.intake, *(bytes([byte]) for byte in post(b"x" * 100)), at_once=200)


async def comings(aim: Aim) -> None:
    """Connections that end at once."""
    while True:
        try:
            async with connected(aim, aim.intake):
                aim.count += 1
        except OSError:
            await trio.sleep(0.01)


async def unsigned_bombs(aim: Aim) -> None:
    """Bodies that cost much to read, without a Token."""
    await send_often(aim, aim.intake, lambda: post(aim.choose.choice(BOMBS)))


async def forged_bombs(aim: Aim) -> None:
    """The same with a Token that only the body could prove wrong."""
    await send_often(aim, aim.intake, lambda: post(aim.choose.choice(BOMBS), forged()))


async def forged_tokens(aim: Aim) -> None:
    """Ordinary reports with a wrong Token, as fast as they are answered."""
    body = request(0, 1, "2025-03-04T09:15:21.902Z").partition(b"\r\n\r\n")[2]
    await send_often(aim, aim.intake, lambda: post(body, forged()))


async def encodings(aim: Aim) -> None:
    """Ever new names of encodings."""
    numbers = itertools.count()

    def make() -> bytes:
        return post(b'<?xml version="1.0" encoding="x%d%b"?><a/>' % (next(numbers), b"A" * 100_000), forged())

    await send_often(aim, aim.intake, make)


async def nonsense(aim: Aim) -> None:
    """Random bytes, and heads as long as may be."""
    long = b"GET / HTTP/1.1\r\n" + b"".join(b"H%d: %b\r\n" % (n, b"v" * 300) for n in range(60))
    await send_often(aim, aim.intake, lambda: aim.choose.choice((aim.choose.randbytes(2_000), long)))


async def deaf(aim: Aim) -> None:
    """Requests without end, whose answers nobody reads."""
    await hold_many(aim, aim.intake, *[b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 2_000] * 20, at_once=4, pause_s=0)


async def guesses(aim: Aim) -> None:
    """Wrong downlink addresses."""
    body = json.dumps({"DevEUI_downlink": {"DevEUI": "70B3D5E75E200000", "FPort": 1, "payload_hex": "00"}}).encode()

    def make() -> bytes:
        return post(body, path=b"/iot-flow/downlinkMessages/%032x" % aim.choose.getrandbits(128))

    await send_often(aim, aim.intake, make)


async def control_halves(aim: Aim) -> None:
    """Half requests to the control plane."""
    await hold_many(aim, aim.control, b"POST /reload HTTP/1.1\r\nHost: localhost\r\n", at_once=150)


async def control_nonsense(aim: Aim) -> None:
    """Random bytes and unknown paths for the control plane."""
    unknown = b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * 8_000)
    await send_often(aim, aim.control, lambda: aim.choose.choice((aim.choose.randbytes(500), unknown)))


ATTACKS: Final[dict[str, Attack]] = {
    attack.__name__: attack
    for attack in (
        silent, half_heads, half_bodies, drips, comings, unsigned_bombs, forged_bombs, forged_tokens, encodings,
        nonsense, deaf, guesses, control_halves, control_nonsense,
    )
}  # fmt: skip
