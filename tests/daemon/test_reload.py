"""Files edited while the daemon runs: what changed changes, what did not is not touched, what is wrong is shown."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from tests.daemon.conftest import Broker, MakeDaemon, Subscriber
from tests.daemon.harness import Daemon, eventually, http_file, mqtt_file
from tests.daemon.lrc import DEVICES, Lrc, uplink
from tests.daemon.receivers import Receiver
from tests.hung_files import hung

pytestmark = pytest.mark.broker


def judged(daemon: Daemon, id: str, generation: int) -> dict[str, object]:
    """Wait until a newer version of the file than `generation` was read; what is said of it."""

    def newer() -> dict[str, object]:
        shown: dict[str, object] = daemon.health(id)["file"]
        assert int(str(shown["generation"])) > generation, shown
        return shown

    return eventually(f"a new version of {id} is judged", newer, 5)


def test_what_did_not_change_keeps_its_socket(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon("", steady=http_file(receiver.url)).start()
    daemon.opened("steady")
    lrc = Lrc(daemon.intake)
    lrc.post(uplink(DEVICES[0], 1))
    eventually("the first arrives", lambda: receiver.requests)
    for n in range(20):
        daemon.write(f"new{n}", http_file(receiver.url + f"/new{n}"))
    daemon.opened(*(f"new{n}" for n in range(20)))
    for n in range(20):
        (daemon.connections / f"new{n}.toml").unlink()
    eventually("they are gone", lambda: daemon.get("/health/new7")[0] == 404)
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    (daemon.connections / "steady.toml").touch()
    away = daemon.connections.with_suffix(".away")
    daemon.connections.rename(away)
    shutil.copytree(away, daemon.connections)
    lrc.post(uplink(DEVICES[0], 2))
    ports = eventually(
        "the second arrives",
        lambda: (
            [r[3] for r in receiver.requests if r[0] == "/"][1:] and [r[3] for r in receiver.requests if r[0] == "/"]
        ),
    )
    assert len(set(ports)) == 1, f"it came from the ports {ports}"


def test_a_directory_that_was_replaced_is_still_watched(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon("", old=http_file(receiver.url)).start()
    daemon.opened("old")
    away = daemon.connections.with_suffix(".away")
    daemon.connections.rename(away)
    shutil.copytree(away, daemon.connections)
    daemon.write("new", http_file(receiver.url))
    daemon.opened("new")
    (daemon.connections / "old.toml").unlink()
    eventually("the removed one is gone", lambda: daemon.get("/health/old")[0] == 404)


def test_a_broken_file_keeps_its_last_good_version_across_a_kill(
    make_daemon: MakeDaemon, broker: Broker, subscriber: Subscriber
) -> None:
    daemon = make_daemon("", a=mqtt_file(broker.port, "a/{DevEUI}"), b=mqtt_file(broker.port, "b/{DevEUI}")).start()
    daemon.opened("a", "b")
    seen = daemon.health("a")["file"]["generation"]
    daemon.write("a", mqtt_file(broker.port, "a/{DevEUI}").replace('"TCP"', '"TPC"'))
    shown = judged(daemon, "a", seen)
    assert "configuration.protocol" in str(shown["error"])
    assert 'did you mean "TCP"' in str(shown["error"])
    assert "a.toml:5:" in str(shown["error"])
    assert shown["running"] == seen
    assert daemon.health("a")["state"] == "OPENED"
    assert daemon.get("/health/a")[0] == 503
    assert daemon.get("/health/b")[0] == 200
    daemon.end(signal.SIGKILL)
    daemon.start()
    daemon.opened("a", "b")
    assert daemon.health("a")["file"] == shown
    Lrc(daemon.intake).post(uplink(DEVICES[0], 1))
    eventually("both deliver", lambda: {t.split("/")[0] for t, _ in subscriber.messages} == {"a", "b"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "connectorId"),
        ("this is = = not toml", "a.toml:1:"),
        ('connectorId = "actility-http-iot"\nconnectorId = "actility-http-iot"\n', "a.toml:2:"),
        ('connectorId = "actility-http-iot"\nname = "x"\n[configuration]\ndestinationURL = 7\n', "destinationURL"),
        ('connectorId = "actility-htpp-iot"\nname = "x"\n[configuration]\n', 'did you mean "actility-http-iot"'),
        ('connectorId = "actility-http-iot"\nname = "\xff"\n', "UTF-8"),
        (".".join(["a"] * 300_000) + " = 1", "is larger than 64 KiB"),
        (".".join(["a"] * 30_000) + " = 1", "this key has more than 32 parts"),
        ("".join(f"k{n} = 1\n" for n in range(5_000)), "and 4983 more; mend these first"),
    ],
)
def test_a_file_that_never_was_valid_is_shown_as_invalid(make_daemon: MakeDaemon, text: str, expected: str) -> None:
    daemon = make_daemon().start()
    (daemon.connections / "a.toml").write_bytes(text.encode("latin-1"))
    document = eventually("it is shown", lambda: daemon.health("a"), 5)
    assert document["state"] == "INVALID"
    assert document["healthy"] is False
    assert expected in document["file"]["error"]
    assert daemon.get("/health")[0] == 503


def test_uplinks_wait_for_an_invalid_file_and_follow_its_correction(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = make_daemon("", a=http_file("gopher://nowhere")).start()
    assert daemon.health("a")["state"] == "INVALID"
    Lrc(daemon.intake).post(uplink(DEVICES[0], 1))
    assert daemon.uplinks("a")["waiting"] == 1
    daemon.write("a", http_file(receiver.url))
    eventually("it arrives", lambda: receiver.keys() == [(DEVICES[0], 1)])


def test_a_file_deleted_and_put_back_goes_on_without_a_gap(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    text = http_file(receiver.url)
    daemon = make_daemon("", a=text).start()
    daemon.opened("a")
    lrc = Lrc(daemon.intake)
    lrc.post(uplink(DEVICES[0], 1))
    eventually("the first arrives", lambda: len(receiver.requests) == 1)
    (daemon.connections / "a.toml").unlink()
    eventually("it is gone", lambda: daemon.get("/health/a")[0] == 404)
    lrc.post(uplink(DEVICES[0], 2))
    daemon.write("a", text)
    eventually("what came meanwhile arrives", lambda: receiver.keys() == [(DEVICES[0], 1), (DEVICES[0], 2)])
    eventually("both are counted", lambda: daemon.balanced("a")["delivered"] == 2)


def test_a_file_whose_name_is_no_id_is_told(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon().start()
    (daemon.connections / "My Plant.toml").write_text(http_file(receiver.url))
    for leftover in ("a.toml~", ".a.toml.swp", "4913", ".hidden.toml"):
        (daemon.connections / leftover).write_text("leftover of an editor")
    eventually("it is told", lambda: "My Plant.toml" in str(daemon.get("/health")[1]["reasons"]), 5)
    assert daemon.get("/health")[1]["connections"] == {}


def test_a_pause_holds_uplinks_until_it_ends(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon("", a=http_file(receiver.url)).start()
    daemon.opened("a")
    daemon.write("a", "active = false\n" + http_file(receiver.url))
    eventually("it is paused", lambda: daemon.health("a")["state"] == "DEACTIVATED", 5)
    assert daemon.health("a")["healthy"] is True
    Lrc(daemon.intake).post(uplink(DEVICES[0], 1))
    assert daemon.uplinks("a")["waiting"] == 1
    daemon.write("a", http_file(receiver.url))
    eventually("it arrives", lambda: len(receiver.requests) == 1)


def test_a_file_deleted_while_the_daemon_was_down_is_shown_with_its_queue(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    text = "active = false\n" + http_file(receiver.url)
    daemon = make_daemon("", stays=text, went=text).start()
    Lrc(daemon.intake).post(uplink(DEVICES[0], 1))
    daemon.end()
    (daemon.connections / "went.toml").unlink()
    daemon.start()
    kept = eventually("it is shown", lambda: daemon.get("/health")[1]["keptQueues"], 5)
    assert {id: queue["waiting"] for id, queue in kept.items()} == {"went": 1}
    assert daemon.get("/health/went")[0] == 404
    daemon.write("went", http_file(receiver.url))
    eventually("it goes on", lambda: receiver.keys() == [(DEVICES[0], 1)])
    assert daemon.get("/health")[1]["keptQueues"] == {}


def test_a_name_that_is_not_utf_8_ends_nothing(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon("", steady=http_file(receiver.url)).start()
    daemon.opened("steady")
    (daemon.connections / os.fsdecode(b"\xff.toml")).write_text(http_file(receiver.url))
    eventually("it is told", lambda: "udcff" in str(daemon.get("/health")[1]["reasons"]), 15)
    daemon.write("new", http_file(receiver.url))
    daemon.opened("new", within_s=15)
    assert daemon.health("steady")["state"] == "OPENED"
    assert daemon.end() == 0
    assert "Traceback" not in daemon.log.read_text()


def test_a_file_that_hangs_stops_neither_reloading_nor_the_stop(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    daemon = make_daemon("", steady=http_file(receiver.url)).start()
    daemon.opened("steady")
    daemon.write("hung", http_file(receiver.url))
    daemon.opened("hung")
    (daemon.connections / "hung.toml").write_text("active = false\n" + http_file(receiver.url))
    with hung(daemon.connections / "hung.toml"):
        daemon.write("new", http_file(receiver.url))
        eventually("it is told", lambda: "cannot be read within 5 s" in str(daemon.health("hung")["file"]["error"]))
        daemon.opened("new", "hung", "steady")
        assert daemon.get("/health/live")[0] == 200
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.end(within_s=5) == 0
