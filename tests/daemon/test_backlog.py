"""After an outage: what is new goes at once, what waited gets its share, also after a kill -9 in the middle."""

from __future__ import annotations

import signal
import threading

import pytest

from tests.daemon.conftest import Broker, MakeDaemon, Subscriber
from tests.daemon.harness import Daemon, eventually, mqtt_file
from tests.daemon.lrc import DEVICES, Lrc, uplink
from tests.daemon.receivers import judge

pytestmark = pytest.mark.broker

OLD, NEW = DEVICES[:10], DEVICES[10:]
SHARE, PER_SECOND = 0.2, 20


def arrives_at_once(lrc: Lrc, subscriber: Subscriber, device: str, counter: int) -> None:
    assert lrc.post(uplink(device, counter)) == 200
    eventually("the new uplink is there", lambda: subscriber.keys().count((device, counter)), 3)


def opened_again(daemon: Daemon) -> None:
    assert daemon.request("POST", "/connections/plant/reconnect")[0] == 202
    daemon.opened("plant", within_s=40)


def test_new_uplinks_go_at_once_and_the_backlog_gets_its_share(
    make_daemon: MakeDaemon, broker: Broker, subscriber: Subscriber
) -> None:
    file = mqtt_file(broker.port, uplinkRateLimiter=PER_SECOND, backlogShare=SHARE)
    daemon = make_daemon("", plant=file).start()
    daemon.opened("plant")
    lrc, pause = Lrc(daemon.intake), threading.Event()
    broker.stop()
    eventually("the loss is seen", lambda: daemon.health("plant")["state"] != "OPENED")
    for n in range(500):
        assert lrc.post(uplink(OLD[n % 10], 1 + n // 10)) == 200
    broker.start()
    opened_again(daemon)

    arrives_at_once(lrc, subscriber, NEW[0], 1)
    assert daemon.uplinks("plant")["waiting"] > 400
    begun = len(subscriber.keys())
    for n in range(200):
        assert lrc.post(uplink(NEW[1 + n % 9], 1 + n // 9)) == 200
        pause.wait(1 / (2 * PER_SECOND))
    arrived = subscriber.keys()[begun:]
    of_backlog = sum(device in OLD for device, _ in arrived)
    assert len(arrived) > 3 * PER_SECOND
    assert of_backlog / len(arrived) == pytest.approx(SHARE, abs=0.12)

    daemon.end(signal.SIGKILL)
    lrc.close()
    daemon.start()
    daemon.opened("plant")
    arrives_at_once(lrc, subscriber, NEW[0], 2)
    ledger = daemon.balanced("plant")
    assert ledger["waiting"] > 300
    assert daemon.health("plant")["backlogAlone"] is None

    daemon.write("plant", mqtt_file(broker.port))
    daemon.drained("plant")
    eventually("the subscriber has all", lambda: set(lrc.accepted) <= set(subscriber.keys()))
    judge(lrc.accepted, subscriber.keys(), doubles=2 * PER_SECOND)
    assert daemon.uplinks("plant")["delivered"] == len(lrc.accepted)
