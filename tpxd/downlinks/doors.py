"""How a downlink comes in, whichever door it takes: a topic, a connection's downlinkUrl, or the control plane.

What is no JSON is ignored, as ThingPark does; other JSON is not for the LRC, but for the connections that this one is
chained with; both are counted. A wrong downlink is kept too, as one that is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from tpxd.downlinks.queue import DownlinkQueue
from tpxd.errors import SpoolUnavailable
from tpxd.lorawan.downlinks import MAX_BODY_BYTES, DownlinkError, NotADownlink, NotJson, parse_downlink
from tpxd.spool import NewReport, StoredDownlink

Taken = StoredDownlink | tuple[NewReport, ...]
"""What must be on disk before its sender is told: a downlink, or reports for other connections, perhaps none."""

Messages = Callable[[str, bytes], Iterable[NewReport]]
"""A connection's id and JSON that is no downlink to what other connections get of it; see `Chains.messages`."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where a downlink comes in.

    Attributes:
        connection: whose downlink it is; "" is the control plane.
        default_port: for downlinks without an FPort; None where there is none.
    """

    connection: str
    default_port: int | None


CONTROL: Final = Door("", None)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a sender who waits for it is told.

    Attributes:
        status: in HTTP's words: 202 it is on disk; 400 it is wrong, or nobody wants it; 413 it is longer than any
            downlink; 503 not now.
        error: why not; "" with a 202.
        taken: what is on disk.
    """

    status: int
    error: str = ""
    taken: Taken = ()


def take_in(
    downlinks: DownlinkQueue, door: Door, body: bytes, messages: Messages, now_s: float, mark: str = ""
) -> Taken:
    """Decide about one message and count it; none of it is on disk yet.

    Args:
        now_s: seconds since the epoch.
        mark: its `fingerprint`, where it may come again.

    Raises:
        NotJson: it is ignored.
    """
    try:
        wanted = parse_downlink(body, default_port=door.default_port, now_s=now_s)
    except NotJson:
        downlinks.ignored(door.connection, json=False)
        raise
    except DownlinkError as error:
        return downlinks.enter(door.connection, error, mark)
    if isinstance(wanted, NotADownlink):
        downlinks.ignored(door.connection, json=True)
        return tuple(messages(door.connection, body))
    return downlinks.enter(door.connection, wanted, mark)


async def take_and_answer(
    downlinks: DownlinkQueue, door: Door, body: bytes, messages: Messages, now_s: float
) -> Answer:
    """Take a message in and wait until it is on disk; what the disk refuses is not kept.

    Cancellation: it may be stored although its sender is never told.
    """
    if len(body) > MAX_BODY_BYTES:
        return Answer(413, f"a downlink has at most {MAX_BODY_BYTES} bytes")
    if downlinks.full(door.connection):
        return Answer(503, "too many downlinks wait for the LRC")
    try:
        taken = take_in(downlinks, door, body, messages, now_s)
    except NotJson as error:
        return Answer(400, error.message)
    try:
        if isinstance(taken, StoredDownlink):
            return await _saved(downlinks, taken)
        for report in taken:
            await downlinks.publish(report)
    except SpoolUnavailable as error:
        return Answer(503, error.message)
    if not taken:
        return Answer(400, "the body is JSON but no DevEUI_downlink, and this connection is chained with none")
    return Answer(202, taken=taken)


async def _saved(downlinks: DownlinkQueue, downlink: StoredDownlink) -> Answer:
    wrong = downlink.downlink is None
    if wrong:
        downlink.verdict = None  # the answer tells it
    try:
        await downlinks.saved(downlink)
    except SpoolUnavailable:
        downlinks.withdraw(downlink)
        raise
    return Answer(400, downlink.cause) if wrong else Answer(202, taken=downlink)
