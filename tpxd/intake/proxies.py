"""Whose request it is: the peer's, or, where the peer is a trusted proxy, that of whom the proxy names.

Source: RFC 7239 `Forwarded`; `X-Forwarded-For` as proxies write it. Each proxy appends whom it heard from, so only
the right end is known: the rightmost entry that is no trusted proxy itself. What stands further left is hearsay.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import islice
from typing import Final

from tpxd.wire.http import Request

Network = IPv4Network | IPv6Network

MOST_HOPS: Final = 16
_FOR: Final = re.compile(r"(?:^|;)\s*for=([^;]*)", re.IGNORECASE)
_PORT: Final = re.compile(r":[0-9]{1,5}$")


class Proxies:
    """The peers whose `Forwarded` and `X-Forwarded-For` count."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)

    def trusts(self, address: str) -> bool:
        """Whether this is the address of a trusted proxy."""
        parsed = _parsed(address) if self._networks else None
        return parsed is not None and any(parsed in network for network in self._networks)

    def named(self, request: Request) -> Request:
        """The request with its sender as the peer, where a trusted proxy names one.

        Where both headers are there and name different senders, one of them came from the sender itself, as a proxy
        passes on what it does not write: then the proxy is the peer.
        """
        if not self.trusts(request.peer):
            return request
        told = {self._sender(request.peer, hops) for hops in _told(request)}
        return replace(request, peer=told.pop()) if len(told) == 1 else request

    def _sender(self, peer: str, hops: Iterable[str]) -> str:
        """Go from the right to the left as long as those who tell are trusted and what they tell is an address."""
        for hop in islice(hops, MOST_HOPS):
            address = _parsed(_PORT.sub("", hop) if hop.startswith("[") or hop.count(":") == 1 else hop)
            if address is None:
                return peer
            peer = str(address)
            if not self.trusts(peer):
                return peer
        return peer


def _told(request: Request) -> Iterator[Iterator[str]]:
    """What each of the two headers tells, from the right to the left."""
    forwarded, x_forwarded_for = request.headers.get(b"forwarded"), request.headers.get(b"x-forwarded-for")
    if forwarded is not None:
        yield (_for(element) for element in reversed(forwarded.decode("latin-1").split(",")))
    if x_forwarded_for is not None:
        yield (entry.strip() for entry in reversed(x_forwarded_for.decode("latin-1").split(",")))


def _for(element: str) -> str:
    """The `for` of one element of `Forwarded`; "" where it has none, or where a quoted comma tore it apart."""
    found = _FOR.search(element)
    return found[1].strip().strip('"') if found is not None and element.count('"') % 2 == 0 else ""


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    return (parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None) or parsed
