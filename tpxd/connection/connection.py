"""A connection is a nursery: it keeps its transport open, carries its queue, and nothing of it outlives it.

Connection.run
  ├─ offer_health            where the file asks for a port of its own
  ├─ commit_receipts         moves the cursor; survives the link
  ├─ StateLines.watch        says later what was no time to say
  ├─ CertificateWatch.watch  where the file has certificates
  ├─ RateWatch.watch         where the file has alarms
  └─ _keep_open              open, deliver and take downlinks, lose, wait, open again
"""

from __future__ import annotations

import logging
from typing import Final

import trio

from tpxd.config.connection_file import ConnectionFile
from tpxd.connection.debug_log import DebugLog, open_debug_log
from tpxd.connection.delivery import Queue, Supply, commit_receipts, commit_settled, decided, decode_ahead, deliver
from tpxd.connection.far_end import FarEnd, what_ended_it
from tpxd.connection.health import Health
from tpxd.connection.health_port import serve_connection_health
from tpxd.connection.in_hand import EVERY_PUBLISH
from tpxd.connection.states import ConnectionState
from tpxd.connection.watches import CertificateWatch, RateWatch
from tpxd.connector import Transport
from tpxd.downlinks.inbox import Inbox, receive_downlinks
from tpxd.downlinks.queue import DownlinkQueue
from tpxd.errors import AuthenticationFailed, LinkLost, Refused, TransportError
from tpxd.events import Event
from tpxd.timing import AUTHENTICATION_S, STEADY_S, Backoff, Pace, Stopping
from tpxd.wire.http import CannotListen

LAST_COMMIT_S: Final = 2.0
QUIET_S: Final = 3600.0
"""AGGRESSIVE opens a link anew over which no uplink went for so long."""

PORT_RETRY_S: Final = 10.0


