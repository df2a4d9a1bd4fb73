"""Peers for whole-daemon tests; each is ended with its test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
import trio
from paho.mqtt.enums import CallbackAPIVersion

from tests.daemon.harness import Daemon
from tests.daemon.lrc import Key, Lrc
from tests.daemon.receivers import BlackHole, Receiver, keys_of
from tests.peers.mosquitto import Mosquitto
from tests.peers.ports import free_port


class Broker:
    """A Mosquitto that a blocking test starts, stops and starts again."""

    def __init__(self, directory: Path, listener: str = "") -> None:
        self._mosquitto = Mosquitto(directory, free_port(), listener, persistent=True)
        self.port = self._mosquitto.port
        self.start()

    def start(self) -> None:
        """Start it; returns when it listens."""
        trio.run(self._mosquitto.start)

    def stop(self) -> None:
        """Stop it; what it holds for persistent sessions is on disk."""
        trio.run(self._mosquitto.stop)


class Subscriber:
    """An independent subscriber (paho) with a persistent session, so that a restart of the broker loses nothing."""

    def __init__(self, port: int, topic: str = "#", *, username: str | None = None, password: str = "") -> None:
        self.messages: list[tuple[str, bytes]] = []
        subscribed = threading.Event()
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"witness-{id(self)}", clean_session=False)

        def connected(*_: Any) -> None:
            client.subscribe(topic, qos=1)

        client.on_connect = connected
        client.on_subscribe = lambda *_: subscribed.set()
        client.on_message = self._keep
        client.reconnect_delay_set(1, 1)
        if username is not None:
            client.username_pw_set(username, password)
        client.connect("127.0.0.1", port)
        client.loop_start()
        self._client = client
        assert subscribed.wait(5), "the independent subscriber could not subscribe"

    def _keep(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        arrived = message.topic, bytes(message.payload)
        # a broker marks what it sends again itself, such as after its restart: then nobody published that twice
        if not (message.dup and arrived in self.messages):
            self.messages.append(arrived)

    def keys(self) -> list[Key]:
        """What arrived, in order."""
        return keys_of(payload for _, payload in list(self.messages))

    def close(self) -> None:
        """End the session's connection."""
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture(autouse=True)
def ending() -> Iterator[ExitStack]:
    """Whatever a test starts ends here, newest first."""
    with ExitStack() as stack:
        yield stack
        while Lrc.made:
            Lrc.made.pop().close()


@pytest.fixture
def broker(tmp_path: Path, ending: ExitStack) -> Broker:
    """A real Mosquitto."""
    started = Broker(tmp_path)
    ending.callback(started.stop)
    return started


@pytest.fixture
def subscriber(broker: Broker, ending: ExitStack) -> Subscriber:
    """What arrives at the real Mosquitto."""
    started = Subscriber(broker.port)
    ending.callback(started.close)
    return started


@pytest.fixture
def receiver(ending: ExitStack) -> Receiver:
    """A real HTTP server."""
    started = Receiver()
    ending.callback(started.close)
    return started


@pytest.fixture
def hole(ending: ExitStack) -> BlackHole:
    """A server that accepts and never answers."""
    started = BlackHole()
    ending.callback(started.close)
    return started


MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def make_daemon(tmp_path: Path, ending: ExitStack) -> MakeDaemon:
    """Makes a daemon in the test's directory; it is not started yet."""

    def make(settings: str = "", **connections: str) -> Daemon:
        daemon = Daemon(tmp_path, settings, **connections)
        ending.callback(daemon.end)
        return daemon

    return make
