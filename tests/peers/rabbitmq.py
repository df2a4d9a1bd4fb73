"""A real RabbitMQ on free loopback ports, for tests marked `broker`: one for a whole run, as it takes 10 s to start."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.peers import pki
from tests.peers.ports import free_port

# the wrapper in /usr/sbin leaves its broker behind when it is ended
PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmq-server"
START_S = 90.0
STOP_S = 30.0

USER, PASSWORD = "tpx", "right"
READER = "reader"
"""May log in, and neither make nor publish anything."""
PICKY = "picky"
"""May publish to topics that begin with `plant.` only."""
PICKY_EXCHANGE = "amq.topic"


def _hash(password: str) -> str:
    """As RabbitMQ keeps it: a salt of four bytes, then SHA-256 of salt and password."""
    salt = b"salt"
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _definitions() -> str:
    rights = {USER: (".*", ".*", ".*"), READER: ("^$", "^$", ".*"), PICKY: (".*", ".*", ".*")}
    algorithm = "rabbit_password_hashing_sha256"
    return json.dumps(
        {
            "vhosts": [{"name": "/"}, {"name": "plant"}],
            "users": [
                {"name": name, "password_hash": _hash(PASSWORD), "hashing_algorithm": algorithm, "tags": []}
                for name in rights
            ],
            "permissions": [
                {"user": name, "vhost": vhost, "configure": configure, "write": write, "read": read}
                for name, (configure, write, read) in rights.items()
                for vhost in ("/", *(["plant"] if name == USER else []))
            ],
            "topic_permissions": [
                {"user": PICKY, "vhost": "/", "exchange": PICKY_EXCHANGE, "write": r"^plant\.", "read": ".*"}
            ],
        }
    )


@dataclass(slots=True)
class Rabbit:
    """One broker; it may be killed and started again, ports and contents stay.

    Attributes:
        port: of the plain listener.
        tls_port: of the listener that demands a certificate of `pki.ca`.
    """

    directory: Path
    port: int = field(default_factory=free_port)
    tls_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    _epmd: subprocess.Popen[bytes] | None = None
    _epmd_port: int = field(default_factory=free_port)
    _distribution_port: int = field(default_factory=free_port)

    def prepare(self) -> None:
        """Write its files, and start the name server that each Erlang node needs."""
        certificate, key = pki.server("127.0.0.1").write(self.directory, "server")
        authority, _ = pki.ca().write(self.directory, "ca")
        (self.directory / "definitions.json").write_text(_definitions())
        (self.directory / "enabled_plugins").write_text("[].\n")
        (self.directory / "rabbitmq.conf").write_text(
            "\n".join(
                (
                    f"listeners.tcp.1 = 127.0.0.1:{self.port}",
                    f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}",
                    f"ssl_options.cacertfile = {authority}",
                    f"ssl_options.certfile = {certificate}",
                    f"ssl_options.keyfile = {key}",
                    "ssl_options.verify = verify_peer",
                    "ssl_options.fail_if_no_peer_cert = true",
                    f"load_definitions = {self.directory}/definitions.json",
                    "disk_free_limit.absolute = 1MB",
                    "log.file.level = info",
                )
            )
            + "\n"
        )
        if os.geteuid() == 0:
            for path in (self.directory, *self.directory.iterdir()):
                shutil.chown(path, "rabbitmq", "rabbitmq")
        self._epmd = subprocess.Popen(
            ["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # a node that finds none starts one of its own, and leaves it behind
        deadline = time.monotonic() + START_S
        while not _listens(self._epmd_port):
            assert time.monotonic() < deadline, "epmd does not listen"
            time.sleep(0.02)

    def start(self) -> None:
        """Start it and wait until it listens on both ports."""
        assert self.process is None
        # it must not run as root
        drop = ["setpriv", "--reuid=rabbitmq", "--regid=rabbitmq", "--clear-groups"] if os.geteuid() == 0 else []
        with (self.directory / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(
                [*drop, PROGRAM], env=self._environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        deadline = time.monotonic() + START_S
        for port in (self.port, self.tls_port):
            while not _listens(port):
                told = (self.directory / "output.txt").read_text()[-4_000:]
                assert self.process.poll() is None, told
                assert time.monotonic() < deadline, told
                time.sleep(0.1)

    def _environment(self) -> dict[str, str]:
        directory = str(self.directory)
        return {
            "PATH": os.environ["PATH"],
            "HOME": directory,
            "LANG": "C.UTF-8",
            # what it believes to be systemd's: then the script becomes the broker instead of its parent
            "NOTIFY_SOCKET": f"{directory}/nobody-listens",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": f"tpxd-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_MNESIA_BASE": f"{directory}/mnesia",
            "RABBITMQ_LOG_BASE": f"{directory}/log",
            "RABBITMQ_CONFIG_FILE": f"{directory}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{directory}/no-environment",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{directory}/enabled_plugins",
        }

    def kill(self) -> None:
        """End it at once, as a power cut would, and wait for its end."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it and its name server."""
        self._end(signal.SIGTERM)
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


@contextmanager
def running_rabbit() -> Iterator[Rabbit]:
    """Run a broker while the block lasts."""
    # not pytest's own directory, which the broker's user may not enter
    with tempfile.TemporaryDirectory(prefix="tpxd-rabbit-") as directory:
        rabbit = Rabbit(Path(directory))
        try:
            rabbit.prepare()
            rabbit.start()
            yield rabbit
        finally:
            rabbit.stop()
