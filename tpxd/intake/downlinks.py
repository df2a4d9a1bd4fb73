"""`POST /iot-flow/downlinkMessages/{downlinkUuid}`: commands over HTTP, for every connection.

Source: ThingPark X IoT Flow, `downlinkUrl`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from tpxd.engine.commands import Commands, Publish
from tpxd.engine.downlink_urls import Door
from tpxd.errors import SpoolUnavailable
from tpxd.intake.counters import Clock
from tpxd.intake.routes import Route, error_response, json_response
from tpxd.lorawan.downlinks import MAX_BODY_BYTES, Command, DownlinkError, NotACommand, NotJson, parse_downlink
from tpxd.spool import NewReport
from tpxd.wire.http1 import Request, Response

GUESSES: Final = 20
FORGIVEN_S: Final = 3.0
"""A peer may name so many wrong addresses at once, and one more after so many seconds."""

PEERS: Final = 1_024
RETRY_AFTER: Final = (b"Retry-After", b"5")


Messages = Callable[[str, bytes], Iterable[NewReport]]
"""A connection's id and JSON that is no command to what other connections get of it."""


@dataclass(slots=True)
class Guesser:
    """One peer: how many guesses it has left as of a moment, and the wrong addresses that it named last."""

    left: float
    at: float
    named: deque[int]


class Guesses:
    """How many addresses that do not exist each peer named; bounded, the peers that were quiet longest go first.

    The same one again is no guess: an application that was not told that its connection is gone locks out no other
    behind the same peer.
    """

    def __init__(self, now: Callable[[], float] = trio.current_time) -> None:
        self._now = now
        self._peers: OrderedDict[str, Guesser] = OrderedDict()

    def allowed(self, peer: str) -> bool:
        """Whether this peer may name another address."""
        return self._of(peer).left >= 1

    def wrong(self, peer: str, address: str) -> None:
        """It named one that does not exist."""
        guesser = self._peers[peer] = self._of(peer)
        self._peers.move_to_end(peer)
        if len(self._peers) > PEERS:
            self._peers.popitem(last=False)
        if hash(address) not in guesser.named:
            guesser.named.append(hash(address))
            guesser.left -= 1

    def _of(self, peer: str) -> Guesser:
        now = self._now()
        guesser = self._peers.get(peer) or Guesser(float(GUESSES), now, deque(maxlen=GUESSES))
        guesser.left = min(float(GUESSES), guesser.left + (now - guesser.at) / FORGIVEN_S)
        guesser.at = now
        return guesser


def downlink_route(
    find: Callable[[str], Door | None], commands: Commands, clock: Clock, messages: Messages, publish: Publish
) -> Route:
    """The route of `POST /iot-flow/downlinkMessages/{downlinkUuid}`.

    Answers: 202 the command is on disk, with its `id`, or other JSON that goes to chained connections; 400 it is none,
    or a wrong one; 404 there is no such address; 413 it is longer than any command; 429 this peer guessed too often;
    503 with Retry-After while nothing can be stored, or too many commands wait.

    Args:
        messages: what other connections get of JSON that is no command; see `Chains.messages`.

    Cancellation: the command may be stored although its sender never gets the 202.
    """
    guesses = Guesses()

    async def take_command(request: Request) -> Response:
        if not guesses.allowed(request.peer):
            return error_response(429, "too many wrong addresses came from there", [RETRY_AFTER])
        address = request.path.rpartition("/")[2]
        door = find(address)
        if door is None:
            guesses.wrong(request.peer, address)
            return error_response(404, "there is no such downlink address")
        if len(request.body) > MAX_BODY_BYTES:
            return error_response(413, f"a command has at most {MAX_BODY_BYTES} bytes")
        if commands.full(door.connection):
            return error_response(503, "too many commands wait for the LRC", [RETRY_AFTER])
        wanted: Command | DownlinkError | NotACommand
        try:
            wanted = parse_downlink(request.body, default_port=door.default_port, now_s=clock())
        except NotJson as error:
            commands.ignored(door.connection, json=False)
            return error_response(400, error.message)
        except DownlinkError as error:
            wanted = error
        if isinstance(wanted, NotACommand):
            commands.ignored(door.connection, json=True)
            return await _hand_on(tuple(messages(door.connection, request.body)), publish)
        return await store_command(commands, door.connection, wanted)

    return take_command


async def _hand_on(reports: Sequence[NewReport], publish: Publish) -> Response:
    """Store what chained connections get of a message."""
    if not reports:
        return error_response(400, "the body is JSON but no DevEUI_downlink, and this connection is chained with none")
    try:
        for report in reports:
            await publish(report)
    except SpoolUnavailable as error:
        return error_response(503, error.message, [RETRY_AFTER])
    return json_response(202, {"handedOn": len(reports)})


async def store_command(commands: Commands, connection: str, wanted: Command | DownlinkError) -> Response:
    """Store a command and say what became of it."""
    command = commands.enter(connection, wanted)
    if isinstance(wanted, DownlinkError):
        command.verdict = None  # the answer tells it
    try:
        await commands.saved(command)
    except SpoolUnavailable as error:
        commands.withdraw(command)
        return error_response(503, error.message, [RETRY_AFTER])
    if isinstance(wanted, DownlinkError):
        return error_response(400, wanted.message)
    document = {"id": str(command.id), "CorrelationID": command.correlation_id, "state": str(command.state)}
    return json_response(202, document)
