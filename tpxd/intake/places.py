"""Who may keep a connection to intake, and whom to close out for the next one.

Theory of operation. There are so many places, and each peer has a share of them: a quarter. A peer at its share pays
for its next connection with one of its own; when all places are taken, anybody pays. The one to go is the one that was
silent longest, first among those that never posted anything of use, then among those that did. So whoever fills places
with silence only ever closes out silence, and an LRC that keeps its connections open keeps them.

Peers are told apart by address, in IPv6 by the first 64 bits, which one household or server has to itself. A reverse
proxy that is trusted speaks for many and has no share.

What this does not do: sockets, clocks, closing.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

Connection = TypeVar("Connection", bound=Hashable)

SHARES: Final = 4
"""So many peers together can fill all places."""


@dataclass(slots=True)
class _Line(Generic[Connection]):
    """Connections, the one that was silent longest first; those that posted well stand apart."""

    strange: OrderedDict[Connection, None] = field(default_factory=OrderedDict)
    proven: OrderedDict[Connection, None] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self.strange) + len(self.proven)

    def heard(self, connection: Connection) -> None:
        """It is the last one now to be closed out of its half."""
        (self.strange if connection in self.strange else self.proven).move_to_end(connection)

    def prove(self, connection: Connection) -> None:
        """It goes over to those that posted well."""
        self.strange.pop(connection, None)
        self.proven[connection] = None

    def leave(self, connection: Connection) -> None:
        """It is gone."""
        self.strange.pop(connection, None)
        self.proven.pop(connection, None)

    def first(self) -> Connection:
        """Who goes next."""
        return next(iter(self.strange or self.proven))


class Places(Generic[Connection]):
    """The connections that are open, and in which order they would have to go.

    Args:
        total: how many may be open at once; whoever is told to close one out does it soon.
        trusted: whether the peer of this address is a proxy without a share.
    """

    def __init__(self, total: int, trusted: Callable[[str], bool] = lambda address: False) -> None:
        self._total = total
        self._share = max(1, total // SHARES)
        self._trusted = trusted
        self._all: _Line[Connection] = _Line()
        self._peers: dict[str, _Line[Connection]] = {}
        self._peer_of: dict[Connection, str] = {}

    def opened(self, connection: Connection, address: str) -> Connection | None:
        """A peer connected; returns whom to close out for it, if one must go. That one has left then."""
        peer = peer_of(address)
        own = self._peers.setdefault(peer, _Line())
        paying = own if len(own) >= self._share and not self._trusted(address) else self._all
        victim = paying.first() if paying is own or len(self._all) >= self._total else None
        if victim is not None:
            self.closed(victim)
        self._peer_of[connection] = peer
        for line in (self._all, self._peers.setdefault(peer, own)):
            line.strange[connection] = None
        return victim

    def byte(self, connection: Connection) -> None:
        """Something arrived over it."""
        for line in self._lines(connection):
            line.heard(connection)

    def posted(self, connection: Connection) -> None:
        """What it posted was taken."""
        for line in self._lines(connection):
            line.prove(connection)

    def closed(self, connection: Connection) -> None:
        """It ended; closing twice is closing once."""
        for line in self._lines(connection):
            line.leave(connection)
        peer = self._peer_of.pop(connection, None)
        if peer is not None and not self._peers[peer]:
            del self._peers[peer]

    def _lines(self, connection: Connection) -> tuple[_Line[Connection], ...]:
        """The lines in which it stands; none once it was closed out."""
        peer = self._peer_of.get(connection)
        return () if peer is None else (self._all, self._peers[peer])


def peer_of(address: str) -> str:
    """What counts as one peer: an IPv4 address, however it is written, or an IPv6 network of 64 bits."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(parsed.ipv4_mapped or ipaddress.ip_address(int(parsed) >> 64 << 64))
