"""The whole daemon against real far ends over TLS that are not as they should be: what it says, and nothing is lost."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import Broker, MakeDaemon, Subscriber
from tests.daemon.harness import Daemon, connection_file, eventually
from tests.daemon.lrc import DEVICES, Key, Load, Lrc, uplink
from tests.daemon.receivers import Receiver, judge, keys_of
from tests.peers import pki
from tests.peers.ports import free_port
from tests.peers.rabbitmq import PASSWORD, USER, Rabbit

pytestmark = pytest.mark.broker

IN_FLIGHT = 256

WITNESS = """
import asyncio, json, sys
import aiormq

async def main(url, exchange, task):
    connection = await aiormq.connect(url)
    channel = await connection.channel()
    if task == "prepare":
        await channel.exchange_declare(exchange, exchange_type="topic", durable=True)
        await channel.queue_declare(exchange, durable=True)
        await channel.queue_bind(exchange, exchange, routing_key="#")
    else:
        while (message := await channel.basic_get(exchange, no_ack=True)).delivery_tag:
            print(json.dumps(message.body.decode()))
    await connection.close()

asyncio.run(main(*sys.argv[1:]))
"""


class TlsFront:
    """A port that speaks TLS with a certificate of its own and passes everything on to another port."""

    def __init__(self, directory: Path, name: str, identity: pki.Identity, target: int) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*identity.write(directory, name))
        self._context, self._target = context, target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._carry, args=(self._listener.accept()[0],), daemon=True).start()

    def _carry(self, plain: socket.socket) -> None:
        # a client that does not like the certificate, and either end that goes away, is what this is for
        with (
            suppress(OSError),
            self._context.wrap_socket(plain, server_side=True) as near,
            socket.create_connection(("127.0.0.1", self._target)) as far,
        ):
            self._open += [near, far]
            back = threading.Thread(target=_pump, args=(far, near), daemon=True)
            back.start()
            _pump(near, far)
            back.join()

    def close(self) -> None:
        """Stop listening and cut what is open."""
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


class AmqpWitness:
    """What an exchange of RabbitMQ got, as aiormq sees it: in a durable queue of the same name."""

    def __init__(self, rabbit: Rabbit, exchange: str) -> None:
        self._url, self.exchange = f"amqp://{USER}:{PASSWORD}@127.0.0.1:{rabbit.port}/", exchange
        self._arrived: list[Key] = []
        self._run("prepare")

    def keys(self) -> list[Key]:
        """What arrived so far, in order."""
        self._arrived += keys_of(json.loads(line).encode() for line in self._run("take").splitlines())
        return self._arrived

    def _run(self, task: str) -> str:
        argv = [sys.executable, "-c", WITNESS, self._url, self.exchange, task]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout


class Site:
    """The three technologies, each as a file with TLS; wrong in one way, or right."""

    def __init__(self, directory: Path, exchange: str, ports: dict[str, int], ending: ExitStack) -> None:
        self._exchange = exchange
        self._fronts: dict[str, TlsFront] = {}
        identities = {
            "right": pki.server(),
            "expired": pki.issue("localhost", pki.ca(), expires=pki.NOW - timedelta(days=1)),
            "misnamed": pki.server("elsewhere.example.net"),
        }
        for technology, port in ports.items():
            for state, identity in identities.items():
                front = TlsFront(directory, f"{technology}-{state}", identity, port)
                ending.callback(front.close)
                self._fronts[f"{technology}-{state}"] = front

    def file(self, technology: str, trouble: str = "right") -> str:
        """A connection file with this trouble."""
        front = self._fronts.get(f"{technology}-{trouble}", self._fronts[f"{technology}-right"])
        trusted = pki.issue("Another CA", is_ca=True) if trouble == "foreign" else pki.ca()
        login = "wrong" if trouble == "credentials" else PASSWORD
        place = f"localhost:{front.port}"
        tls: dict[str, Any] = {"trustedCaCertificate": trusted.certificate}
        if technology == "http":
            return connection_file("actility-http-iot", tls | {"destinationURL": f"https://{place}/?token={login}"})
        tls |= {"hostName": place, "protocol": "SSL", "username": USER, "password": login}
        if technology == "amqp":
            more = {"exchangeName": self._exchange, "uplinkTopicPattern": "t.{DevEUI}"}
            return connection_file("actility-amqp-0.9.1-iot", tls | more)
        return connection_file("actility-mqtt-iot", tls | {"uplinkTopicPattern": "t/{DevEUI}"})


@pytest.fixture
def rabbit_witness(rabbit: Rabbit) -> AmqpWitness:
    """An exchange and a queue of this test's own."""
    return AmqpWitness(rabbit, f"far-ends-{free_port()}")


