"""The law of what comes again: every message becomes one downlink, over links that are lost and crashes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from tests.connection.far_end import message, payloads
from tests.downlinks.downlink_doubles import NOW_S, Disk, body, read_back
from tests.intake.doubles import MemoryStore
from tpxd.downlinks.inbox import Inbox
from tpxd.downlinks.queue import DownlinkQueue
from tpxd.spool import LoadedDownlinks, StoredDownlink
from tpxd.spool.downlinks import downlink_from_row


@dataclass(frozen=True)
class Step:
    """What happens over one link to a broker that keeps a session, in this order.

    Attributes:
        published: payloads of new messages; equal ones are different messages.
        taken, acknowledged: how many messages come over the link, and how many of them are acknowledged.
        crash: the daemon ends before what was taken is on disk; then nothing is acknowledged.
    """

    published: list[int]
    taken: int
    acknowledged: int
    crash: bool


steps = st.lists(
    st.builds(Step, st.lists(st.integers(0, 2), max_size=4), st.integers(0, 6), st.integers(0, 6), st.booleans()),
    max_size=8,
)


class Daemon:
    """The book and its disk, without the tasks around them."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[Any, ...]] = {}
        self.start()

    def start(self) -> None:
        found = [downlink_from_row(row) for _, row in sorted(self.rows.items())]
        loaded = LoadedDownlinks([downlink for downlink in found if downlink is not None], {}, 0)
        self.downlinks = DownlinkQueue(Disk(), MemoryStore().append, loaded, None, lambda: NOW_S)

    def save(self) -> None:
        self.rows = {downlink.id: read_back(downlink.to_row()) for downlink in self.downlinks.book.open}


@given(steps)
def test_every_message_becomes_one_downlink_in_its_order(steps: list[Step]) -> None:
    """Whatever is lost in between, as long as the broker gets the acknowledgements that were sent."""
    daemon = Daemon()
    published: list[bytes] = []
    queue: deque[tuple[bytes, bool]] = deque()
    for step in [*steps, Step([], 1_000, 1_000, crash=False)]:
        for payload in step.published:
            published.append(body(payload_hex=f"{payload:02x}", CorrelationID="A1"))
            queue.append((published[-1], False))
        inbox = Inbox("plant", daemon.downlinks, None, wall=lambda: NOW_S)
        taken: list[StoredDownlink] = []
        for index in range(min(step.taken, len(queue))):
            content, before = queue[index]
            downlink = inbox.take(message(content, redelivered=before))
            assert isinstance(downlink, StoredDownlink)
            taken.append(downlink)
            queue[index] = (content, True)
        if step.crash:
            daemon.start()
            continue
        daemon.save()
        for downlink in taken[: step.acknowledged]:
            inbox.acknowledged(downlink)
            queue.popleft()
        daemon.save()
    assert not queue
    expected = [orjson.loads(content)["DevEUI_downlink"]["payload_hex"] for content in published]
    assert payloads(daemon.downlinks) == expected
