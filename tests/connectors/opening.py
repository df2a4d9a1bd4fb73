"""What tests open connectors with: a context, a far end in memory that follows a script, and files that are refused."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import pytest
import trio
from pydantic import ValidationError
from trio.testing import memory_stream_pair

from tests.notebook import Notebook
from tests.peers import pki
from tpxd.connector import Context
from tpxd.wire.streams import Endpoint, open_stream
from tpxd.wire.tls import TlsContextCache

Broker = TypeVar("Broker")

CLIENT = {"certificate": pki.client().certificate, "privateKey": pki.client().private_key}
"""A client certificate as a file has it."""


def context(**parts: Any) -> Context:
    """A context of the connection `plant`, which dials as the daemon does, with these parts instead."""
    defaults: dict[str, Any] = {
        "connection_id": "plant",
        "instance": "0badcafe",
        "log": logging.LoggerAdapter(logging.getLogger("test")),
        "dial": open_stream,
        "tls": TlsContextCache(),
        "memory": Notebook(),
        "authenticating": lambda: None,
        "proven": lambda: True,
        "troubled": lambda error: None,
        "tell": lambda event: None,
    }
    return Context(**defaults | parts)


class Site(Generic[Broker]):
    """A context whose `dial` hands out one end of a memory stream; `script` speaks at the other as this broker."""

    def __init__(
        self,
        nursery: trio.Nursery,
        broker: Callable[[trio.abc.Stream], Broker],
        script: Callable[[Broker], Awaitable[None]],
    ) -> None:
        self.dialled: list[tuple[Endpoint, float]] = []
        self.authenticated = 0
        self.memory = Notebook()
        self._nursery, self._broker, self._script = nursery, broker, script

    async def dial(self, endpoint: Endpoint, timeout_s: float) -> trio.abc.Stream:
        """See `connector.Dial`."""
        self.dialled.append((endpoint, timeout_s))
        near, far = memory_stream_pair()
        self._nursery.start_soon(self._script, self._broker(far))
        return near

    def authenticating(self) -> None:
        """See `connector.Context`."""
        self.authenticated += 1

    @property
    def context(self) -> Context:
        """What a connector gets, so that it dials here."""
        return context(dial=self.dial, authenticating=self.authenticating, memory=self.memory)


def complaint(config: Callable[..., object], **values: Any) -> str:
    """What is wrong with these values of a file."""
    with pytest.raises(ValidationError) as caught:
        config(**values)
    return "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in caught.value.errors())
