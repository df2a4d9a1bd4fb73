"""Whatever the LRC does and whenever the daemon crashes: order, one end for each downlink, and counters that add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import httpx
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.downlinks.downlink_doubles import Disk, Lrc, engine, queued, refused, right, wall
from tpxd.spool import DownlinkState
from tpxd.spool.downlinks import downlink_from_row

DEVICES = ("70B3D5E75E00A1C4", "70B3D5E75E00A1C5", "70B3D5E75E00A1C6")
ANSWERS: dict[str, Callable[[], httpx.Response | httpx.HTTPError | None]] = {
    "queued": queued,
    "refused": refused,
    "unauthorised": lambda: httpx.Response(403),
    "busy": lambda: httpx.Response(503),
    "lost by a proxy": lambda: httpx.Response(502),
    "silent": lambda: None,
    "away": lambda: httpx.ConnectError("connection refused"),
    "cut": lambda: httpx.ReadError(""),
}


@dataclass(frozen=True)
class Story:
    """What happens.

    Attributes:
        downlinks: the device of each, and its validity in seconds.
        answers: of the LRC, one after the other; afterwards it takes everything.
        crashes_s: the daemon crashes after so many seconds, again and again.
    """

    downlinks: list[tuple[str, int | None]]
    answers: list[str]
    crashes_s: list[float]
    when_in_doubt: str


stories = st.builds(
    Story,
    st.lists(st.tuples(st.sampled_from(DEVICES), st.none() | st.integers(1, 120)), max_size=12),
    st.lists(st.sampled_from(sorted(ANSWERS)), max_size=12),
    st.lists(st.floats(0.1, 30), max_size=3),
    st.sampled_from(["resend", "report"]),
)


async def live(story: Story) -> tuple[Lrc, Disk]:
    """Live through it until everything has come to its end."""
    answers = [ANSWERS[name] for name in reversed(story.answers)]
    lrc = Lrc(lambda asked: answers.pop()() if answers else queued())
    disk = Disk(takes_s=0.01)
    for crash_s in [*story.crashes_s, None]:
        async with engine(disk, lrc, when_in_doubt=story.when_in_doubt) as plant:
            if not disk.rows:
                for n, (device, validity) in enumerate(story.downlinks):
                    wanted = right(wall(), DevEUI=device, payload_hex=f"{n:02x}", ValidityTime=validity)
                    plant.downlinks.enter("plant", wanted)
                await trio.sleep(0.05)
            if crash_s is None:
                await plant.settled()
            else:
                await trio.sleep(crash_s)
                disk = plant.disk.as_now()
                lrc.there = False  # whoever is dead tells nobody anything, however cleanly this test ends it
        lrc.there = True
    return lrc, disk


@settings(max_examples=60, deadline=None)
@given(stories)
def test_it_comes_to_its_end(story: Story) -> None:
    lrc, disk = trio.run(partial(live, story), clock=MockClock(autojump_threshold=0))
    found = [downlink_from_row(row) for _, row in sorted(disk.rows.items())]
    downlinks = [downlink for downlink in found if downlink is not None]
    assert len(downlinks) == len(story.downlinks)
    states = Counter(str(downlink.state) for downlink in downlinks)
    counts = disk.counts["plant"] if downlinks else {}
    assert all(counts[name] == states[name] for name in ("sent", "rejected", "expired") if downlinks)
    assert states["waiting"] == states["sending"] == 0
    unhappy = [downlink.correlation_id for downlink in downlinks if downlink.state is not DownlinkState.SENT]
    assert sorted(verdict["CorrelationID"] for verdict in disk.verdicts()) == sorted(unhappy)
    for device in DEVICES:
        firsts = list(dict.fromkeys(lrc.payloads(device)))
        assert firsts == sorted(firsts), "in the order in which they came"
        assert lrc.payloads(device) == sorted(lrc.payloads(device)), "and none again after a later one"
    told = Counter(asked["CorrelationID"] for asked in lrc.told)
    assert all(told[downlink.correlation_id] for downlink in downlinks if downlink.state is DownlinkState.SENT)
    if story.when_in_doubt == "report":
        assert all(downlink.doubts <= 1 for downlink in downlinks), "what may be with the LRC is not sent again"
