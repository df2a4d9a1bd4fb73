"""Connections that are closed out for others, on memory streams and a clock that jumps."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.wire.http1_serving import GET, HALF, answer, echo, receive, receive_rest, serving
from tpxd.wire.http.messages import Request, Response
from tpxd.wire.http.server import Conversation


class TwoPlaces:
    """Closes the oldest connection out for the third one, and writes down what it hears."""

    def __init__(self) -> None:
        self.open: list[Conversation] = []
        self.heard: list[tuple[str, int]] = []

    def opened(self, connection: Conversation, address: str) -> Conversation | None:
        assert address == "192.0.2.7"
        self.open.append(connection)
        return self.open[-3] if len(self.open) > 2 else None

    def byte(self, connection: Conversation) -> None:
        self.heard.append(("byte", self.open.index(connection)))

    def posted(self, connection: Conversation) -> None:
        self.heard.append(("posted", self.open.index(connection)))

    def closed(self, connection: Conversation) -> None:
        self.heard.append(("closed", self.open.index(connection)))


@pytest.mark.parametrize("begun", [b"", b"GET /", HALF, b"nonsense"])
async def test_whoever_is_closed_out_goes_at_once_and_without_a_word(autojump_clock: MockClock, begun: bytes) -> None:
    places = TwoPlaces()
    async with serving(echo, places=places) as serve:
        oldest = serve.connect()
        await trio.sleep(0.1)
        second = serve.connect()
        if begun:
            await oldest.send_all(begun)
        await trio.sleep(0.4)
        refused = await oldest.receive_some() if begun == b"nonsense" else b""
        third = serve.connect()
        assert await receive_rest(oldest) == b"", refused
        assert trio.current_time() == 0.5
        for client in (second, third):
            await client.send_all(HALF + b"def")
            assert await receive(client, 1) == answer(b"/abcdef")
    told = [event for event in places.heard if event[0] != "byte"]
    assert told[:3] == [("closed", 0), ("posted", 1), ("posted", 2)]
    assert sorted(told[3:]) == [("closed", 1), ("closed", 2)]


async def test_only_what_was_taken_counts_as_posted(autojump_clock: MockClock) -> None:
    async def refuse(request: Request) -> Response:
        return Response(401 if request.method == "POST" else 200)

    places = TwoPlaces()
    async with serving(refuse, places=places) as serve:
        client = serve.connect()
        for sent in (HALF + b"def", GET % b"a"):
            await client.send_all(sent)
            await client.receive_some()
    assert places.heard == [("byte", 0), ("byte", 0), ("closed", 0)]
