"""The states of a connection, and which may follow which. Pure.

Theory of operation. A connection is in one state at a time, and the health document shows it by the name that
ThingPark X IoT Flow has for it. It begins CLOSED. The usual way is

    CLOSED ─ OPENING ─ AUTHENTICATING ─ OPENED ─ CLOSING ─ CLOSED

where AUTHENTICATING is left out by technologies that send their credentials with each message, and CLOSING by a link
that is lost, since nothing is left to close. Refused credentials end in AUTHENTICATION_FAILED, whenever they are
refused: the far end may also think better of it while the link is open, or as it is closed. From both ends it is tried
again. A version that is asked to stop ends wherever it stands, in DEACTIVATED where the file says `active = false`.
INVALID is a file that never was valid: no version of it can be at work, so only from rest does it come to that.

Whoever enters a state that may not follow has a bug, such as two tasks that both speak for one connection. It is
logged with its place, and the state is shown all the same, since what is shown must be true.

What is not here: UNREACHABLE, which says that the process of a connection cannot be asked. All are in this one.

Source: ThingPark X IoT Flow, connection states and their diagram.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class ConnectionState(StrEnum):
    """ThingPark X IoT Flow's states, and INVALID: the file never was valid."""

    DEACTIVATED = "DEACTIVATED"
    OPENING = "OPENING"
    AUTHENTICATING = "AUTHENTICATING"
    OPENED = "OPENED"
    AUTHENTICATION_FAILED = "AUTHENTICATION_FAILED"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"
    INVALID = "INVALID"


DEACTIVATED, OPENING, AUTHENTICATING, OPENED, AUTHENTICATION_FAILED, CLOSING, CLOSED, INVALID = ConnectionState

FIRST: Final = CLOSED
PASSING: Final = frozenset({OPENING, AUTHENTICATING, CLOSING})
"""They end by themselves, soon."""

NEXT: Final[Mapping[ConnectionState, frozenset[ConnectionState]]] = {
    CLOSED: frozenset({OPENING, DEACTIVATED, INVALID}),
    OPENING: frozenset({AUTHENTICATING, OPENED, AUTHENTICATION_FAILED, CLOSED, DEACTIVATED}),
    AUTHENTICATING: frozenset({OPENED, AUTHENTICATION_FAILED, CLOSED, DEACTIVATED}),
    OPENED: frozenset({CLOSING, AUTHENTICATION_FAILED, CLOSED, DEACTIVATED}),
    CLOSING: frozenset({OPENING, AUTHENTICATION_FAILED, CLOSED, DEACTIVATED}),  # OPENING: a quiet link is opened anew
    AUTHENTICATION_FAILED: frozenset({OPENING, CLOSED, DEACTIVATED}),
    DEACTIVATED: frozenset({OPENING, CLOSED, INVALID}),
    INVALID: frozenset({OPENING, CLOSED, DEACTIVATED}),
}
"""What may follow each state, besides itself with another reason."""


class ImpossibleTransition(Exception):
    """A state that does not follow the one before: a bug of tpxd."""

    def __init__(self, before: ConnectionState, after: ConnectionState) -> None:
        super().__init__(f"{after} cannot follow {before}")


def check_transition(before: ConnectionState, after: ConnectionState) -> None:
    """Nothing, where `after` may follow `before`.

    Raises:
        ImpossibleTransition: it is not in the table.
    """
    if after is not before and after not in NEXT[before]:
        raise ImpossibleTransition(before, after)
