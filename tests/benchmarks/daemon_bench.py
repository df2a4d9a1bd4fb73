"""Measures the whole daemon and prints a table: python -m tests.benchmarks.daemon_bench [ROW…]

The daemon is pinned to one core; the load and a real Mosquitto share the other. Medians of three runs where a run is
short. Rows: throughput, amqp, http, fanout, latency, delivery, backlog, memory, day, files.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import trio
from paho.mqtt.enums import CallbackAPIVersion
from rich.console import Console
from rich.table import Table

from tests.benchmarks import load
from tests.daemon.harness import Daemon, connection_file, eventually, http_file, mqtt_file
from tests.daemon.receivers import BlackHole
from tests.peers.mosquitto import Mosquitto
from tests.peers.ports import free_port
from tests.peers.rabbitmq import PASSWORD, USER, running_rabbit
from tpxd.spool.memories import CAPACITY
from tpxd.wire.http import Request, Response

DAEMON_CORE, LOAD_CORE = 0, 1
Row = tuple[str, str, str]


@contextmanager
def mosquitto(directory: Path) -> Iterator[int]:
    """A broker on the load's core; gives its port."""
    broker = Mosquitto(directory, free_port())
    trio.run(broker.start)
    assert broker.process is not None
    os.sched_setaffinity(broker.process.pid, {LOAD_CORE})
    try:
        yield broker.port
    finally:
        trio.run(broker.stop)