TROUBLES = {
    "expired": ("CLOSED", "expired"),
    "foreign": ("CLOSED", "certificate"),
    "misnamed": ("CLOSED", "localhost"),
    "credentials": ("AUTHENTICATION_FAILED", ""),
}


def test_what_is_wrong_with_a_far_end_is_told_and_nothing_is_lost(
    make_daemon: MakeDaemon, tmp_path: Path, rabbit: Rabbit, rabbit_witness: AmqpWitness, ending: ExitStack
) -> None:
    broker = Broker(tmp_path, f"allow_anonymous false\npassword_file {_password_file(tmp_path)}")
    ending.callback(broker.stop)
    witness = Subscriber(broker.port, username=USER, password=PASSWORD)
    ending.callback(witness.close)
    receiver = Receiver(lambda path, body: 200 if path == f"/?token={PASSWORD}" else 401)
    ending.callback(receiver.close)
    ports = {"mqtt": broker.port, "amqp": rabbit.port, "http": receiver.port}
    site = Site(tmp_path, rabbit_witness.exchange, ports, ending)
    cases = [(technology, trouble) for technology in ports for trouble in TROUBLES]
    daemon: Daemon = make_daemon("", **{f"{way}-{trouble}": site.file(way, trouble) for way, trouble in cases}).start()
    lrc = Lrc(daemon.intake)
    for n in range(60):
        assert lrc.post(uplink(DEVICES[n % 20], n)) == 200
    for way, trouble in cases:
        state, word = TROUBLES[trouble]
        told = eventually(f"{way}-{trouble} is {state}", lambda: _told(daemon, f"{way}-{trouble}", state), 30)  # noqa: B023
        assert word in f"{told['message']} {told['hint']}", told
        assert told["hint"], told
    status, overview = daemon.get("/health")
    assert status == 503
    assert len(overview["reasons"]) >= len(cases)
    for way, trouble in cases:
        daemon.write(f"{way}-{trouble}", site.file(way))
    for way, trouble in cases:
        daemon.opened(f"{way}-{trouble}", within_s=30)
        daemon.drained(f"{way}-{trouble}")
        assert daemon.uplinks(f"{way}-{trouble}")["delivered"] == 60
    four_times = sorted(lrc.accepted * len(TROUBLES))
    taken = keys_of(body for path, _, body, _ in receiver.requests if path == f"/?token={PASSWORD}")
    assert sorted(taken) == four_times
    assert sorted(rabbit_witness.keys()) == four_times
    eventually("the subscriber has all", lambda: sorted(witness.keys()) == four_times)


def _told(daemon: Daemon, id: str, state: str) -> dict[str, Any]:
    """The last error of a connection in which everything waits, once it is in this state."""
    document = daemon.health(id)
    assert (document["state"], document["uplinks"]["waiting"]) == (state, 60), document
    error: dict[str, Any] = document["lastError"]
    return error


def _password_file(directory: Path) -> Path:
    path = directory / "passwords"
    path.write_text("")
    path.chmod(0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(path), USER, PASSWORD], check=True, capture_output=True)
    return path


def test_rabbitmq_killed_and_a_server_restarted_in_traffic_lose_nothing(
    make_daemon: MakeDaemon, tmp_path: Path, rabbit: Rabbit, rabbit_witness: AmqpWitness, ending: ExitStack
) -> None:
    receiver = Receiver()
    ending.callback(lambda: receiver.close())
    ports = {"amqp": rabbit.port, "http": receiver.port}
    site = Site(tmp_path, rabbit_witness.exchange, ports, ending)
    daemon: Daemon = make_daemon("", **{way: site.file(way) for way in ports}).start()
    daemon.opened(*ports)
    load, arrived = Load(daemon.intake, threads=2), list[Key]()
    eventually("traffic flows", lambda: min(daemon.uplinks(way)["delivered"] for way in ports) > 200)
    rabbit.kill()
    receiver.close()
    for way in ports:
        eventually(f"the loss of {way} is seen", lambda: daemon.health(way)["state"] != "OPENED")  # noqa: B023
    load.stop()
    arrived += receiver.keys()
    receiver = Receiver(port=receiver.port)
    rabbit.start()
    assert daemon.request("POST", "/connections/amqp/reconnect")[0] == 202
    assert daemon.request("POST", "/connections/http/reconnect")[0] == 202
    for way in ports:
        daemon.opened(way, within_s=60)
        daemon.drained(way, within_s=60)
    judge(load.accepted, arrived + receiver.keys(), posted=load.posted, doubles=IN_FLIGHT)
    judge(load.accepted, rabbit_witness.keys(), posted=load.posted, doubles=IN_FLIGHT)
