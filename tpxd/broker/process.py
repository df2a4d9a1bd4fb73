"""The embedded MQTT broker: amqtt's, in a process of its own, for applications on the same machine.

    python -m tpxd.broker.process 127.0.0.1:1883

prints `ready` when it listens, ends cleanly on SIGTERM and when its standard input ends, and says in one line on
standard error why it ended otherwise. Everyone who reaches the address may connect, so it belongs on loopback.

This is the one file of tpxd that runs asyncio. A process of its own keeps that apart from trio, and a broker that
misbehaves away from the uplinks.

What it keeps is in memory and bounded: a client's persistent session outlives its connection by a day and holds the
newest `MAX_QUEUED` messages; a broker that grows past `MAX_RESIDENT_BYTES` all the same ends and is started anew.

What this does not do: keep a message whose receiver leaves, or needs longer than five seconds, before its PUBACK.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from amqtt.broker import Broker, BrokerContext
from amqtt.errors import BrokerError
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin
from amqtt.session import ApplicationMessage, Session

from tpxd.broker.lifeline import end_with_parent

READY = "ready"
MAX_QUEUED = 10_000
MAX_CONNECTIONS = 1_000
MAX_RESIDENT_BYTES = 512 << 20
MEMORY_CHECK_S = 5.0
SESSION_EXPIRY_S = 86_400


class AdmitEveryone(BaseAuthPlugin):  # type: ignore[misc]  # amqtt is untyped
    """Admits every client as one with a name: amqtt forgets the sessions of those that it calls anonymous."""

    async def authenticate(self, *, session: Session) -> bool:
        """Say yes."""
        return True


class BoundQueues(BasePlugin[BrokerContext]):  # type: ignore[misc]  # amqtt is untyped
    """Drops the oldest message that waits for an absent client when there are too many."""

    async def on_broker_retained_message(
        self, *, client_id: str | None, retained_message: ApplicationMessage | None
    ) -> None:
        """Called by amqtt after it queued a message for `client_id`, None for a message retained on a topic."""
        session = self.context.get_session(client_id) if client_id else None
        if session is not None and session.retained_messages.qsize() > MAX_QUEUED:
            session.retained_messages.get_nowait()


class StricterBroker(Broker):  # type: ignore[misc]  # amqtt is untyped
    """amqtt's broker without two of its errors, which would lose commands and send others twice.

    Both methods are amqtt's own and private: where a later amqtt has them no more, it is plain amqtt again.
    """

    async def _publish_session_retained_messages(self, session: Session) -> None:
        """Send what waited for an absent client; amqtt marks it as retained, which it is not (MQTT 3.1.1, 3.3.1.3)."""
        handler, sending = self._get_handler(session), []
        while handler is not None and not session.retained_messages.empty():
            waiting = session.retained_messages.get_nowait()
            sent = handler.mqtt_publish(waiting.topic, waiting.data, waiting.qos, retain=False)
            sending.append(asyncio.ensure_future(sent))
        if sending:
            await asyncio.wait(sending)

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """Send retained messages to whoever subscribes; amqtt sends those of all subscriptions to all who connect."""
        subscribers = self._subscriptions.get(subscription[0], ())
        if any(subscriber.client_id == session.client_id for subscriber, _ in subscribers):
            await super()._publish_retained_messages_for_subscription(subscription, session)


async def serve(address: str) -> None:
    """Serve MQTT 3.1.1 at `host:port` until SIGTERM or SIGINT; raises `BrokerError` when that is not possible."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    broker = StricterBroker(
        {
            "listeners": {"default": {"type": "tcp", "bind": address, "max_connections": MAX_CONNECTIONS}},
            "plugins": {"tpxd.broker.process.AdmitEveryone": {}, "tpxd.broker.process.BoundQueues": {}},
            "session_expiry_interval": SESSION_EXPIRY_S,
        }
    )
    await broker.start()
    print(READY, flush=True)
    while not stopping.is_set():
        try:
            await asyncio.wait_for(stopping.wait(), timeout=MEMORY_CHECK_S)
        except TimeoutError:
            if resident_bytes() > MAX_RESIDENT_BYTES:
                raise SystemExit(f"the broker holds more than {MAX_RESIDENT_BYTES >> 20} MiB") from None
    await broker.shutdown()


def resident_bytes() -> int:
    """Memory of this process that is really present."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Run the broker at the address that is the only argument."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tpxd.broker.process HOST:PORT")
    # amqtt reports every client that leaves, with a traceback, as errors.
    logging.basicConfig(level=logging.CRITICAL)
    end_with_parent()
    try:
        asyncio.run(serve(sys.argv[1]))
    except BrokerError as error:
        raise SystemExit(f"the broker cannot serve at {sys.argv[1]}: {error}") from None


if __name__ == "__main__":
    main()