@contextmanager
def running(daemon: Daemon) -> Iterator[Daemon]:
    """A daemon on its own core."""
    daemon.start()
    assert daemon.process is not None
    for task in Path(f"/proc/{daemon.process.pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {DAEMON_CORE})
    try:
        yield daemon
    finally:
        daemon.end(within_s=60)


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory of the disk that holds the temporary directory."""
    directory = Path(tempfile.mkdtemp(prefix="tpxd-bench-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def post(daemon: Daemon, count: int, clients: int, rate: float | None = None, first: int = 1) -> dict[str, float]:
    """Run the load as a process on its own core."""
    argv = [sys.executable, "-m", "tests.benchmarks.load", str(daemon.intake), f"--clients={clients}"]
    argv += [f"--count={count}", f"--first={first}"] + ([f"--rate={rate}"] if rate else [])
    done = subprocess.run(["taskset", "-c", str(LOAD_CORE), *argv], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    assert found["refused"] == 0, found
    return found


def rss_mib(daemon: Daemon) -> float:
    """Resident memory of the daemon."""
    assert daemon.process is not None
    for line in Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def cpu_s(daemon: Daemon) -> float:
    """Processor time that the daemon has used."""
    assert daemon.process is not None
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def throughput() -> Iterator[Row]:
    """POST with Token check, fsync before 200, delivered by MQTT QoS 1; 64 keep-alive clients."""
    count, posted, cpu = 40_000, [], []
    with (
        scratch() as where,
        mosquitto(where) as port,
        running(Daemon(where, load.SETTINGS, plant=mqtt_file(port))) as daemon,
    ):
        daemon.opened("plant")
        for run in range(3):
            before = cpu_s(daemon)
            posted.append(post(daemon, count, 64, first=1 + run * 1000)["per_second"])
            daemon.drained("plant")
            cpu.append((cpu_s(daemon) - before) / count * 1e6)
    yield "accepted, 64 clients", f"{statistics.median(posted):,.0f}/s", "12,000/s"
    yield "processor time per uplink, POST to PUBACK", f"{statistics.median(cpu):.0f} µs", "83 µs"


def rate(daemon: Daemon, id: str, count: int, run: int) -> tuple[float, float]:
    """Post `count` uplinks and wait until all are delivered: uplinks/s from first to last, processor time of each."""
    before, started = cpu_s(daemon), time.perf_counter()
    post(daemon, count, 64, first=1 + run * 1000)
    daemon.drained(id)
    return count / (time.perf_counter() - started), (cpu_s(daemon) - before) / count * 1e6


def amqp() -> Iterator[Row]:
    """The same to RabbitMQ with publisher confirms, and the daemon's share of the work."""
    file = {"protocol": "TCP", "username": USER, "password": PASSWORD, "exchangeName": "bench"}
    with running_rabbit() as rabbit, scratch() as where:
        file |= {"hostName": f"127.0.0.1:{rabbit.port}", "uplinkTopicPattern": "u.{DevEUI}", "unroutable": "count"}
        with running(Daemon(where, load.SETTINGS, q=connection_file("actility-amqp-0.9.1-iot", file))) as daemon:
            daemon.opened("q")
            found = [rate(daemon, "q", 20_000, run) for run in range(3)]
    yield "delivered by AMQP with confirms", f"{statistics.median(r for r, _ in found):,.0f}/s", "8,000/s"
    yield "processor time per uplink, POST to confirm", f"{statistics.median(c for _, c in found):.0f} µs", "125 µs"


async def _answer(request: Request) -> Response:
    await trio.lowlevel.checkpoint()
    return Response(204)


def http() -> Iterator[Row]:
    """The same to an HTTP server that keeps its connections and answers at once."""
    port = free_port()
    code = (
        "import trio; from tests.benchmarks.daemon_bench import _answer; from tpxd.wire.http import serve_http;"
        f" trio.run(serve_http, '127.0.0.1:{port}', _answer)"
    )
    server = subprocess.Popen(["taskset", "-c", str(LOAD_CORE), sys.executable, "-c", code])
    try:
        with scratch() as where:
            file = http_file(f"http://127.0.0.1:{port}/")
            with running(Daemon(where, load.SETTINGS, cloud=file)) as daemon:
                daemon.opened("cloud")
                found = [rate(daemon, "cloud", 20_000, run) for run in range(3)]
    finally:
        server.terminate()
        server.wait()
    yield "delivered by HTTP", f"{statistics.median(r for r, _ in found):,.0f}/s", "3,000/s"
    yield "processor time per uplink, POST to 2xx", f"{statistics.median(c for _, c in found):.0f} µs", "333 µs"


def fanout() -> Iterator[Row]:
    """Processor time per uplink with ten MQTT connections instead of one."""
    found = {}
    with scratch() as where, mosquitto(where) as port:
        for count in (1, 10):
            (where / str(count)).mkdir()
            files = {f"c{n}": mqtt_file(port) for n in range(count)}
            with running(Daemon(where / str(count), load.SETTINGS, **files)) as daemon:
                daemon.opened(*files)
                costs = []
                for run in range(3):
                    before = cpu_s(daemon)
                    post(daemon, 10_000, 64, first=1 + run * 1000)
                    daemon.drained(*files)
                    costs.append((cpu_s(daemon) - before) / 10_000)
                found[count] = statistics.median(costs)
    yield "processor time, ten connections to one", f"{found[10] / found[1]:.1f} times", "4 times"


def latency() -> Iterator[Row]:
    """POST to 200 at 500/s, open loop, alone and beside a connection that hangs."""
    for what, hangs in (("alone", False), ("beside a hanging connection", True)):
        with scratch() as where, mosquitto(where) as port, ExitStack() as stack:
            files = {"plant": mqtt_file(port)}
            if hangs:
                hole = BlackHole()
                stack.callback(hole.close)
                files["stuck"] = http_file(f"http://127.0.0.1:{hole.port}/")
            with running(Daemon(where, load.SETTINGS, **files)) as daemon:
                daemon.opened("plant")
                post(daemon, 1000, 16, 500)
                found = post(daemon, 10_000, 16, 500, first=100)
        yield f"POST to 200 at 500/s, {what}: p50", f"{found['p50_ms']:.1f} ms", "2 ms"
        yield f"POST to 200 at 500/s, {what}: p99", f"{found['p99_ms']:.1f} ms", "8 ms"


def delivery() -> Iterator[Row]:
    """POST to the subscriber at 500/s: both ends in one process, so one clock."""
    arrived: dict[int, float] = {}
    with scratch() as where, mosquitto(where) as port, running(Daemon(where, "", plant=mqtt_file(port))) as daemon:
        daemon.opened("plant")
        client = paho.Client(CallbackAPIVersion.VERSION2)
        subscribed = threading.Event()
        client.on_subscribe = lambda *_: subscribed.set()

        def took(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
            arrived[json.loads(message.payload)["DevEUI_uplink"]["FCntUp"]] = time.perf_counter()

        client.on_message = took
        client.connect("127.0.0.1", port)
        client.subscribe("#", qos=1)
        client.loop_start()
        subscribed.wait()
        at, count, rate = "2026-01-01T00:00:00.000+00:00", 5000, 500
        posted: dict[int, float] = {}

        def one(thread: int) -> None:
            with trio_free_socket(daemon.intake) as exchange:
                for n in range(thread, count, 8):
                    due = started + n / rate
                    time.sleep(max(0.0, due - time.perf_counter()))
                    posted[n + 1] = due
                    exchange(load.request(n % 500, n + 1, at))

        started = time.perf_counter() + 0.2
        threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        eventually("all arrive", lambda: len(arrived) == count)
        client.disconnect()
        client.loop_stop()
    cuts = statistics.quantiles([(arrived[n] - posted[n]) * 1000 for n in posted], n=100)
    yield "POST to the subscriber at 500/s: p50", f"{cuts[49]:.1f} ms", "4 ms"
    yield "POST to the subscriber at 500/s: p99", f"{cuts[98]:.1f} ms", "15 ms"


@contextmanager
def trio_free_socket(port: int) -> Iterator[Callable[[bytes], None]]:
    """A blocking keep-alive connection; the function posts one request and reads its answer."""
    import socket

    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def exchange(request: bytes) -> None:
            sock.sendall(request)
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")

        yield exchange


def backlog() -> Iterator[Row]:
    """A million uplinks wait: time to be ready, drain, memory."""
    total, batch = 1_000_000, 50_000
    with scratch() as where:
        dead = mqtt_file(free_port())
        settings = load.SETTINGS + '[spool]\nmax_size = "4 GiB"\n'
        daemon = Daemon(where, settings, plant=dead)
        with running(daemon):
            for n in range(total // batch):
                post(daemon, batch, 64, first=1 + n * 100)
        with mosquitto(where) as port:
            started = time.perf_counter()
            daemon.start()
            ready = time.perf_counter() - started
            before = rss_mib(daemon)
            daemon.write("plant", mqtt_file(port))
            daemon.opened("plant")
            begun, highest = time.perf_counter(), before
            while daemon.uplinks("plant")["waiting"]:
                highest = max(highest, rss_mib(daemon))
                time.sleep(1)
            drained = total / (time.perf_counter() - begun)
            daemon.end(within_s=60)
    yield "start with 1,000,000 waiting", f"{ready:.1f} s", "2 s"
    yield "drain of 1,000,000", f"{drained:,.0f}/s", "10,000/s"
    yield "memory while draining, before and highest", f"{before:.0f}, {highest:.0f} MiB", "flat"


def memory() -> Iterator[Row]:
    """Resident memory, idle."""
    with scratch() as where, mosquitto(where) as port:
        found = {}
        for count in (10, 110):
            (where / str(count)).mkdir()
            daemon = Daemon(where / str(count), "", **{f"c{n}": mqtt_file(port) for n in range(count)})
            with running(daemon):
                daemon.opened(*(f"c{n}" for n in range(count)), within_s=60)
                time.sleep(5)
                found[count] = rss_mib(daemon)
    yield "resident memory, ten connections, idle", f"{found[10]:.0f} MiB", "90 MB"
    yield "each further idle connection", f"{(found[110] - found[10]) / 100 * 1024:.0f} KiB", "150 KB"


def day() -> Iterator[Row]:
    """Resident memory after as many reports as duplicates are remembered of in a day at 500/s, and at all.

    A day remembers those of its last ten minutes. They are posted as fast as it goes, within a longer window, so that
    none is forgotten early; the short retention lets rows go meanwhile, as in a day's second half.
    """
    window, batch = 500 * 600, 50_000
    with scratch() as where, mosquitto(where) as port:
        daemon = Daemon(where, load.SETTINGS + '[spool]\nretention = "1m"\n', plant=mqtt_file(port))
        settings = daemon.config / "tpxd.toml"
        settings.write_text(settings.read_text().replace("[intake]\n", '[intake]\nduplicate_window = "2h"\n'))
        with running(daemon):
            daemon.opened("plant")
            post(daemon, batch, 64)
            daemon.drained("plant")
            found, highest = {batch: rss_mib(daemon)}, 0.0
            for count in range(2 * batch, CAPACITY + 3 * batch, batch):
                post(daemon, batch, 64, first=count)
                highest = max(highest, rss_mib(daemon))
                daemon.drained("plant")
                found[count] = rss_mib(daemon)
                print(count, f"{found[count]:.1f} MiB", file=sys.stderr)
            since = daemon.get("/health")[1]["spool"]["duplicatesKnownSince"]
    print("duplicates are known since", since, file=sys.stderr)
    most = max(size for count, size in found.items() if count > CAPACITY)
    yield "memory after 300,000 reports, ten minutes at 500/s", f"{found[window]:.0f} MiB", "100 MiB"
    yield "after 1,000,000, the most that duplicates are known of", f"{found[CAPACITY]:.0f} MiB", "110 MiB"
    yield "in 100,000 more; highest under load", f"{most:.0f}, {highest:.0f} MiB", "flat"


def files() -> Iterator[Row]:
    """A thousand connection files, then one of them changes."""
    with scratch() as where, mosquitto(where) as port:
        daemon = Daemon(where, "", **{f"c{n}": mqtt_file(port) for n in range(1000)})
        started = time.perf_counter()
        with running(daemon):
            loaded = time.perf_counter() - started
            eventually(
                "all are open",
                lambda: all(c["state"] == "OPENED" for c in daemon.get("/health")[1]["connections"].values()),
                120,
            )
            applied = []
            for n in range(5):
                seen = daemon.health("c7")["file"]["running"]
                began = time.perf_counter()
                daemon.write("c7", mqtt_file(port, f"changed{n}/{{DevEUI}}"))
                eventually("it runs", lambda: daemon.health("c7")["file"]["running"] > seen)  # noqa: B023
                applied.append(time.perf_counter() - began)
    yield "1,000 connection files loaded", f"{loaded:.1f} s", "5 s"
    yield "one changed file of 1,000 applied", f"{statistics.median(applied) * 1000:.0f} ms", "200 ms"


ROWS: dict[str, Callable[[], Iterator[Row]]] = {
    row.__name__: row for row in (throughput, amqp, http, fanout, latency, delivery, backlog, memory, day, files)
}


def main() -> None:
    """See the module."""
    table = Table("figure", "measured", "to reach")
    for name in sys.argv[1:] or ROWS:
        for row in ROWS[name]():
            print(*row, sep="  ", file=sys.stderr)
            table.add_row(*row)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