class Connection:
    """One version of one connection file at work.

    Attributes:
        backoff: when it is tried again.
        stopping: asks it to end.

    Args:
        certificates: outlives this version, so that the end of one is not told twice.
        downlinks: where its downlinks go.
        stop_grace_s: how long a batch in flight may go on after a request to stop.
    """

    def __init__(
        self,
        file: ConnectionFile,
        far_end: FarEnd,
        queue: Queue,
        health: Health,
        certificates: CertificateWatch,
        downlinks: DownlinkQueue,
        stop_grace_s: float,
    ) -> None:
        self.id = health.id
        self.file = file
        self.far_end = far_end
        self.queue = queue
        self.health = health
        self.certificates = certificates
        self.backoff = Backoff(file.configuration.reconnectStrategy)
        self.stopping = Stopping()
        self._downlinks = downlinks
        self._stop_grace_s = stop_grace_s
        self._debug_log = DebugLog()
        self._nudged = trio.Event()

    def nudge(self) -> None:
        """Try again now, or as soon as the try under way has failed, and begin the burst anew."""
        self.backoff.reset()
        self._nudged.set()

    async def pause(self, delay_s: float | None) -> None:
        """Wait before the next try: so long, or until nudged or asked to stop; None waits for these alone."""
        with self.stopping.interrupts(), trio.move_on_after(float("inf") if delay_s is None else delay_s):
            await self._nudged.wait()
        self._nudged = trio.Event()

    async def run(self) -> None:
        """Keep the connection at work until it is asked to stop.

        Cancellation: receipts that came are committed, for at most two seconds.
        """
        queue, health, configuration = self.queue, self.health, self.file.configuration
        health.begin(queue.backlog)
        queue.in_hand.adopt(await decided(queue.in_hand.unsettled(), queue.outbound))
        try:
            async with trio.open_nursery() as nursery:
                if self.file.health is not None and self.file.health.listen:
                    nursery.start_soon(offer_health, health, self.file.health.listen)
                nursery.start_soon(health.lines.watch)
                nursery.start_soon(commit_receipts, queue, health)
                if queue.decoding is not None and queue.outbound.decodes:
                    nursery.start_soon(decode_ahead, queue.in_hand, queue.outbound, queue.decoding)
                if pems := configuration.pems():
                    nursery.start_soon(self.certificates.watch, self.id, pems, health)
                else:
                    health.certificate_expires = None
                if self.file.alarms:
                    rate = RateWatch(self.id, self.file.alarms, queue.arrived, health.tell)
                    nursery.start_soon(rate.watch)
                self._debug_log = await open_debug_log(self.id, configuration.debugMode, self.far_end.context.memory)
                await self._keep_open()
                nursery.cancel_scope.cancel()
        finally:
            queue.in_hand.sending = 0
            with trio.move_on_after(LAST_COMMIT_S, shield=True):
                await commit_settled(queue, health)

    async def _keep_open(self) -> None:
        """Open, deliver until the link is lost, wait as the reconnect strategy says, and again, until asked to stop."""
        in_hand = self.queue.in_hand
        while not self.stopping.requested:
            error = await self._open_once()
            if in_hand.receipted:
                self.backoff.reset()
                in_hand.receipted = False
            if error is not None:
                await self._wait_after(error)

    async def _open_once(self) -> TransportError | None:
        """Open the transport once and deliver over it.

        Returns:
            What ended it, or None when it was asked to stop, or had no uplink for so long that it is opened anew.
        """
        in_hand, health = self.queue.in_hand, self.health
        health.enter(ConnectionState.OPENING)
        error: TransportError | None = None
        opened_at: float | None = None
        with self.stopping.bounds(lambda: self._stop_grace_s if health.state is ConnectionState.OPENED else 0.0):
            try:
                async with self.far_end.open() as transport:
                    opened_at = trio.current_time()
                    self._nudged = trio.Event()  # the link is up: that answers a nudge that came meanwhile
                    health.enter(ConnectionState.OPENED)
                    await self._use_link(transport)
                    health.enter(ConnectionState.CLOSING)
            except TransportError as alone:
                error = alone
            except BaseExceptionGroup as group:
                error = what_ended_it(group)
        if opened_at is not None and trio.current_time() - opened_at >= STEADY_S:
            self.backoff.reset()
        if opened_at is not None and isinstance(error, LinkLost) and not isinstance(error, Refused):
            oldest = in_hand.oldest_unsettled() if in_hand.sending else None
            if in_hand.poison.lost(oldest):
                error = LinkLost(f"{EVERY_PUBLISH} ({error.message})", hint=error.hint)
        in_hand.sending = 0
        if error is not None and (way := self.file.configuration.way()) and way not in error.message:
            error.message = f"{error.message} (through {way})"
        return error

    async def _use_link(self, transport: Transport) -> None:
        """Deliver uplinks and take downlinks until it is asked to stop, or the link had no uplink for too long.

        Raises:
            TransportError: alone or in a group; see `deliver` and `receive_downlinks`.
        """
        queue, configuration = self.queue, self.file.configuration
        async with trio.open_nursery() as link:
            if configuration.downlink_sources:
                port, messages = configuration.downlinkPort, queue.outbound.chains.messages
                inbox = Inbox(self.id, self._downlinks, port, messages, self.health.note)
                link.start_soon(receive_downlinks, transport, inbox)
            if queue.backlog is not None:
                queue.backlog.draw_border(queue.cursor)
                link.start_soon(queue.backlog.watch, queue.cursor, queue.in_hand)
            # with a backlog behind it, a new link would else begin twice as fast as the far end may allow
            pace = Pace(configuration.uplinkRateLimiter, at_first=1)
            supply = Supply(queue, pace, self.far_end.connector.max_in_flight)
            quiet_s = QUIET_S if configuration.reconnectStrategy == "AGGRESSIVE" else float("inf")
            await deliver(transport, supply, self.health, self.stopping, quiet_s, self._debug_log)
            link.cancel_scope.cancel()

    async def _wait_after(self, error: TransportError) -> None:
        """Show the error and wait until it is time for the next try."""
        health = self.health
        health.note(error)
        refused = isinstance(error, AuthenticationFailed)
        state = ConnectionState.AUTHENTICATION_FAILED if refused else ConnectionState.CLOSED
        delay = AUTHENTICATION_S if refused else self.backoff.delay(trio.current_time())
        if delay is None:
            again = f"`tpxd reconnect {self.id}` tries again"
            health.enter(state, f"{error.message}; gave up as reconnectStrategy CALM says: {again}")
        else:
            health.enter(state, error.message, retry_at=health.wall() + delay)
        await self.pause(delay)


async def offer_health(health: Health, address: str) -> None:
    """Serve the connection's health on a port of its own; a port that is taken disturbs nothing else."""
    while True:
        try:
            await serve_connection_health(address, health.to_document)
        except CannotListen as error:
            text = f"{health.id}: its health port: {error}"
            health.tell(Event("health_port", text, health.id, logging.WARNING))
        await trio.sleep(PORT_RETRY_S)
