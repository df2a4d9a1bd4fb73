"""What an operator fears, done to the whole daemon: kills, hangs, restarts, wrong addresses, full spools."""

from __future__ import annotations

import random
import signal
import statistics
import threading

import pytest

from tests.daemon.conftest import Broker, MakeDaemon, Subscriber
from tests.daemon.harness import eventually, http_file, mqtt_file
from tests.daemon.lrc import DEVICES, SECURE, Load, Lrc, uplink
from tests.daemon.receivers import BlackHole, Receiver, judge
from tests.peers.ports import free_port

pytestmark = pytest.mark.broker

IN_FLIGHT = 256


def post_all(lrc: Lrc, rounds: int, *, first: int = 1) -> None:
    """Post `rounds` uplinks of each device, each of which has to be accepted."""
    for counter in range(first, first + rounds):
        for device in DEVICES:
            assert lrc.post(uplink(device, counter)) == 200


def test_kill_9_under_load_loses_and_invents_nothing(
    make_daemon: MakeDaemon, broker: Broker, subscriber: Subscriber, receiver: Receiver
) -> None:
    kills = 12
    daemon = make_daemon("", plant=mqtt_file(broker.port), cloud=http_file(receiver.url)).start()
    daemon.opened("plant", "cloud")
    load, chance, pause = Load(daemon.intake), random.Random(11), threading.Event()
    for _ in range(kills):
        pause.wait(chance.uniform(0.05, 0.8))
        daemon.end(signal.SIGKILL)
        daemon.start()
    load.stop()
    daemon.drained("plant", "cloud")
    eventually("the subscriber has all", lambda: set(load.accepted) <= set(subscriber.keys()))
    judge(load.accepted, subscriber.keys(), posted=load.posted, doubles=kills * IN_FLIGHT)
    judge(load.accepted, receiver.keys(), posted=load.posted, doubles=kills * IN_FLIGHT)
    assert len(load.accepted) > 500, "there was hardly any load"


def test_a_connection_that_hangs_is_noticed_by_nobody_else(
    make_daemon: MakeDaemon, broker: Broker, subscriber: Subscriber, hole: BlackHole
) -> None:
    stuck = f"http://127.0.0.1:{hole.port}/"
    daemon = make_daemon("", plant=mqtt_file(broker.port), stuck=http_file(stuck), deaf=mqtt_file(hole.port)).start()
    daemon.opened("plant")
    lrc = Lrc(daemon.intake)
    post_all(lrc, 40)
    eventually("the healthy one has all", lambda: len(subscriber.messages) == len(lrc.accepted))
    judge(lrc.accepted, subscriber.keys())
    assert daemon.uplinks("stuck")["waiting"] == len(lrc.accepted)
    assert statistics.median(lrc.seconds) < 0.05
    assert daemon.get("/health")[0] == 503
    eventually("the mute broker is named", lambda: daemon.health("deaf")["lastError"], 20)
    assert daemon.end() == 0, "two hanging peers kept it from stopping"


def test_ten_thousand_wait_for_a_wrong_url_and_follow_its_correction(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = make_daemon("", cloud=http_file(f"http://127.0.0.1:{free_port()}/")).start()
    lrc = Lrc(daemon.intake)
    post_all(lrc, 500)
    assert daemon.uplinks("cloud")["waiting"] == 10_000
    daemon.write("cloud", http_file(receiver.url))
    eventually("all arrive", lambda: len(receiver.requests) >= 10_000, 90)
    daemon.drained("cloud")
    judge(lrc.accepted, receiver.keys())
    assert daemon.uplinks("cloud")["delivered"] == 10_000


def test_a_broker_restarted_ten_times_in_traffic_loses_nothing(
    make_daemon: MakeDaemon, broker: Broker, subscriber: Subscriber
) -> None:
    daemon = make_daemon("", plant=mqtt_file(broker.port)).start()
    daemon.opened("plant")
    load, pause = Load(daemon.intake, threads=2), threading.Event()
    for _ in range(10):
        pause.wait(0.3)
        broker.stop()
        eventually("the loss is seen", lambda: daemon.health("plant")["state"] != "OPENED")
        broker.start()
        daemon.reconnect("plant")
        daemon.opened("plant", within_s=40)
    load.stop()
    daemon.drained("plant")
    eventually("the subscriber has all", lambda: set(load.accepted) <= set(subscriber.keys()), 30)
    judge(load.accepted, subscriber.keys(), posted=load.posted, doubles=10 * IN_FLIGHT)


def test_a_spool_that_a_dead_destination_filled_hurts_only_that_one(
    make_daemon: MakeDaemon, broker: Broker, subscriber: Subscriber
) -> None:
    dead = http_file(f"http://127.0.0.1:{free_port()}/")
    settings = '[spool]\nmax_size = "2 MiB"\nmin_free = "1 MiB"\n'
    daemon = make_daemon(settings, plant=mqtt_file(broker.port), dead=dead).start()
    daemon.opened("plant")
    lrc = Lrc(daemon.intake)
    post_all(lrc, 300)
    eventually("the healthy one has all", lambda: len(subscriber.messages) == len(lrc.accepted) == 6000)
    judge(lrc.accepted, subscriber.keys())
    assert daemon.uplinks("plant")["dropped"] == 0
    dropped = eventually("the laggard's oldest are dropped", lambda: daemon.uplinks("dead")["dropped"])
    assert 1000 < dropped < 6000
    daemon.balanced("dead")
    told = [e for e in daemon.get("/events")[1] if e["kind"] == "dropped" and e["connection"] == "dead"]
    assert len(told) == 1, f"told once an hour, not {len(told)} times"
    kept = 6000 - daemon.uplinks("dead")["dropped"]
    alive = Receiver()
    try:
        daemon.write("dead", http_file(alive.url))
        daemon.drained("dead")
        assert set(alive.keys()) == set(lrc.accepted[-kept:])
    finally:
        alive.close()


def test_a_full_disk_is_an_answer_and_not_a_crash(
    make_daemon: MakeDaemon, broker: Broker, subscriber: Subscriber
) -> None:
    daemon = make_daemon("", plant=mqtt_file(broker.port)).start(max_file_bytes=1 << 20)
    daemon.opened("plant")
    lrc = Lrc(daemon.intake)
    statuses = [lrc.post(uplink(DEVICES[n % 20], 1 + n // 20, filler="x" * 4000)) for n in range(600)]
    assert 503 in statuses
    assert set(statuses) <= {200, 503}
    assert daemon.get("/health")[0] == 503
    assert daemon.get("/health/live")[0] == 200
    daemon.end()
    lrc.close()
    daemon.start()
    daemon.drained("plant")
    eventually("what was accepted arrived", lambda: set(lrc.accepted) <= set(subscriber.keys()))
    assert lrc.post(uplink(DEVICES[0], 9999)) == 200, "with room again it takes uplinks again"


def test_signed_uplinks_only(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon(SECURE, cloud=http_file(receiver.url)).start()
    assert Lrc(daemon.intake).post(uplink(DEVICES[0], 1)) == 401
    assert Lrc(daemon.intake, "0" * 32).post(uplink(DEVICES[0], 1)) == 401
    assert Lrc(daemon.intake, "7d1e9a40c3b85f2206e4d7913ab6f85c").post(uplink(DEVICES[0], 2)) == 200
    eventually("the signed one arrives", lambda: receiver.keys() == [(DEVICES[0], 2)])
