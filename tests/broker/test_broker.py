"""The embedded broker serves an independent client, and its child process comes and goes as told."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import paho.mqtt.client as paho
import pytest
import trio
import trio.testing
from amqtt.session import Session
from paho.mqtt.enums import CallbackAPIVersion

from tests.peers.embedded import broker_process, free_address, port_of
from tpxd.broker import process as broker
from tpxd.broker.keeper import run_broker
from tpxd.events import Event, Tell

TIMEOUT_S = 20


class Client:
    """A paho client with everything it received."""

    def __init__(self, name: str, address: str, *, clean: bool = True) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.arrived = threading.Semaphore(0)
        self.ready = threading.Event()
        self.paho = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=clean)
        self.paho.on_message = self.on_message
        self.paho.on_connect = self.on_connect
        self.paho.connect("127.0.0.1", port_of(address))
        self.paho.loop_start()
        assert self.ready.wait(TIMEOUT_S)

    def on_connect(self, *_: object) -> None:
        self.ready.set()

    def on_message(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        self.received.append((message.topic, bytes(message.payload)))
        self.arrived.release()

    def subscribe(self, topic: str) -> None:
        granted = threading.Event()
        self.paho.on_subscribe = lambda *_: granted.set()
        self.paho.subscribe(topic, qos=1)
        assert granted.wait(TIMEOUT_S)

    def publish(self, topic: str, payload: bytes) -> None:
        info = self.paho.publish(topic, payload, qos=1)
        info.wait_for_publish(TIMEOUT_S)
        assert info.is_published()

    def wait_for(self, count: int) -> list[tuple[str, bytes]]:
        for _ in range(count):
            assert self.arrived.acquire(timeout=TIMEOUT_S)
        return self.received

    def close(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()


def test_messages_reach_subscribers_present_and_absent() -> None:
    address = free_address()
    with broker_process(address) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        absent = Client("absent", address, clean=False)
        absent.subscribe("plant/#")
        absent.close()
        present, publisher = Client("present", address), Client("publisher", address)
        present.subscribe("plant/+/uplink")
        expected = [(f"plant/{n}/uplink", b"%d" % n) for n in range(20)]
        for topic, payload in expected:
            publisher.publish(topic, payload)
        assert present.wait_for(20) == expected
        back = Client("absent", address, clean=False)
        assert sorted(back.wait_for(20)) == sorted(expected)
        for client in (present, publisher, back):
            client.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0


def test_it_ends_with_its_standard_input() -> None:
    with broker_process(free_address()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.stdin.close()
        assert process.wait(TIMEOUT_S) == 0


def test_a_taken_port_is_said_in_the_last_line() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        with broker_process(address) as process:
            assert process.stderr is not None
            assert process.wait(TIMEOUT_S) == 1
            assert process.stderr.read().splitlines()[-1].startswith(f"the broker cannot serve at {address}".encode())


async def test_the_oldest_message_for_an_absent_client_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "MAX_QUEUED", 2)
    session = SimpleNamespace(retained_messages=Session().retained_messages)
    plugin = broker.BoundQueues(SimpleNamespace(config=None, get_session={"absent": session}.get))
    for number in range(4):
        session.retained_messages.put_nowait(number)
        await plugin.on_broker_retained_message(client_id="absent", retained_message=None)
    await plugin.on_broker_retained_message(client_id=None, retained_message=None)
    assert [session.retained_messages.get_nowait() for _ in range(2)] == [2, 3]
    assert session.retained_messages.empty()


def test_a_broker_that_grows_too_much_ends() -> None:
    limits = "broker.MAX_RESIDENT_BYTES = 1 << 20; broker.MEMORY_CHECK_S = 0.05"
    script = f"from tpxd.broker import process as broker; {limits}; broker.main()"
    command = [sys.executable, "-c", script, free_address()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.wait(TIMEOUT_S) == 1
        assert process.stderr.read() == b"the broker holds more than 1 MiB\n"


def test_memory_of_this_process_is_read_from_the_system() -> None:
    assert 1 << 20 < broker.resident_bytes() < 8 << 30


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_broker_that_dies_is_started_again_and_ends_when_cancelled() -> None:
    reported, events = trio.open_memory_channel[Event](10)
    address = free_address()
    with trio.fail_after(TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: run(address, reported.send_nowait, task_status))
            listens = await events.receive()
            assert listens.message == f"embedded MQTT broker listens at {address}"
            os.kill(await child_of_this_process("tpxd.broker.process", address), signal.SIGKILL)
            assert (await events.receive()).message == "embedded MQTT broker ended: exit status -9; next try in 1 s"
            assert (await events.receive()).message == listens.message
            successor = await child_of_this_process("tpxd.broker.process", address)
            assert running(successor)
            nursery.cancel_scope.cancel()
    assert not running(successor)


async def child_of_this_process(*words: str) -> int:
    """The id of the child whose command line ends with these words."""
    listing = await trio.run_process(["ps", "--ppid", str(os.getpid()), "-o", "pid=,args="], capture_stdout=True)
    found = [line.split() for line in listing.stdout.decode().splitlines()]
    (pid,) = [int(parts[0]) for parts in found if parts[-len(words) :] == list(words)]
    return pid


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ([sys.executable, "-c", "raise SystemExit('port taken')"], "port taken"),
        (["/no/such/program"], "it cannot be started: [Errno 2] No such file or directory: '/no/such/program'"),
    ],
)
async def test_a_broker_that_cannot_listen_does_not_hold_up_the_start(
    nursery: trio.Nursery, command: list[str], reason: str
) -> None:
    events: list[Event] = []
    with trio.fail_after(TIMEOUT_S):
        await nursery.start(lambda task_status: run("127.0.0.1:1", events.append, task_status, command))
    assert [e.message for e in events] == [f"embedded MQTT broker ended: {reason}; next try in 1 s"]
    nursery.cancel_scope.cancel()


async def run(
    address: str,
    tell: Tell,
    task_status: trio.TaskStatus[None],
    command: Sequence[str] = (sys.executable, "-m", "tpxd.broker.process"),
) -> None:
    await run_broker(address, tell=tell, command=command, task_status=task_status)


async def test_pauses_double_between_attempts(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    events: list[Event] = []
    ends = iter(["a", "b", "c"])

    async def dying(command: list[str], on_ready: Callable[[], None]) -> str:
        for word in ends:
            return word
        on_ready()
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    monkeypatch.setattr("tpxd.broker.keeper._run_once", dying)
    nursery.start_soon(lambda: run("127.0.0.1:1", events.append, trio.TASK_STATUS_IGNORED))
    await trio.sleep(10)
    assert [e.message.partition("; next try in ")[2] for e in events] == ["1 s", "2 s", "4 s", ""]
    nursery.cancel_scope.cancel()


async def test_a_broker_that_stays_silent_is_waited_for_a_moment_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpxd.broker.keeper.START_S", 0.2)
    monkeypatch.setattr("tpxd.broker.keeper.PATIENCE_S", 0.01)
    reported, events = trio.open_memory_channel[Event](10)
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with trio.fail_after(TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: run("silent", reported.send_nowait, task_status, command))
            with pytest.raises(trio.WouldBlock):
                events.receive_nowait()
            assert (await events.receive()).message.startswith("embedded MQTT broker ended: it did not listen within")
            nursery.cancel_scope.cancel()
