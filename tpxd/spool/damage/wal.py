"""Looks at a write-ahead log before SQLite does. Pure.

Theory of operation: SQLite reads the log up to the first frame whose checksum does not hold and takes the rest for what
an older generation left behind. After a crash that is right. When a bit in the middle has changed it is not: commits
that were acknowledged vanish without a word, and older frames come to lie over newer pages. So the frames are walked
here first. A frame belongs to the log when both of its salts are the header's. Its checksum goes on from the one before
it, which is stored in the frame before, so that each frame can be judged by itself and those after a bad one are found
to be good.

What belongs to no commit, at the end, is what a crash leaves behind and no damage. A last commit that does not hold may
be torn or damaged; nobody can tell, so it is reported.

Source: the SQLite file format, section 4, "The Write-Ahead Log".
"""

from __future__ import annotations

import struct
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
MAGIC_LITTLE_ENDIAN = 0x377F0682
MAGIC_BIG_ENDIAN = 0x377F0683
VERSION = 3_007_000
WITNESSES = 8
"""Frames that are asked for the salts when the header is broken."""

Checksum = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Frame:
    """One page in the log.

    Attributes:
        number: from 1.
        commits: it is the last of a commit.
    """

    number: int
    page: int
    commits: bool
    content: bytes


@dataclass(frozen=True, slots=True)
class WalCheck:
    """What a log holds.

    Attributes:
        frames: everything that can be trusted, oldest first.
        damaged: the numbers of the frames that cannot.
        problem: one line for people; None when nothing is wrong.
    """

    page_size: int
    frames: Sequence[Frame] = ()
    damaged: Sequence[int] = ()
    problem: str | None = None


def check_wal(content: bytes, page_size: int) -> WalCheck:
    """Judge every frame of a log; `page_size` is used where the header cannot be read."""
    if len(content) < HEADER_BYTES + FRAME_HEADER_BYTES:
        return WalCheck(page_size)
    magic, version, size, _, salt1, salt2, *stored = struct.unpack(">8I", content[:HEADER_BYTES])
    little = magic != MAGIC_BIG_ENDIAN if magic in (MAGIC_LITTLE_ENDIAN, MAGIC_BIG_ENDIAN) else _native_is_little()
    computed = checksum(content[: HEADER_BYTES - 8], (0, 0), little=little)
    sound = magic in (MAGIC_LITTLE_ENDIAN, MAGIC_BIG_ENDIAN) and version == VERSION and computed == tuple(stored)
    if sound:
        page_size = size
    step = FRAME_HEADER_BYTES + page_size
    raw = [content[at : at + step] for at in range(HEADER_BYTES, len(content) - step + 1, step)]
    salts = (salt1, salt2) if sound else _likely_salts((salt1, salt2), raw)
    judged = _judge(raw, salts, (tuple_of(stored), computed), little=little)
    return _summary(judged, page_size, sound=sound)


@dataclass(frozen=True, slots=True)
class _Judged:
    frame: Frame
    intact: bool
    ours: bool
    """At least one of the salts is right."""


def _judge(raw: Sequence[bytes], salts: Checksum, seeds: tuple[Checksum, Checksum], *, little: bool) -> list[_Judged]:
    judged = []
    for number, frame in enumerate(raw, 1):
        page, pages, salt1, salt2, *stored = struct.unpack(">6I", frame[:FRAME_HEADER_BYTES])
        matching = (salt1 == salts[0]) + (salt2 == salts[1])
        intact = False
        found = computed = tuple_of(stored)
        if matching:
            covered = frame[:8] + frame[FRAME_HEADER_BYTES:]
            # The frame before may be damaged just where it stores its checksum: then the computed one goes on.
            for seed in dict.fromkeys(seeds):
                computed = checksum(covered, seed, little=little)
                if computed == found:
                    break
            intact = matching == 2 and computed == found
        seeds = (found, computed)
        content = frame[FRAME_HEADER_BYTES:]
        judged.append(_Judged(Frame(number, page, pages > 0, content), intact, matching > 0))
    return judged


def _summary(judged: list[_Judged], page_size: int, *, sound: bool) -> WalCheck:
    last_commit = max((one.frame.number for one in judged if one.intact and one.frame.commits), default=0)
    # What a damaged last commit held may well be whole. It was perhaps not acknowledged; then it comes twice, no worse.
    frames = [one.frame for one in judged if one.intact]
    damaged = [one.frame.number for one in judged if not one.intact and one.frame.number <= last_commit]
    damaged += [
        one.frame.number
        for one in judged
        if one.ours and not one.intact and one.frame.commits and one.frame.number > last_commit
    ]
    problem = None
    if damaged:
        problem = f"the write-ahead log is damaged at frame {damaged[0]}; {len(damaged)} frames are lost"
    elif not sound and judged:
        problem = "the header of the write-ahead log is damaged"
    return WalCheck(page_size, frames, damaged, problem)


def _likely_salts(header: Checksum, raw: Sequence[bytes]) -> Checksum:
    """The salts that the header and the first frames agree about most, each by itself."""
    pairs = [header, *[struct.unpack(">2I", frame[8:16]) for frame in raw[:WITNESSES]]]
    first = Counter(pair[0] for pair in pairs).most_common(1)[0][0]
    second = Counter(pair[1] for pair in pairs).most_common(1)[0][0]
    return first, second


def checksum(content: bytes, seed: Checksum, *, little: bool) -> Checksum:
    """SQLite's checksum of a multiple of eight bytes, going on from another."""
    words = iter(struct.unpack(f"{'<' if little else '>'}{len(content) // 4}I", content))
    first, second = seed
    for even, odd in zip(words, words, strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


def tuple_of(stored: list[int]) -> Checksum:
    """The two words of a stored checksum."""
    return stored[0], stored[1]


def _native_is_little() -> bool:
    return sys.byteorder == "little"
