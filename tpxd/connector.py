"""The contract of a connector: what an author writes, and what the engine does for them.

An author writes one file in `connectors/`: a config model, an opener and a transport.

    class AcmeConfig(ConnectorConfig):
        url: str

    @connector("acme", AcmeConfig, title="Acme", description="Uplinks to Acme's collector")
    @asynccontextmanager
    async def open_acme(config: AcmeConfig, context: Context) -> AsyncIterator[Transport]:
        ...
        yield AcmeTransport(...)

Opening: raise `ConnectFailed` or `AuthenticationFailed`; call `context.authenticating()` where credentials go out.
Sending: `send` queues the whole batch in order and reports each receipt as it comes.
Losing: when the link ends, the opener's own nursery cancels the body and `LinkLost` leaves the `async with`.
Closing: nothing of it runs after the `async with`.

Back-off, cursor, counters, state, reload, rate limit, validity, formats, poison and dead letters belong to the engine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from tpxd.config.connection_file import ConnectorConfig
from tpxd.errors import TransportError
from tpxd.events import Tell
from tpxd.lorawan.uplink import Uplink
from tpxd.wire.streams import Dial as Dial  # part of the contract too
from tpxd.wire.tls import TlsContexts as TlsContexts

MAX_BATCH = 256
MAX_BATCH_BYTES = 1 << 20


@dataclass(slots=True)
class Outgoing:
    """One uplink as a connection sends it.

    Attributes:
        body: already in the format that its file asks for.
        replaced: how many characters of the uplink's values were replaced in topic, key or headers, since they would
            have broken out of their place; the transport notes it, the engine counts it.
        place: the topic, the routing key, or the names of the headers with which it goes; the transport notes it, for
            debugMode.
    """

    uplink: Uplink
    body: bytes
    replaced: int = 0
    place: str = ""


class Receipts(Protocol):
    """Where a transport reports the fate of each item of a batch, by its index in the batch, in any order."""

    def delivered(self, index: int) -> None:
        """The far end's own receipt for this uplink came."""

    def rejected(self, index: int, reason: str, hint: str | None = None) -> None:
        """The far end, or a pattern, refused this uplink for good: it becomes a dead letter. The hint is the next step
        of whoever reads the reason."""

    def filtered(self, index: int, reason: str) -> None:
        """By its file's rules this connection does not send this uplink, since it must not register its device: it
        counts as filtered."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message from the far end's downlink side.

    Attributes:
        source: topic or routing key.
        body: left out where it is too long for any downlink, so that it counts as no JSON.
        redelivered: the protocol marks it as sent before (MQTT DUP, AMQP redelivered).
        retained: an MQTT retained message.
        f_port: that of a downlink without one, where the source tells.
        receipt: what `acknowledge` needs; opaque.
    """

    source: str
    body: bytes
    redelivered: bool = False
    retained: bool = False
    f_port: int | None = None
    receipt: Any = None


class Transport(Protocol):
    """An open connection."""

    async def send(self, batch: Sequence[Outgoing], receipts: Receipts) -> None:
        """Send the batch in order (per lane at least) and return when every item has its receipt.

        Raises:
            LinkLost, AuthenticationFailed, Throttled: items without a receipt are sent again by the engine.

        Cancellation: items without a receipt may or may not have arrived.
        """

    async def receive(self) -> Incoming:
        """Wait for the next message of the downlink side; for ever where there is none."""

    async def acknowledge(self, incoming: Incoming) -> None:
        """Tell the far end that this message is stored here."""


class Memory(Protocol):
    """Small texts that outlive the process, under keys that begin with the connection's id."""

    def recall(self, key: str) -> str | None:
        """What was kept under the key, None when nothing was."""

    async def remember(self, key: str, value: str) -> None:
        """Keep a text durably; raises `SpoolUnavailable`."""


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that a connector may touch besides its own configuration.

    Attributes:
        connection_id: the file's stem.
        instance: eight hex digits that tell this server from another with equal file names.
        log: carries `connection=<id>` in each record.
        dial: opens byte streams; tests pass one that hands out memory streams.
        tls: makes TLS contexts.
        authenticating: call it when credentials go out; the state shows AUTHENTICATING.
        downlinks: whether downlinks are taken; where not, nothing is subscribed to, since nobody would receive, and
            what earlier openings left for downlinks at the far end is removed: a session, bindings.
        memory: keeps what must outlive the process; begin keys with `connector/ID/`.
        proven: whether this version of the file ever had a receipt (an HTTP 403 means something else before).
        troubled: something beside the way of uplinks fails, which go on; None once it works. Health shows it.
        tell: where events go.
    """

    connection_id: str
    instance: str
    log: logging.LoggerAdapter[logging.Logger]
    dial: Dial
    tls: TlsContexts
    memory: Memory
    authenticating: Callable[[], None]
    proven: Callable[[], bool]
    troubled: Callable[[TransportError | None], None]
    tell: Tell
    downlinks: bool = True

    @property
    def client_id(self) -> str:
        """How this connection names itself to a broker."""
        return f"tpxd-{self.instance}-{self.connection_id}"


Opener = Callable[[Any, Context], AbstractAsyncContextManager[Transport]]


@dataclass(frozen=True, slots=True)
class Connector:
    """One registered technology.

    Attributes:
        max_in_flight: uplinks under way at once unless the file says otherwise; at most `MAX_BATCH`.
    """

    id: str
    config: type[ConnectorConfig]
    open: Opener
    title: str
    description: str
    max_in_flight: int


REGISTRY: dict[str, Connector] = {}


def connector(
    connector_id: str,
    config: type[ConnectorConfig],
    *,
    title: str,
    description: str,
    max_in_flight: int = MAX_BATCH,
) -> Callable[[Opener], Opener]:
    """Register an opener as a connector; two of one id are a programming error."""

    def register(opener: Opener) -> Opener:
        assert connector_id not in REGISTRY, connector_id
        REGISTRY[connector_id] = Connector(connector_id, config, opener, title, description, max_in_flight)
        return opener

    return register
