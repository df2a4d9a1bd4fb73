"""A server's WebSocket frames on their way to who understands them: judged, counted, and the data of a read in one.

Pure. What a far end can make us gather or do is decided here: of a message as long as it likes, what came so far is
ended and handed on, since borders of messages mean nothing (MQTT 3.1.1, 6). Of pings that came together the newest is
answered (RFC 6455, 5.5.3), so only that one is handed on; pongs are not, since nobody asked.

Source: RFC 6455, 5.2 to 5.5.
"""

from __future__ import annotations

from typing import Final

from tpxd.errors import RemoteViolation
from tpxd.wire.flood import Allowance

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MOST_IN_CONTROL: Final = 125
_KNOWN: Final = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
_NOTHING: Final = {
    PING: "WebSocket pings",
    PONG: "WebSocket pongs",
    BINARY: "empty WebSocket frames",
    CONTINUATION: "empty WebSocket frames",
}


class Frames:
    """What comes over one link.

    Attributes:
        fault: how the server broke the protocol; nothing more is handed on then.
        closing: one side has said its last word; nothing but the server's Close is handed on then.
    """

    def __init__(self) -> None:
        self.fault: RemoteViolation | None = None
        self.closing = False
        self._unread = bytearray()
        # how much of the payload of a data frame is still to come, and whether its message goes on after it
        self._missing = 0
        self._in_message = False
        self._allowance = Allowance()

    def hand_on(self, data: bytes | bytearray, now: float) -> bytes:
        """Take what came, cut anywhere, and return whole frames: one of all data, the newest ping, Close."""
        if self.fault is not None:
            return b""
        payload = bytearray()
        control: dict[int, bytes] = {}
        at = 0
        self._unread += data
        try:
            while at < len(self._unread) and CLOSE not in control:
                if self._missing:
                    piece = self._unread[at : at + self._missing]
                    payload += piece
                    at += len(piece)
                    self._missing -= len(piece)
                    continue
                head = self._head(at)
                if head is None:
                    break
                opcode, begin, length = head
                if opcode in (BINARY, CONTINUATION):
                    at, self._missing = begin, length
                elif begin + length > len(self._unread):
                    break
                else:
                    control[opcode] = bytes(self._unread[at : begin + length])
                    at = begin + length
                if opcode in _NOTHING and (opcode in control or not length):
                    self._allowance.spend(now, _NOTHING[opcode])
        except RemoteViolation as error:
            self.fault = error
        del self._unread[:at]
        if self.closing:
            return control.get(CLOSE, b"")
        self.closing = CLOSE in control
        return _message(payload) + control.get(PING, b"") + control.get(CLOSE, b"")

    def _head(self, at: int) -> tuple[int, int, int] | None:
        """Opcode, begin and length of the payload of the frame that begins here; None where its head is not whole.

        Raises:
            RemoteViolation: it is none that a server may send now.
        """
        unread = self._unread
        if at + 2 > len(unread):
            return None
        first, second = unread[at], unread[at + 1]
        opcode, is_last, length, begin = first & 0x0F, bool(first & 0x80), second & 0x7F, at + 2
        if first & 0x70 or second & 0x80 or opcode not in _KNOWN:
            raise RemoteViolation(f"no WebSocket frame: it begins with {first:#04x} {second:#04x}")
        if opcode >= CLOSE and (length > MOST_IN_CONTROL or not is_last or (opcode == CLOSE and length == 1)):
            raise RemoteViolation("no WebSocket frame: a control frame that is too long, too short or in pieces")
        if length > MOST_IN_CONTROL:
            begin += 2 if length == 126 else 8
            if begin > len(unread):
                return None
            shortest = MOST_IN_CONTROL + 1 if length == 126 else 0x10000
            length = int.from_bytes(unread[at + 2 : begin], "big")
            if not shortest <= length < 1 << 63:
                raise RemoteViolation("no WebSocket frame: a length in too many bytes")
        if opcode == TEXT:
            raise RemoteViolation("a WebSocket message of text, where only binary ones are allowed")
        if opcode < CLOSE:
            if self._in_message is not (opcode == CONTINUATION):
                raise RemoteViolation("no WebSocket frame: a piece of no message, or a message within another")
            self._in_message = not is_last
        return opcode, begin, length


def _message(payload: bytearray) -> bytes:
    size = len(payload)
    if not size:
        return b""
    if size <= MOST_IN_CONTROL:
        return b"".join((b"\x82", bytes((size,)), payload))
    if size <= 0xFFFF:
        return b"".join((b"\x82\x7e", size.to_bytes(2, "big"), payload))
    return b"".join((b"\x82\x7f", size.to_bytes(8, "big"), payload))
