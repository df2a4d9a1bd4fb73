"""`POST /iot-flow/downlinkMessages/{downlinkUuid}`: downlinks over HTTP, for every connection.

Source: ThingPark X IoT Flow, `downlinkUrl`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import trio

from tpxd.downlinks.doors import Door, Messages, Taken, take_and_answer
from tpxd.downlinks.queue import DownlinkQueue
from tpxd.intake.counters import Clock
from tpxd.intake.routes import Route, error_response, json_response
from tpxd.spool import StoredDownlink
from tpxd.wire.http import Request, Response

GUESSES: Final = 20
FORGIVEN_S: Final = 3.0
"""A peer may name so many wrong addresses at once, and one more after so many seconds."""

PEERS: Final = 1_024
RETRY_AFTER: Final = (b"Retry-After", b"5")


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
    find: Callable[[str], Door | None], downlinks: DownlinkQueue, messages: Messages, clock: Clock
) -> Route:
    """The route of `POST /iot-flow/downlinkMessages/{downlinkUuid}`.

    Answers: 202 the downlink is on disk, with its `id`, or other JSON that goes to chained connections; 400 it is none,
    or a wrong one; 404 there is no such address; 413 it is longer than any downlink; 429 the same, to a peer that named
    too many wrong ones; 503 with Retry-After while nothing can be stored, or too many downlinks wait.

    Cancellation: the downlink may be stored although its sender never gets the 202.
    """
    guesses = Guesses()

    async def take_downlink(request: Request) -> Response:
        address = request.path.rpartition("/")[2]
        door = find(address)
        if door is None:
            return _unknown(guesses, request.peer, address)
        answer = await take_and_answer(downlinks, door, request.body, messages, clock())
        if answer.error:
            return error_response(answer.status, answer.error, [RETRY_AFTER] if answer.status == 503 else ())
        return json_response(answer.status, _document(answer.taken))

    return take_downlink


def _unknown(guesses: Guesses, peer: str, address: str) -> Response:
    """Only wrong addresses are rationed: whoever shares a guesser's address, behind a proxy, is not locked out."""
    if not guesses.allowed(peer):
        return error_response(429, "too many wrong addresses came from there", [RETRY_AFTER])
    guesses.wrong(peer, address)
    return error_response(404, "there is no such downlink address")


def _document(taken: Taken) -> dict[str, Any]:
    if isinstance(taken, StoredDownlink):
        return {"id": str(taken.id), "CorrelationID": taken.correlation_id, "state": str(taken.state)}
    return {"handedOn": len(taken)}
