"""Finds the one uplink on which the far end closes the link. Pure.

Theory of operation. Some brokers close the link on a message they dislike (too large, a topic that the login may not
use). Sent again first after each reopening, such a message would block its connection for ever. So the oldest
uplink in flight is remembered at each loss of an open link. Lost three times running with the same one, that one is
sent alone; lost again, it is set aside and the next one is sent alone. A receipt for the next one convicts the one
set aside; another loss acquits both, since then the far end closes on everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

SUSPECT_AFTER = 3

EVERY_PUBLISH = "the far end closes on every publish"
CONVICTED = "the far end closed the link four times on this message"
CONVICTED_HINT = "is it larger than the far end allows, or its topic one that this login may not use?"


class Sending(Enum):
    """How much may be sent next."""

    ALL = auto()
    OLDEST_ALONE = auto()
    SECOND_ALONE = auto()


@dataclass(slots=True)
class Poison:
    """The suspicion of one connection.

    Attributes:
        suspect: seq of the uplink that was oldest in flight when the link was last lost.
        sending: what the next batch may be.
    """

    suspect: int | None = None
    losses: int = 0
    sending: Sending = Sending.ALL

    def lost(self, oldest: int | None) -> bool:
        """An open link was lost with `oldest` as the oldest in flight (None: nothing was).

        Returns:
            True when the far end closes on every publish, so that nobody is to blame.
        """
        if self.sending is Sending.SECOND_ALONE:
            self.clear()
            return True
        if oldest is None:
            return False
        if oldest != self.suspect:
            self.suspect, self.losses, self.sending = oldest, 0, Sending.ALL
        self.losses += 1
        if self.sending is Sending.OLDEST_ALONE:
            self.sending = Sending.SECOND_ALONE
        elif self.losses >= SUSPECT_AFTER:
            self.sending = Sending.OLDEST_ALONE
        return False

    def receipt(self, seq: int) -> int | None:
        """A receipt came for `seq`; returns the seq that this convicts, if any."""
        if self.suspect is None:
            return None
        convicted = self.suspect if self.sending is Sending.SECOND_ALONE and seq != self.suspect else None
        if convicted is not None or seq == self.suspect:
            self.clear()
        return convicted

    def clear(self) -> None:
        """Nobody is suspected."""
        self.suspect, self.losses, self.sending = None, 0, Sending.ALL
