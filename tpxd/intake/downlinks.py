"""`POST /iot-flow/downlinkMessages/{downlinkUuid}`: commands over HTTP, for every connection.

Source: ThingPark X IoT Flow, `downlinkUrl`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import trio

from tpxd.errors import SpoolUnavailable
from tpxd.intake.counters import Clock
from tpxd.intake.routes import Route, error_response, json_response
from tpxd.lorawan.downlinks import MAX_BODY_BYTES, Command, DownlinkError, NotACommand, NotJson, parse_downlink
from tpxd.spool import Appended, NewReport, StoredCommand
from tpxd.wire.http1 import Request, Response

GUESSES: Final = 20
FORGIVEN_S: Final = 3.0
"""A peer may guess wrong so often at once, and once more after so many seconds."""

PEERS: Final = 1_024
RETRY_AFTER: Final = (b"Retry-After", b"5")


class Door(Protocol):
    """Where a command comes in: see `tpxd.engine.downlink_urls.Door`."""

    @property
    def connection(self) -> str:
        """Whose command it is."""

    @property
    def default_port(self) -> int | None:
        """For commands without an FPort."""


Messages = Callable[[str, bytes], Iterable[NewReport]]
"""A connection's id and JSON that is no command to what other connections get of it."""


class ReportStore(Protocol):
    """The part of the spool that is needed here."""

    async def append(self, report: NewReport) -> Appended:
        """Return once the report is synced to disk; raises SpoolUnavailable."""


class Taker(Protocol):
    """The part of `tpxd.engine.commands.Commands` that is needed here."""

    @property
    def full(self) -> bool:
        """No further one is taken."""

    def enter(self, connection: str, wanted: Command | DownlinkError, mark: str = "") -> StoredCommand:
        """Take a command in."""

    async def saved(self, command: StoredCommand) -> None:
        """Wait until it is on disk; raises `SpoolUnavailable`."""

    def withdraw(self, command: StoredCommand) -> None:
        """Take it back."""

    def ignored(self, connection: str, *, json: bool) -> None:
        """Count what is no command."""


class Guesses:
    """How often each peer named an address that does not exist; bounded, the peers that were quiet longest go first."""

    def __init__(self, now: Callable[[], float] = trio.current_time) -> None:
        self._now = now
        self._peers: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allowed(self, peer: str) -> bool:
        """Whether this peer may name another address."""
        return self._left(peer) >= 1

    def wrong(self, peer: str) -> None:
        """It named one that does not exist."""
        self._peers[peer] = (self._left(peer) - 1, self._now())
        self._peers.move_to_end(peer)
        if len(self._peers) > PEERS:
            self._peers.popitem(last=False)

    def _left(self, peer: str) -> float:
        left, at = self._peers.get(peer, (float(GUESSES), 0.0))
        return min(float(GUESSES), left + (self._now() - at) / FORGIVEN_S)


def downlink_route(
    find: Callable[[str], Door | None], commands: Taker, clock: Clock, messages: Messages, store: ReportStore
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
        door = find(request.path.rpartition("/")[2])
        if door is None:
            guesses.wrong(request.peer)
            return error_response(404, "there is no such downlink address")
        if len(request.body) > MAX_BODY_BYTES:
            return error_response(413, f"a command has at most {MAX_BODY_BYTES} bytes")
        if commands.full:
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
            return await _hand_on(tuple(messages(door.connection, request.body)), store)
        return await store_command(commands, door.connection, wanted)

    return take_command


async def _hand_on(reports: Sequence[NewReport], store: ReportStore) -> Response:
    """Store what chained connections get of a message."""
    if not reports:
        return error_response(400, "the body is JSON but no DevEUI_downlink, and this connection is chained with none")
    try:
        for report in reports:
            await store.append(report)
    except SpoolUnavailable as error:
        return error_response(503, error.message, [RETRY_AFTER])
    return json_response(202, {"handedOn": len(reports)})


async def store_command(commands: Taker, connection: str, wanted: Command | DownlinkError) -> Response:
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
