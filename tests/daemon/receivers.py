"""Far ends over HTTP that share no code with the daemon, and the oracle that judges what arrived at them."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.daemon.lrc import Key


class Receiver:
    """An HTTP server that answers as it is told and keeps what it answered.

    Attributes:
        status: asked for each request with (path, body); 200 unless set.
        requests: (path, headers in lower case, body, the sender's port), in order of arrival.
    """

    def __init__(self, status: Callable[[str, bytes], int] = lambda path, body: 200, port: int = 0) -> None:
        self.status = status
        self.requests: list[tuple[str, dict[str, str], bytes, int]] = []
        self._open: set[socket.socket] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or -1)  # a head that was cut counts as whole here
                body = self.rfile.read(max(0, length))
                if len(body) != length:
                    self.close_connection = True
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append((self.path, headers, body, self.client_address[1]))
                self.send_response(receiver.status(self.path, body))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def process_request(self, request: Any, client_address: Any) -> None:
                receiver._open.add(request)
                super().process_request(request, client_address)

            def shutdown_request(self, request: Any) -> None:
                receiver._open.discard(request)
                super().shutdown_request(request)

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A sender that was killed is no news."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def keys(self) -> list[Key]:
        """What arrived, in order."""
        return keys_of(body for _, _, body, _ in list(self.requests))

    def close(self) -> None:
        """Stop listening and cut what is open."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class BlackHole:
    """Accepts connections and never answers."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._socket.getsockname()[1]
        self._held: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self._held.append(self._socket.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        """Close the listener and everything that was accepted."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for held in self._held:
            held.close()


def keys_of(bodies: Iterable[bytes]) -> list[Key]:
    """(DevEUI, FCntUp) of delivered reports, in order of arrival."""
    inner = (json.loads(body)["DevEUI_uplink"] for body in bodies)
    return [(fields["DevEUI"], int(fields["FCntUp"])) for fields in inner]


def judge(accepted: Iterable[Key], arrived: list[Key], *, posted: set[Key] | None = None, doubles: int = 0) -> None:
    """The oracle: nothing accepted is lost, nothing is invented, each device in order, few doubles."""
    accepted = set(accepted)
    lost = accepted - set(arrived)
    assert not lost, f"{len(lost)} of {len(accepted)} accepted uplinks never arrived, such as {sorted(lost)[:3]}"
    invented = set(arrived) - (accepted if posted is None else posted)
    assert not invented, f"{len(invented)} arrived that nobody posted, such as {sorted(invented)[:3]}"
    twice = len(arrived) - len(set(arrived))
    assert twice <= doubles, f"{twice} doubles, {doubles} allowed"
    newest: dict[str, int] = {}
    for device, counter in dict.fromkeys(arrived):
        assert counter > newest.get(device, -1), f"{device}: {counter} arrived after {newest[device]}"
        newest[device] = counter
