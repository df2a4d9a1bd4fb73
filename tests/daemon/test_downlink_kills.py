"""kill -9 at every step of a downlink's life: none that was accepted is lost, and what the LRC got twice is counted."""

from __future__ import annotations

import json
import random
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections import Counter
from contextlib import ExitStack, suppress
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.daemon.conftest import Broker, MakeDaemon, Subscriber
from tests.daemon.downlinking import client, downlink, lrc_settings, payloads, publish, tpxd
from tests.daemon.harness import Daemon, eventually, http_file, mqtt_file
from tests.daemon.lrc import DEVICES
from tests.daemon.receivers import Receiver
from tests.peers.ports import free_port

pytestmark = pytest.mark.broker

UUID = "6b1f0c9e-0000-4000-8000-00000000a1c4"
DEVICE = DEVICES[0]
KILLS = 10


def ids(lrc: Receiver) -> list[str]:
    """The CorrelationIDs that the LRC was told, in order."""
    return [parse_qs(urlsplit(path).query)["CorrelationID"][0] for path, *_ in list(lrc.requests)]


def restart(daemon: Daemon) -> None:
    daemon.end(signal.SIGKILL)
    daemon.start()


def post(daemon: Daemon, body: bytes) -> bool:
    """Post a downlink to the connection `web`; True when it was accepted."""
    url = f"http://127.0.0.1:{daemon.intake}/iot-flow/downlinkMessages/{UUID}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, method="POST"), timeout=5) as answer:
            return bool(answer.status == 202)
    except OSError:
        return False


def counts(daemon: Daemon, id: str) -> dict[str, int]:
    found: dict[str, int] = daemon.health(id)["downlinks"]
    return found


class Relay:
    """Passes bytes on between a client and a broker; `deaf` keeps back what the client says."""

    def __init__(self, target: int) -> None:
        self.deaf = False
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, far = self._listener.accept()[0], socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, from_client: bool) -> None:
        with suppress(OSError), source, sink:
            while data := source.recv(65_536):
                if not (from_client and self.deaf):
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()


def test_when_the_acknowledgement_is_lost(
    make_daemon: MakeDaemon, broker: Broker, receiver: Receiver, ending: ExitStack
) -> None:
    relay = Relay(broker.port)
    ending.callback(relay.close)
    daemon = make_daemon(lrc_settings(receiver), plant=mqtt_file(relay.port, downlinkTopicPattern="d/{DevEUI}")).start()
    daemon.opened("plant")
    relay.deaf = True
    publish(broker.port, f"d/{DEVICE}", downlink("01"))
    eventually("the LRC has it", lambda: payloads(receiver) == ["01"])
    daemon.end(signal.SIGKILL)
    relay.deaf = False
    daemon.start()
    daemon.opened("plant")
    publish(broker.port, f"d/{DEVICE}", downlink("02"))
    eventually("the next one came", lambda: payloads(receiver)[-1] == "02")
    # the daemon said PUBACK and the broker never heard it: nobody can know, so it is shown as doubtful
    assert payloads(receiver) == ["01", "01", "02"]
    assert counts(daemon, "plant") | {"received": 3, "sent": 3, "doubtful": 1} == counts(daemon, "plant")


@pytest.mark.parametrize("when_in_doubt", ["resend", "report"])
def test_while_the_lrc_is_told(
    make_daemon: MakeDaemon, broker: Broker, subscriber: Subscriber, receiver: Receiver, when_in_doubt: str
) -> None:
    told, held = threading.Event(), threading.Event()

    def hold(path: str, body: bytes) -> int:
        told.set()
        held.wait(20)
        return 200

    receiver.status = hold
    patterns = {"downlinkTopicPattern": "d/{DevEUI}", "downlinkStatusTopicPattern": "status/{DevEUI}"}
    settings = lrc_settings(receiver) + f'when_in_doubt = "{when_in_doubt}"\n'
    daemon = make_daemon(settings, plant=mqtt_file(broker.port, **patterns)).start()
    daemon.opened("plant")
    publish(broker.port, f"d/{DEVICE}", downlink("01", CorrelationID="A1"))
    assert told.wait(10)
    daemon.end(signal.SIGKILL)
    held.set()
    receiver.status = lambda path, body: 200
    daemon.start()
    ended = "sent" if when_in_doubt == "resend" else "rejected"
    eventually("it has come to its end", lambda: counts(daemon, "plant")[ended] == 1)
    assert ids(receiver) == (["A1", "A1"] if when_in_doubt == "resend" else ["A1"])
    assert counts(daemon, "plant")["doubtful"] == 1
    (entry,) = json.loads(tpxd(daemon, "trace", DEVICE, "--json").stdout)[:1]
    assert (entry["state"], entry["doubts"]) == (ended, 1)
    if when_in_doubt == "report":
        verdicts = eventually("the verdict came", lambda: [b for t, b in subscriber.messages if t.startswith("status")])
        assert json.loads(verdicts[0])["DevEUI_downlink_Rejected"]["CorrelationID"] == "A1"


