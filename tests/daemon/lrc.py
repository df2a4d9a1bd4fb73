"""An LRC that shares no code with the daemon: it signs and posts uplinks, and remembers which were accepted."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
import time
import urllib.parse
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

Key = tuple[str, int]
"""(DevEUI, FCntUp): what the oracle counts."""


DEVICES = [f"70B3D5E75E1{n:05X}" for n in range(20)]
AS_ID = "TWA_100009421.77.AS"
AS_KEY = "7d1e9a40c3b85f2206e4d7913ab6f85c"
SECURE = f'[lrc]\ntunnel_keys = {{ "{AS_ID}" = "{AS_KEY}" }}\n'


def uplink(dev_eui: str, counter: int, **more: Any) -> dict[str, Any]:
    """An uplink report with the fields that a live LRC sends."""
    fields = {
        "Time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "DevEUI": dev_eui,
        "FPort": 2 + counter % 3,
        "FCntUp": counter,
        "payload_hex": hashlib.sha256(f"{dev_eui}{counter}".encode()).hexdigest()[:24],
        "LrrRSSI": -71.0,
        "LrrSNR": 8.25,
        "Lrrs": {"Lrr": [{"Lrrid": "1000A7F2", "LrrRSSI": -71.0}]},
        "CustomerID": "100009421",
        "CustomerData": {"name": "Pump 4", "tags": ["PlantNorth"]},
        "ModelCfg": "0",
    }
    return {"DevEUI_uplink": fields | more}


def signed_query(fields: Mapping[str, Any], key: str | None = AS_KEY) -> str:
    """The tunnel's query string; the Token is computed here a second time, independently."""
    pairs = [
        ("LrnDevEui", str(fields["DevEUI"])),
        ("LrnFPort", str(fields["FPort"])),
        ("LrnInfos", f"{AS_ID}-1-{fields['FCntUp']}"),
    ]
    if key is not None:
        pairs += [("AS_ID", AS_ID), ("Time", datetime.now(UTC).isoformat(timespec="milliseconds"))]
        elements = "".join(str(fields[k]) for k in ("CustomerID", "DevEUI", "FPort", "FCntUp", "payload_hex"))
        signed = elements + "&".join(f"{name}={value}" for name, value in pairs) + key
        pairs.append(("Token", hashlib.sha256(signed.encode()).hexdigest()))
    return urllib.parse.urlencode(pairs)


class Lrc:
    """One keep-alive connection that posts uplinks and remembers what was accepted, and how long each took.

    Attributes:
        made: all of them, so that a fixture can close what a test leaves open.
    """

    made: ClassVar[list[Lrc]] = []

    def __init__(self, port: int, key: str | None = None) -> None:
        self.made.append(self)
        self.port, self.key = port, key
        self.accepted: list[Key] = []
        self.seconds: list[float] = []
        self._http: http.client.HTTPConnection | None = None

    def post(self, document: dict[str, Any]) -> int:
        """Post one report; the status, or 0 when the connection broke."""
        fields = document["DevEUI_uplink"]
        started = time.monotonic()
        if self._http is None:
            self._http = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            headers = {"Content-Type": "application/json"}
            self._http.request("POST", f"/uplink?{signed_query(fields, self.key)}", json.dumps(document), headers)
            answer = self._http.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            return 0
        self.seconds.append(time.monotonic() - started)
        if answer.status == 200:
            self.accepted.append((fields["DevEUI"], fields["FCntUp"]))
        return answer.status

    def close(self) -> None:
        """End the connection; the next post opens another."""
        if self._http is not None:
            self._http.close()
            self._http = None


class Load:
    """Threads that post uplinks, each for its own devices, each retrying until it is accepted, until `stop`."""

    def __init__(self, port: int, threads: int = 4, key: str | None = None) -> None:
        self.counters = dict.fromkeys(DEVICES, 0)
        self.lrcs = [Lrc(port, key) for _ in range(threads)]
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._drive, args=(lrc, DEVICES[n::threads]), daemon=True)
            for n, lrc in enumerate(self.lrcs)
        ]
        for thread in self._threads:
            thread.start()

    def _drive(self, lrc: Lrc, devices: list[str]) -> None:
        while not self._stop.is_set():
            for device in devices:
                self.counters[device] += 1
                document = uplink(device, self.counters[device])
                while lrc.post(document) != 200 and not self._stop.wait(0.02):
                    pass

    def stop(self) -> None:
        """End the load and wait for its threads."""
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
        for lrc in self.lrcs:
            lrc.close()

    @property
    def accepted(self) -> list[Key]:
        """What got its 200."""
        return [key for lrc in self.lrcs for key in lrc.accepted]

    @property
    def posted(self) -> set[Key]:
        """What was ever posted, accepted or not."""
        return {(device, n) for device, last in self.counters.items() for n in range(1, last + 1)}
