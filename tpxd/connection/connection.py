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

from tpxd.config.connection_file import ConnectionFile
from tpxd.connection.backlog import LiveFirst
from tpxd.connection.chains import Chains
from tpxd.connection.debug_log import DebugLog, open_debug_log
from tpxd.connection.delivery import Supply, commit_receipts, commit_settled, decided, deliver
from tpxd.connection.health import Health, State
from tpxd.connection.health_port import serve_connection_health
from tpxd.connection.in_hand import EVERY_PUBLISH, Flight
from tpxd.connection.outbound import Outbound
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
class Live:
    """One version of one connection file at work, and what it is made of.

    Attributes:
        flight: outlives this version, so that what has its receipt is not sent again by the next one.
        certificates: outlives this version too, so that the end of one is not told twice.
        live_first: lets new uplinks go before a backlog; None where the file does not say so.
        debug_log: what debugMode logs.
        chains: to whom it hands on.
        downlinks: where its downlinks go.
        stop_grace_s: how long a batch in flight may go on after a request to stop.
    """

    id: str
    file: ConnectionFile
    connector: Connector
    cursor: Cursor
    health: Health
    flight: Flight
    outbound: Outbound
    instance: str
    dial: Dial
    tls: TlsContexts
    memory: Memory
    stop_grace_s: float
    downlinks: DownlinkQueue
    chains: Chains = field(default_factory=Chains)
    certificates: CertificateWatch = field(default_factory=CertificateWatch)
    backoff: Backoff = field(init=False)
    live_first: LiveFirst | None = field(init=False)
    debug_log: DebugLog = field(default_factory=DebugLog)
    stopping: Stopping = field(default_factory=Stopping)
    _nudged: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        configuration = self.file.configuration
        self.backoff = Backoff(configuration.reconnectStrategy)
        share = configuration.backlogShare
        self.live_first = None if share is None else LiveFirst(self.id, share, self.health.report)

    def hand_on(self, delivered: Iterable[Uplink]) -> list[tuple[int, Uplink]]:
        """See `Chains.handed_on`."""
        return self.chains.handed_on(self.id, delivered)

    def came(self) -> tuple[int, int]:
        """See `rate.Came`."""
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
        self.health.turn(State.OPENED)

    async def pause(self, delay_s: float | None) -> None:
        """Wait before the next try: so long, or until nudged or asked to stop; None waits for these alone."""
        with self.stopping.interrupts(), trio.move_on_after(float("inf") if delay_s is None else delay_s):
            await self._nudged.wait()
        self._nudged = trio.Event()


async def run_connection(live: Live) -> None:
    """Keep one connection at work until it is asked to stop.

    Cancellation: receipts that came are committed, for at most two seconds.
    """
    live.health.trouble, live.health.rejected_running = None, 0
    live.health.lines.begin()
    live.health.in_flight = lambda: live.flight.sending
    live.health.replaced = lambda: live.flight.replaced
    live.health.backlog_alone = lambda: None if live.live_first is None else live.live_first.alone
    live.flight.adopt(await decided(live.flight.unsettled(), live.outbound))
    try:
        async with trio.open_nursery() as nursery:
            if live.file.health is not None and live.file.health.listen:
                nursery.start_soon(offer_health, live, live.file.health.listen)
            nursery.start_soon(live.health.lines.watch)
            nursery.start_soon(commit_receipts, live.cursor, live.flight, live.health, live.hand_on)
            if pems := live.file.configuration.pems():
                nursery.start_soon(live.certificates.watch, live.id, pems, live.health)
            else:
                live.health.certificate_expires = None
            if live.file.alarms:
                rate = RateWatch(live.id, live.file.alarms, live.came, live.health.report)
                nursery.start_soon(rate.watch)
            live.debug_log = await open_debug_log(live.id, live.file.configuration.debugMode, live.memory)
            await keep_open(live)
            nursery.cancel_scope.cancel()
    finally:
        live.flight.sending = 0
        with trio.move_on_after(LAST_COMMIT_S, shield=True):
            await commit_settled(live.cursor, live.flight, live.health, live.hand_on)


async def keep_open(live: Live) -> None:
    """Open, deliver until the link is lost, wait as the reconnect strategy says, and again, until asked to stop."""
    while not live.stopping.requested:
        error = await open_once(live)
        if live.flight.receipted:
            live.backoff.reset()
            live.flight.receipted = False
        if error is not None:
            await wait_after(live, error)