def test_while_it_waits_and_after_its_end(make_daemon: MakeDaemon) -> None:
    port = free_port()
    settings = f'[lrc]\ndownlink_url = "http://127.0.0.1:{port}/"\n'
    daemon = make_daemon(settings, web=http_file("http://127.0.0.1:9/", downlinkUuid=UUID)).start()
    eventually("the address is open", lambda: post(daemon, downlink("00")))
    for n in range(1, 6):
        assert post(daemon, downlink(f"{n:02x}"))
        restart(daemon)
    assert counts(daemon, "web")["waiting"] == 6
    lrc = Receiver(port=port)
    try:
        restart(daemon)
        eventually("all are there, in order", lambda: payloads(lrc) == [f"{n:02x}" for n in range(6)])
        eventually("and over", lambda: counts(daemon, "web")["sent"] == 6)
        restart(daemon)
        assert counts(daemon, "web") | {"received": 6, "sent": 6, "waiting": 0} == counts(daemon, "web")
        assert post(daemon, downlink("06"))
        eventually("none came again", lambda: payloads(lrc) == [f"{n:02x}" for n in range(7)])
    finally:
        lrc.close()


class Application:
    """Publishes and posts downlinks until told to stop, each with an id of its own.

    Attributes:
        accepted: what the broker, or the daemon itself, has acknowledged.
        offered: all of it.
    """

    def __init__(self, daemon: Daemon, broker_port: int) -> None:
        self.accepted: list[str] = []
        self.offered: set[str] = set()
        self._daemon, self._stop = daemon, threading.Event()
        self._threads = [
            threading.Thread(target=self._publish, args=(broker_port,), daemon=True),
            threading.Thread(target=self._post, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _one_downlink(self, n: int, first: str) -> tuple[str, str, bytes]:
        id, device = f"{first}{n:015X}", DEVICES[n % 10 + (10 if first == "B" else 0)]
        self.offered.add(id)
        return id, device, downlink(f"{n:08x}", DevEUI=device, CorrelationID=id)

    def _publish(self, port: int) -> None:
        with client(port, "application") as (application, _):
            n = 0
            while not self._stop.wait(0.01):
                n += 1
                id, device, body = self._one_downlink(n, "A")
                application.publish(f"d/{device}", body, qos=1).wait_for_publish(10)
                self.accepted.append(id)

    def _post(self) -> None:
        n = 0
        while not self._stop.wait(0.01):
            n += 1
            id, _, body = self._one_downlink(n, "B")
            if post(self._daemon, body):
                self.accepted.append(id)

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        for thread in self._threads:
            thread.join(20)


def test_at_any_moment_under_load(
    make_daemon: MakeDaemon,
    broker: Broker,
    subscriber: Subscriber,
    receiver: Receiver,
) -> None:
    chance, pause = random.Random(20), threading.Event()
    refused: set[str] = set()

    def answer(path: str, body: bytes) -> int:
        pause.wait(chance.uniform(0, 0.03))
        id = parse_qs(urlsplit(path).query)["CorrelationID"][0]
        if id.endswith("7"):
            refused.add(id)
            return 350
        return 200

    receiver.status = answer
    patterns = {"downlinkTopicPattern": "d/{DevEUI}", "downlinkStatusTopicPattern": "status/{DevEUI}"}
    web = http_file("http://127.0.0.1:9/", downlinkUuid=UUID)
    daemon = make_daemon(lrc_settings(receiver), plant=mqtt_file(broker.port, **patterns), web=web).start()
    daemon.opened("plant")
    application = Application(daemon, broker.port)
    for _ in range(KILLS):
        pause.wait(chance.uniform(0.2, 0.9))
        restart(daemon)
    pause.wait(0.5)
    application.stop()
    daemon.opened("plant")
    eventually("nothing waits", lambda: all(counts(daemon, id)["waiting"] == 0 for id in ("plant", "web")), 60)
    eventually("all are there", lambda: set(application.accepted) <= set(ids(receiver)), 30)

    told = ids(receiver)
    assert set(told) <= application.offered
    doubled = {id: times - 1 for id, times in Counter(told).items() if times > 1}
    doubtful = sum(counts(daemon, id)["doubtful"] for id in ("plant", "web"))
    print(f"{len(set(told))} downlinks over {KILLS} kills, {sum(doubled.values())} doubled, {doubtful} doubtful")
    assert sum(doubled.values()) <= doubtful, f"{doubled}, and {doubtful} are counted as doubtful"
    for first in "AB":
        for last in range(10):
            in_order = [n for n in dict.fromkeys(int(id[1:], 16) for id in told if id[0] == first) if n % 10 == last]
            assert in_order == sorted(in_order)

    def verdicts() -> list[str]:
        reports = [json.loads(body) for topic, body in subscriber.messages if topic.startswith("status/")]
        return [report["DevEUI_downlink_Rejected"]["CorrelationID"] for report in reports]

    wanted = {id for id in refused if id[0] == "A"}
    eventually("every refusal was told", lambda: wanted <= set(verdicts()), 30)
    assert set(verdicts()) <= wanted
