"""A connection is a nursery: it keeps its transport open, carries its queue, and nothing of it outlives it.

run_connection
  ├─ offer_health            where the file asks for a port of its own
  ├─ commit_receipts         moves the cursor; survives the link
  ├─ StateLines.watch        says later what was no time to say
  ├─ CertificateWatch.watch  where the file has certificates
  ├─ RateWatch.watch         where the file has alarms
  └─ keep_open               open, deliver and take downlinks, lose, wait, open again
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import trio

from tpxd.codecs.decoding import Decoding
from tpxd.config.connection_file import ConnectionFile
from tpxd.connection.backlog import Backlog
from tpxd.connection.chains import Chains
from tpxd.connection.debug_log import DebugLog, open_debug_log
from tpxd.connection.delivery import Supply, commit_receipts, commit_settled, decided, decode_ahead, deliver
from tpxd.connection.health import Health
from tpxd.connection.health_port import serve_connection_health
from tpxd.connection.in_hand import EVERY_PUBLISH, InHand
from tpxd.connection.outbound import Outbound
from tpxd.connection.states import ConnectionState
from tpxd.connection.watches import CertificateWatch, RateWatch
from tpxd.connector import Connector, Context, Dial, Memory, TlsContexts, Transport
from tpxd.downlinks.inbox import Inbox, receive_downlinks
from tpxd.downlinks.queue import DownlinkQueue
from tpxd.errors import AuthenticationFailed, LinkLost, Refused, TransportError, behind_barrier, leaves
from tpxd.events import Event
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import Cursor
from tpxd.timing import AUTHENTICATION_S, STEADY_S, Backoff, Pace, Stopping
from tpxd.wire.http import CannotListen

logger = logging.getLogger(__name__)

LAST_COMMIT_S: Final = 2.0
QUIET_S: Final = 3600.0
"""AGGRESSIVE opens a link anew over which no uplink went for so long."""

PORT_RETRY_S: Final = 10.0


@dataclass(slots=True)
class Connection:
    """One version of one connection file at work, and what it is made of.

    Attributes:
        in_hand: outlives this version, so that what has its receipt is not sent again by the next one.
        certificates: outlives this version too, so that the end of one is not told twice.
        backlog: lets new uplinks go before a backlog; None where the file does not say so.
        debug_log: what debugMode logs.
        chains: to whom it hands on.
        decoding: what decodes payloads, where its file names a driver.
        downlinks: where its downlinks go.
        stop_grace_s: how long a batch in flight may go on after a request to stop.
    """

    id: str
    file: ConnectionFile
    connector: Connector
    cursor: Cursor
    health: Health
    in_hand: InHand
    outbound: Outbound
    instance: str
    dial: Dial
    tls: TlsContexts
    memory: Memory
    stop_grace_s: float
    downlinks: DownlinkQueue
    chains: Chains = field(default_factory=Chains)
    decoding: Decoding | None = None
    certificates: CertificateWatch = field(default_factory=CertificateWatch)
    backoff: Backoff = field(init=False)
    backlog: Backlog | None = field(init=False)
    debug_log: DebugLog = field(default_factory=DebugLog)
    stopping: Stopping = field(default_factory=Stopping)
    _nudged: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        configuration = self.file.configuration
        self.backoff = Backoff(configuration.reconnectStrategy)
        share = configuration.backlogShare
        self.backlog = None if share is None else Backlog(self.id, share, self.health.tell)

    def hand_on(self, delivered: Iterable[Uplink]) -> list[tuple[int, Uplink]]:
        """See `Chains.handed_on`."""
        return self.chains.handed_on(self.id, delivered)

    def arrived(self) -> tuple[int, int]:
        """See `watches.Arrived`."""
        ledger = self.cursor.ledger
        if not (self.file.flow.matchers or self.file.configuration.sendMetadata or self.chains.names(self.id)):
            return ledger.received, ledger.received
        at_most = ledger.received - ledger.filtered
        return at_most - ledger.waiting, at_most

    def nudge(self) -> None:
        """Try again now, or as soon as the try under way has failed, and begin the burst anew."""
        self.backoff.reset()
        self._nudged.set()

    def opened(self) -> None:
        """The link is up: that answers a nudge that came meanwhile."""
        self._nudged = trio.Event()
        self.health.enter(ConnectionState.OPENED)

    async def pause(self, delay_s: float | None) -> None:
        """Wait before the next try: so long, or until nudged or asked to stop; None waits for these alone."""
        with self.stopping.interrupts(), trio.move_on_after(float("inf") if delay_s is None else delay_s):
            await self._nudged.wait()
        self._nudged = trio.Event()


async def run_connection(connection: Connection) -> None:
    """Keep one connection at work until it is asked to stop.

    Cancellation: receipts that came are committed, for at most two seconds.
    """
    connection.health.begin(connection.backlog)
    connection.in_hand.adopt(await decided(connection.in_hand.unsettled(), connection.outbound))
    try:
        async with trio.open_nursery() as nursery:
            if connection.file.health is not None and connection.file.health.listen:
                nursery.start_soon(offer_health, connection, connection.file.health.listen)
            nursery.start_soon(connection.health.lines.watch)
            nursery.start_soon(
                commit_receipts, connection.cursor, connection.in_hand, connection.health, connection.hand_on
            )
            if connection.decoding is not None and connection.outbound.decodes:
                nursery.start_soon(decode_ahead, connection.in_hand, connection.outbound, connection.decoding)
            if pems := connection.file.configuration.pems():
                nursery.start_soon(connection.certificates.watch, connection.id, pems, connection.health)
            else:
                connection.health.certificate_expires = None
            if connection.file.alarms:
                rate = RateWatch(connection.id, connection.file.alarms, connection.arrived, connection.health.tell)
                nursery.start_soon(rate.watch)
            connection.debug_log = await open_debug_log(
                connection.id, connection.file.configuration.debugMode, connection.memory
            )
            await keep_open(connection)
            nursery.cancel_scope.cancel()
    finally:
        connection.in_hand.sending = 0
        with trio.move_on_after(LAST_COMMIT_S, shield=True):
            await commit_settled(connection.cursor, connection.in_hand, connection.health, connection.hand_on)


async def keep_open(connection: Connection) -> None:
    """Open, deliver until the link is lost, wait as the reconnect strategy says, and again, until asked to stop."""
    while not connection.stopping.requested:
        error = await open_once(connection)
        if connection.in_hand.receipted:
            connection.backoff.reset()
            connection.in_hand.receipted = False
        if error is not None:
            await wait_after(connection, error)


async def open_once(connection: Connection) -> TransportError | None:
    """Open the transport once and deliver over it.

    Returns:
        What ended it, or None when it was asked to stop, or had no uplink for so long that it is opened anew.
    """
    configuration = connection.file.configuration
    connection.health.enter(ConnectionState.OPENING)
    error: TransportError | None = None
    opened_at: float | None = None
    with connection.stopping.bounds(
        lambda: connection.stop_grace_s if connection.health.state is ConnectionState.OPENED else 0.0
    ):
        try:
            async with connection.connector.open(configuration, context_of(connection)) as transport:
                opened_at = trio.current_time()
                connection.opened()
                await use_link(connection, transport)
                connection.health.enter(ConnectionState.CLOSING)
        except TransportError as alone:
            error = alone
        except BaseExceptionGroup as group:
            error = what_ended_it(group)
    if opened_at is not None and trio.current_time() - opened_at >= STEADY_S:
        connection.backoff.reset()
    if opened_at is not None and isinstance(error, LinkLost) and not isinstance(error, Refused):
        oldest = connection.in_hand.oldest_unsettled() if connection.in_hand.sending else None
        if connection.in_hand.poison.lost(oldest):
            error = LinkLost(f"{EVERY_PUBLISH} ({error.message})", hint=error.hint)
    connection.in_hand.sending = 0
    if error is not None and (way := configuration.way()) and way not in error.message:
        error.message = f"{error.message} (through {way})"
    return error


def context_of(connection: Connection) -> Context:
    """What the connector of this connection may touch."""
    return Context(
        connection_id=connection.id,
        instance=connection.instance,
        log=logging.LoggerAdapter(logger, {"connection": connection.id}),
        dial=connection.dial,
        tls=connection.tls,
        memory=connection.memory,
        authenticating=lambda: connection.health.enter(ConnectionState.AUTHENTICATING),
        proven=lambda: connection.in_hand.proven,
        troubled=connection.health.troubled,
        tell=connection.health.tell,
    )


async def use_link(connection: Connection, transport: Transport) -> None:
    """Deliver uplinks and take downlinks until it is asked to stop, or the link had no uplink for too long.

    Raises:
        TransportError: alone or in a group; see `deliver` and `receive_downlinks`.
    """
    configuration = connection.file.configuration
    async with trio.open_nursery() as link:
        if configuration.downlink_sources:
            port, messages = configuration.downlinkPort, connection.chains.messages
            inbox = Inbox(connection.id, connection.downlinks, port, messages, connection.health.note)
            link.start_soon(receive_downlinks, transport, inbox)
        if connection.backlog is not None:
            connection.backlog.draw_border(connection.cursor)
            link.start_soon(connection.backlog.watch, connection.cursor, connection.in_hand)
        # with a backlog behind it, a new link would else begin twice as fast as the far end may allow
        pace = Pace(configuration.uplinkRateLimiter, at_first=1)
        supply = Supply(
            connection.cursor,
            connection.in_hand,
            connection.outbound,
            pace,
            connection.connector.max_in_flight,
            connection.backlog,
        )
        quiet_s = QUIET_S if configuration.reconnectStrategy == "AGGRESSIVE" else float("inf")
        await deliver(transport, supply, connection.health, connection.stopping, quiet_s, connection.debug_log)
        link.cancel_scope.cancel()


def what_ended_it(group: BaseExceptionGroup[BaseException]) -> TransportError:
    """The first transport error of a group that holds nothing else; anything else goes on upwards."""
    transport, rest = group.split(TransportError)
    if transport is None or rest is not None:
        raise rest or group
    first = next(leaves(transport))
    assert isinstance(first, TransportError)
    return first


async def wait_after(connection: Connection, error: TransportError) -> None:
    """Show the error and wait until it is time for the next try."""
    connection.health.note(error)
    refused = isinstance(error, AuthenticationFailed)
    state = ConnectionState.AUTHENTICATION_FAILED if refused else ConnectionState.CLOSED
    delay = AUTHENTICATION_S if refused else connection.backoff.delay(trio.current_time())
    if delay is None:
        given_up = (
            f"{error.message}; gave up as reconnectStrategy CALM says: `tpxd reconnect {connection.id}` tries again"
        )
        connection.health.enter(state, given_up)
    else:
        connection.health.enter(state, error.message, retry_at=connection.health.wall() + delay)
    await connection.pause(delay)


async def offer_health(connection: Connection, address: str) -> None:
    """Serve the connection's health on a port of its own; a port that is taken disturbs nothing else."""
    while True:
        try:
            await serve_connection_health(address, connection.health.to_document)
        except CannotListen as error:
            text = f"{connection.id}: its health port: {error}"
            connection.health.tell(Event("health_port", text, connection.id, logging.WARNING))
        await trio.sleep(PORT_RETRY_S)


REGRET_S: Final = 3.0
"""A file that is gone for no longer than this, as with some editors, was not removed."""

LEAVE_S: Final = 5.0


async def take_leave(connection: Connection) -> None:
    """Remove what a connection that has finished left at its far end, once, as far as that is possible.

    Whoever opens without wanting downlinks removes what earlier openings left for them. Nothing else may open this
    connection meanwhile.
    """
    if connection.file.configuration.downlink_sources:
        await behind_barrier(partial(_open_without_downlinks, connection), "connection %s", connection.id)


async def _open_without_downlinks(connection: Connection) -> None:
    context = replace(context_of(connection), downlinks=False, authenticating=lambda: None)
    error: TransportError | None = None
    with trio.move_on_after(LEAVE_S) as leaving:
        try:
            async with connection.connector.open(connection.file.configuration, context):
                pass
        except TransportError as alone:
            error = alone
        except BaseExceptionGroup as group:
            error = what_ended_it(group)
    if error is not None or leaving.cancelled_caught:
        reason = f"it took longer than {LEAVE_S:g} s" if error is None else error.message
        context.log.warning("its far end may go on keeping downlinks for it: %s", reason)
