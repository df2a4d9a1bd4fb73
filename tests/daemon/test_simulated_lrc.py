"""Downlinks from mosquitto_pub, aiormq and curl to `tpxd simulate`, which shares no code with the daemon."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import Broker, MakeDaemon, Subscriber
from tests.daemon.downlinking import downlink, tpxd
from tests.daemon.harness import Daemon, connection_file, eventually, http_file, mqtt_file
from tests.daemon.lrc import AS_KEY
from tests.daemon.receivers import Receiver
from tests.peers.ports import free_port
from tests.peers.rabbitmq import PASSWORD, USER, Rabbit
from tpxd.simulate.lrc import DEFAULT_AS_ID

pytestmark = pytest.mark.broker

UUID = "6b1f0c9e-0000-4000-8000-00000000a1c4"
DEVICE, NOT_CONFIRMED = "70B3D5E75E000001", "70B3D5E75E000003"

PUBLISH = """
import asyncio, sys
import aiormq

async def main(url, exchange, key, body):
    connection = await aiormq.connect(url)
    channel = await connection.channel()
    await channel.basic_publish(body.encode(), exchange=exchange, routing_key=key)
    await connection.close()

asyncio.run(main(*sys.argv[1:]))
"""


class SimulatedLrc:
    """`tpxd simulate` as a process that posts one uplink of each of its devices and takes downlinks."""

    def __init__(self, daemon: Daemon, port: int, key_file: Path, answer: str = "ok") -> None:
        line = [sys.executable, "-m", "tpxd", "simulate", "--to", f"http://127.0.0.1:{daemon.intake}/uplink", "--json"]
        line += ["--devices", "4", "--count", "4", "--key-file", str(key_file)]
        line += ["--downlinks", f"127.0.0.1:{port}", "--downlink-answer", answer]
        self._process = subprocess.Popen(line, stdout=subprocess.PIPE)

    def end(self) -> dict[str, Any]:
        """End it; what it counted."""
        self._process.send_signal(signal.SIGINT)
        said, _ = self._process.communicate(timeout=20)
        assert self._process.returncode == 0
        found: dict[str, Any] = json.loads(said)["commands"]
        return found

    def kill(self) -> None:
        """End it in any case."""
        self._process.kill()
        self._process.wait()


@pytest.fixture
def lrc_port() -> int:
    """Where the simulated LRC takes downlinks."""
    return free_port()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """The key of the AS."""
    path = tmp_path / "as-key"
    path.write_text(AS_KEY)
    return path


def settings(port: int) -> str:
    return (
        f'[lrc]\ntunnel_keys = {{ "{DEFAULT_AS_ID}" = "{AS_KEY}" }}\nas_id = "{DEFAULT_AS_ID}"\nas_key = "{AS_KEY}"\n'
        f'downlink_url = "http://127.0.0.1:{port}/thingpark/lrc/rest/downlink"\n'
    )


def downlinks(daemon: Daemon, id: str, **expected: int) -> bool:
    counts = daemon.health(id)["downlinks"]
    return bool(counts | expected == counts)


def test_from_three_doors_and_back(
    make_daemon: MakeDaemon,
    broker: Broker,
    subscriber: Subscriber,
    rabbit: Rabbit,
    lrc_port: int,
    key_file: Path,
    ending: ExitStack,
) -> None:
    exchange = f"downlinks-{lrc_port}"
    statuses = {"downlinkTopicPattern": "d/{DevEUI}", "downlinkStatusTopicPattern": "status/{DevEUI}"}
    amqp = {"hostName": f"127.0.0.1:{rabbit.port}", "protocol": "TCP", "username": USER, "password": PASSWORD}
    amqp |= {"exchangeName": exchange, "uplinkTopicPattern": "u.{DevEUI}", "downlinkTopicPattern": "d.{DevEUI}"}
    web = Receiver()
    ending.callback(web.close)
    files = {
        "plant": mqtt_file(broker.port, **statuses),
        "queue": connection_file("actility-amqp-0.9.1-iot", amqp | {"unroutable": "count"}),
        "web": http_file(web.url, downlinkUuid=UUID),
    }
    daemon = make_daemon(settings(lrc_port), **files).start()
    daemon.opened(*files)
    lrc = SimulatedLrc(daemon, lrc_port, key_file)
    ending.callback(lrc.kill)
    eventually("the simulated uplinks are there", lambda: len(web.requests) == 4)

    pub = ["mosquitto_pub", "-p", str(broker.port), "-q", "1", "-t", f"d/{DEVICE}", "-m"]
    right = downlink("01", DevEUI=DEVICE, CorrelationID="A1", Confirmed="1").decode()
    wrong = downlink("02", DevEUI=NOT_CONFIRMED, CorrelationID="A2", Confirmed="1").decode()
    for message in (right, wrong):
        subprocess.run([*pub, message], check=True)
    url = f"amqp://{USER}:{PASSWORD}@127.0.0.1:{rabbit.port}/"
    body = downlink("03", DevEUI=DEVICE, CorrelationID="B1").decode()
    subprocess.run([sys.executable, "-c", PUBLISH, url, exchange, f"d.{DEVICE}", body], check=True)
    door = f"http://127.0.0.1:{daemon.intake}/iot-flow/downlinkMessages/{UUID}"
    body = downlink("04", DevEUI=DEVICE, CorrelationID="C1").decode()
    subprocess.run(["curl", "-sSf", "--noproxy", "*", "-d", body, door], check=True, capture_output=True)
    done = tpxd(daemon, "downlink", DEVICE, "--hex", "05", "--port", "7", "--wait=sent")
    assert done.returncode == 0, done.stdout + done.stderr

    eventually("plant's are over", lambda: downlinks(daemon, "plant", received=2, sent=1, rejected=1, doubtful=0))
    for id in ("queue", "web"):
        eventually(f"that of {id} is", lambda id=id: downlinks(daemon, id, received=1, sent=1, doubtful=0))  # type: ignore[misc]

    def told() -> list[tuple[str, str, str]]:
        reports = [(topic, json.loads(body)) for topic, body in subscriber.messages if topic.startswith("status/")]
        return [(topic, kind, fields["CorrelationID"]) for topic, report in reports for kind, fields in report.items()]

    wanted = [
        (f"status/{NOT_CONFIRMED}", "DevEUI_downlink_Rejected", "A2"),
        *((f"status/{DEVICE}", "DevEUI_downlink_Sent", id) for id in ("A1", "B1", "C1")),
    ]
    eventually("what became of each is told", lambda: set(wanted) <= set(told()))
    assert sum("Rejected" in kind for _, kind, _ in told()) == 1
    traced = json.loads(tpxd(daemon, "trace", DEVICE, "--json").stdout)
    states = [entry["transmitted"] is not None for entry in traced if entry["type"] == "DevEUI_downlink"]
    assert states == [True] * 4
    counted = lrc.end()
    assert counted | {"received": 5, "accepted": 4, "doubled": 0, "transmitted": 4} == counted
    assert list(counted["refused"]) == ["Confirmed downlinks are not allowed by the connectivity plan"]


@pytest.mark.parametrize(("when_in_doubt", "ended"), [("resend", "sent"), ("report", "rejected")])
def test_an_lrc_that_takes_and_never_answers(
    make_daemon: MakeDaemon, lrc_port: int, key_file: Path, ending: ExitStack, when_in_doubt: str, ended: str
) -> None:
    text = settings(lrc_port) + f'when_in_doubt = "{when_in_doubt}"\n'
    daemon = make_daemon(text).start()
    lrc = SimulatedLrc(daemon, lrc_port, key_file, "drop")
    ending.callback(lrc.kill)
    eventually("the simulated uplinks are there", lambda: daemon.get("/health")[1]["intake"]["accepted"] == 4)
    done = tpxd(daemon, "downlink", DEVICE, "--hex", "01", "--port", "7", "--json")
    number = json.loads(done.stdout)["id"]

    def doubts() -> bool:
        """The doubt is counted; its DevEUI_downlink_Sent ends it, where it was not ended before."""
        document = daemon.get(f"/downlinks/{number}")[1]
        return bool(document["state"] == ended and document["doubts"] >= 1 and document["transmitted"])

    eventually("the doubt is shown", doubts, 30)
    shown = daemon.get(f"/downlinks/{number}")[1]["doubts"]
    counted = lrc.end()
    assert counted["unanswered"] == counted["accepted"]
    assert shown <= counted["accepted"] == counted["doubled"] + 1
