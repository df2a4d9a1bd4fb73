"""A fast LRC for benchmarks: signed uplinks made beforehand, posted over keep-alive connections by one epoll loop.

Run as a program so that it has a core of its own:

    python -m tests.benchmarks.load PORT --clients 64 --count 60000            closed loop: as fast as answers come
    python -m tests.benchmarks.load PORT --clients 16 --count 5000 --rate 500  open loop: latencies from the due time

It prints one JSON object: seconds, accepted, refused, and latencies in ms.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import select
import socket
import statistics
import time
import urllib.parse
from datetime import UTC, datetime

AS_ID = "TWA_100009421.77.AS"
AS_KEY = "7d1e9a40c3b85f2206e4d7913ab6f85c"
SETTINGS = f'[lrc]\ntunnel_keys = {{ "{AS_ID}" = "{AS_KEY}" }}\nmax_time_deviation = "30d"\n'


def request(device: int, counter: int, at: str) -> bytes:
    """One signed POST of an uplink of about 900 bytes."""
    dev_eui, payload = f"70B3D5E75E2{device:05X}", f"{device:06x}{counter:08x}0102030405"
    fields = {
        "Time": at, "DevEUI": dev_eui, "FPort": 5, "FCntUp": counter, "ADRbit": 1, "MType": 2, "FCntDn": 3,
        "payload_hex": payload, "mic_hex": "3bcf2927", "Lrcid": "000000D3", "LrrRSSI": -93.0, "LrrSNR": 6.25,
        "SpFact": 8, "SubBand": "G1", "Channel": "LC3", "Lrrid": "1000A7F2", "Late": 0, "LrrLAT": 50.846557,
        "LrrLON": 4.351697, "DevLrrCnt": 2, "CustomerID": "100009421",
        "Lrrs": {"Lrr": [{"Lrrid": f"1000A7F{n}", "Chain": 0, "LrrRSSI": -93.0, "LrrSNR": 6.2} for n in (2, 3)]},
        "CustomerData": {"alr": {"pro": "ACME/THR", "ver": "2"}, "tags": ["ColdChain"], "name": "Fridge 12"},
        "ModelCfg": "0", "InstantPER": 0.0, "MeanPER": 0.0119, "DevAddr": "04A17C3E", "Frequency": 868.5,
        "DynamicClass": "A",
    }  # fmt: skip
    pairs = [
        ("LrnDevEui", dev_eui),
        ("LrnFPort", "5"),
        ("LrnInfos", f"{AS_ID}-1-{counter}"),
        ("AS_ID", AS_ID),
        ("Time", at),
    ]
    signed = f"100009421{dev_eui}5{counter}{payload}" + "&".join(f"{n}={v}" for n, v in pairs) + AS_KEY
    query = urllib.parse.urlencode([*pairs, ("Token", hashlib.sha256(signed.encode()).hexdigest())])
    body = json.dumps({"DevEUI_uplink": fields}).encode()
    head = (
        f"POST /uplink?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: ACTILITY-LRCLRN-DEVICE-AGENT/1.0\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def drive(port: int, requests: list[bytes], clients: int, rate: float | None) -> dict[str, object]:
    """Post everything; `rate` makes it an open loop, whose latencies count from the moment that each was due."""
    epoll, sockets = select.epoll(), {}
    for _ in range(clients):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        sockets[sock.fileno()] = sock
        epoll.register(sock.fileno(), select.EPOLLIN)
    idle, due_of = list(sockets), dict.fromkeys(sockets, 0.0)
    latencies: list[float] = []
    sent = answered = accepted = 0
    started = time.perf_counter()
    while answered < len(requests):
        now = time.perf_counter()
        while idle and sent < len(requests):
            due = started + sent / rate if rate else now
            if due > now:
                break
            descriptor = idle.pop()
            due_of[descriptor] = due
            sockets[descriptor].send(requests[sent])
            sent += 1
        wait = -1.0 if not rate or not idle else max(0.0, started + sent / rate - time.perf_counter())
        for descriptor, _ in epoll.poll(wait):
            answer = sockets[descriptor].recv(65536)
            assert answer, "the daemon closed a connection"
            answered += 1
            accepted += answer.startswith(b"HTTP/1.1 200")
            latencies.append(time.perf_counter() - due_of[descriptor])
            idle.append(descriptor)
    seconds = time.perf_counter() - started
    cuts = statistics.quantiles(latencies, n=1000)
    return {
        "seconds": seconds,
        "accepted": accepted,
        "refused": answered - accepted,
        "per_second": accepted / seconds,
        "p50_ms": cuts[499] * 1000,
        "p99_ms": cuts[989] * 1000,
        "max_ms": max(latencies) * 1000,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--first", type=int, default=1, help="the first frame counter")
    wanted = parser.parse_args()
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    requests = [request(n % wanted.devices, wanted.first + n // wanted.devices, at) for n in range(wanted.count)]
    print(json.dumps(drive(wanted.port, requests, wanted.clients, wanted.rate)))


if __name__ == "__main__":
    main()