async def open_once(live: Live) -> TransportError | None:
    """Open the transport once and deliver over it.

    Returns:
        What ended it, or None when it was asked to stop, or had no uplink for so long that it is opened anew.
    """
    configuration = live.file.configuration
    live.health.turn(State.OPENING)
    error: TransportError | None = None
    opened_at: float | None = None
    with live.stopping.bounds(lambda: live.stop_grace_s if live.health.state is State.OPENED else 0.0):
        try:
            async with live.connector.open(configuration, context_of(live)) as transport:
                opened_at = trio.current_time()
                live.opened()
                await use_link(live, transport)
                live.health.turn(State.CLOSING)
        except TransportError as alone:
            error = alone
        except BaseExceptionGroup as group:
            error = what_ended_it(group)
    if opened_at is not None and trio.current_time() - opened_at >= STEADY_S:
        live.backoff.reset()
    if opened_at is not None and isinstance(error, LinkLost) and not isinstance(error, Refused):
        oldest = live.flight.oldest_unsettled() if live.flight.sending else None
        if live.flight.poison.lost(oldest):
            error = LinkLost(f"{EVERY_PUBLISH} ({error.message})", hint=error.hint)
    live.flight.sending = 0
    if error is not None and (way := configuration.way()) and way not in error.message:
        error.message = f"{error.message} (through {way})"
    return error


def context_of(live: Live) -> Context:
    """What the connector of this connection may touch."""
    return Context(
        connection_id=live.id,
        instance=live.instance,
        log=logging.LoggerAdapter(logger, {"connection": live.id}),
        dial=live.dial,
        tls=live.tls,
        memory=live.memory,
        authenticating=lambda: live.health.turn(State.AUTHENTICATING),
        proven=lambda: live.flight.proven,
        troubled=live.health.troubled,
        report=live.health.report,
    )


async def use_link(live: Live, transport: Transport) -> None:
    """Deliver uplinks and take downlinks until it is asked to stop, or the link had no uplink for too long.

    Raises:
        TransportError: alone or in a group; see `deliver` and `receive_downlinks`.
    """
    configuration = live.file.configuration
    async with trio.open_nursery() as link:
        if configuration.downlink_sources:
            port, messages = configuration.downlinkPort, live.chains.messages
            inbox = Inbox(live.id, live.downlinks, port, messages, live.health.note)
            link.start_soon(receive_downlinks, transport, inbox)
        if live.live_first is not None:
            live.live_first.draw_border(live.cursor)
            link.start_soon(live.live_first.watch, live.cursor, live.flight)
        # with a backlog behind it, a new link would else begin twice as fast as the far end may allow
        pace = Pace(configuration.uplinkRateLimiter, at_first=1)
        supply = Supply(live.cursor, live.flight, live.outbound, pace, live.connector.max_in_flight, live.live_first)
        quiet_s = QUIET_S if configuration.reconnectStrategy == "AGGRESSIVE" else float("inf")
        await deliver(transport, supply, live.health, live.stopping, quiet_s, live.debug_log)
        link.cancel_scope.cancel()


def what_ended_it(group: BaseExceptionGroup[BaseException]) -> TransportError:
    """The first transport error of a group that holds nothing else; anything else goes on upwards."""
    transport, rest = group.split(TransportError)
    if transport is None or rest is not None:
        raise rest or group
    first = next(leaves(transport))
    assert isinstance(first, TransportError)
    return first


async def wait_after(live: Live, error: TransportError) -> None:
    """Show the error and wait until it is time for the next try."""
    live.health.note(error)
    refused = isinstance(error, AuthenticationFailed)
    state = State.AUTHENTICATION_FAILED if refused else State.CLOSED
    delay = AUTHENTICATION_S if refused else live.backoff.delay(trio.current_time())
    if delay is None:
        given_up = f"{error.message}; gave up as reconnectStrategy CALM says: `tpxd reconnect {live.id}` tries again"
        live.health.turn(state, given_up)
    else:
        live.health.turn(state, error.message, retry_at=live.health.wall() + delay)
    await live.pause(delay)


async def offer_health(live: Live, address: str) -> None:
    """Serve the connection's health on a port of its own; a port that is taken disturbs nothing else."""
    while True:
        try:
            await serve_connection_health(address, live.health.to_document)
        except CannotListen as error:
            text = f"{live.id}: its health port: {error}"
            live.health.report(Event("health_port", text, live.id, logging.WARNING))
        await trio.sleep(PORT_RETRY_S)


REGRET_S: Final = 3.0
"""A file that is gone for no longer than this, as with some editors, was not removed."""

LEAVE_S: Final = 5.0


async def take_leave(live: Live) -> None:
    """Remove what a connection that has finished left at its far end, once, as far as that is possible.

    Whoever opens without wanting downlinks removes what earlier openings left for them. Nothing else may open this
    connection meanwhile.
    """
    if live.file.configuration.downlink_sources:
        await behind_barrier(partial(_open_without_downlinks, live), "connection %s", live.id)


async def _open_without_downlinks(live: Live) -> None:
    context = replace(context_of(live), downlinks=False, authenticating=lambda: None)
    error: TransportError | None = None
    with trio.move_on_after(LEAVE_S) as leaving:
        try:
            async with live.connector.open(live.file.configuration, context):
                pass
        except TransportError as alone:
            error = alone
        except BaseExceptionGroup as group:
            error = what_ended_it(group)
    if error is not None or leaving.cancelled_caught:
        reason = f"it took longer than {LEAVE_S:g} s" if error is None else error.message
        context.log.warning("its far end may go on keeping downlinks for it: %s", reason)
