"""A server's frames, judged and joined: against wsproto, which puts messages together by itself."""

from __future__ import annotations

import struct
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from tests.wire.websocket_link import frame
from tpxd.wire.websocket_frames import Frames

good = st.one_of(
    st.binary(max_size=300).map(lambda body: frame(0x82, body)),
    st.lists(st.binary(max_size=70), min_size=1, max_size=3).map(
        lambda parts: frame(0x02, b"") + b"".join(frame(0x00, part) for part in parts) + frame(0x80, b"end")
    ),
    st.binary(max_size=125).map(lambda body: frame(0x89, body)),
    st.binary(max_size=125).map(lambda body: frame(0x8A, body)),
)


def cut(wire: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(place, len(wire)) for place in cuts), len(wire)]
    return [wire[begin:end] for begin, end in pairwise(places)]


def understood(wire: bytes) -> tuple[bytes, list[bytes], bool, bool]:
    """Data, pings, whether a Close came, and whether wsproto refused something, by wsproto's own parser."""
    protocol, data, pings = FrameProtocol(client=True, extensions=[]), b"", []
    protocol.receive_bytes(wire)
    try:
        for part in protocol.received_frames():
            if part.opcode is Opcode.BINARY:
                data += bytes(part.payload)  # type: ignore[arg-type] # the payload of this opcode
            elif part.opcode is Opcode.PING:
                pings.append(bytes(part.payload))  # type: ignore[arg-type]
            elif part.opcode is Opcode.CLOSE:
                return data, pings, True, False
            elif part.opcode is Opcode.TEXT:
                return data, pings, False, True
    except ParseFailed:
        return data, pings, False, True
    return data, pings, False, False


@given(st.lists(good, max_size=8), st.lists(st.integers(0, 2_000), max_size=8), st.booleans())
def test_all_data_comes_through_however_it_is_cut(frames: list[bytes], cuts: list[int], says_goodbye: bool) -> None:
    wire = b"".join(frames) + (frame(0x88, struct.pack(">H", 1000)) if says_goodbye else b"")
    judge = Frames()
    passed = b"".join(judge.hand_on(part, 0.0) for part in cut(wire, cuts))
    assert judge.fault is None
    data, pings, closed, _ = understood(wire)
    seen, answered, ended, refused = understood(passed)
    assert (seen, ended, refused) == (data, closed, False)
    assert answered[-1:] == pings[-1:]


@given(st.lists(st.one_of(good, st.binary(max_size=20)), max_size=6), st.lists(st.integers(0, 1_000), max_size=6))
def test_what_wsproto_refuses_is_refused_and_what_is_handed_on_is_understood(
    parts: list[bytes], cuts: list[int]
) -> None:
    wire, judge = b"".join(parts), Frames()
    passed = b"".join(judge.hand_on(part, 0.0) for part in cut(wire, cuts))
    _, _, closed, refused = understood(wire)
    if refused:
        assert judge.fault is not None or closed
    assert not understood(passed)[3] or judge.closing
