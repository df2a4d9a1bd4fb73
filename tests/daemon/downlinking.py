"""Applications that send downlinks through the daemon's doors, and what of them reached the LRC."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.daemon.harness import Daemon
from tests.daemon.lrc import DEVICES
from tests.daemon.receivers import Receiver

DEVICE = DEVICES[0]


def downlink(payload: str, **more: object) -> bytes:
    fields = {"DevEUI": DEVICE, "FPort": 5, "payload_hex": payload, "ValidityTime": "60", **more}
    return json.dumps({"DevEUI_downlink": fields}).encode()


def lrc_settings(lrc: Receiver) -> str:
    return f'[lrc]\ndownlink_url = "{lrc.url}/thingpark/lrc/rest/downlink"\n'


def payloads(lrc: Receiver) -> list[str]:
    """What the LRC was told, in order."""
    return [parse_qs(urlsplit(path).query)["Payload"][0] for path, *_ in list(lrc.requests)]


@contextmanager
def client(port: int, name: str, *, clean: bool = True) -> Iterator[tuple[paho.Client, bool]]:
    """A client that shares no code with tpxd, and whether the broker had a session of that name."""
    connected = threading.Event()
    present: list[bool] = []
    made = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=clean)

    def on_connect(_client: paho.Client, _data: Any, flags: Any, *_: Any) -> None:
        present.append(flags.session_present)
        connected.set()

    made.on_connect = on_connect
    made.connect("127.0.0.1", port)
    made.loop_start()
    try:
        assert connected.wait(10)
        yield made, present[0]
    finally:
        made.disconnect()
        made.loop_stop()


def publish(port: int, topic: str, body: bytes) -> None:
    with client(port, "application") as (application, _):
        application.publish(topic, body, qos=1).wait_for_publish(10)


def tpxd(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tpxd", *arguments, "--config", str(daemon.config)]
    return subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
