"""Looks at a write-ahead log before SQLite does. Pure.

Theory of operation: SQLite reads the log up to the first frame whose checksum does not hold, keeps what was committed
before it, and takes the rest for what an older generation left behind. After a kill or a power cut that is right, and
nothing else is ever used. When a byte in the middle has changed it is not: commits that were acknowledged would vanish
without a word. So the frames behind the break are asked whether they prove that.

A frame is of this log when both of its salts are the header's. Its checksum goes on from the one before it, which is
stored in the frame before, so that each frame can be judged by itself.

A transaction is written only after the one before it was synced, and after one that failed, or a kill, the log is cut
before the next. So at most one transaction can have been under way, and it is the last. The frame that ends a
transaction bears a mark. Where a frame of this log stands behind such a mark, the marked transaction had been
committed; if it lies behind the break, that is damage. Where none does, the broken transaction is the last: torn or
damaged, nobody can tell, and it never happened.

Where the header does not hold, it was torn when the log began anew, or a byte of it has changed. The first frame tells
which frames count then: as long as no other was written in its place it is of the newest generation, and older ones
may lie behind it. Where it does not hold either, the header's salts do, unless nothing of the header can be believed.

Of transactions behind a break count those that are proven so, and a last one that is whole.

Source: the SQLite file format, section 4, "The Write-Ahead Log".
"""

from __future__ import annotations

import struct
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tpxd.spool.damage.old_file import Content

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
MAGIC_LITTLE_ENDIAN = 0x377F0682
MAGIC_BIG_ENDIAN = 0x377F0683
VERSION = 3_007_000
SECTOR = 512
"""What a disk writes at once, at least."""

WITNESSES = 8
"""Frames that are asked for the salts when the header is broken."""

Checksum = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Frame:
    """One page in the log.

    Attributes:
        number: from 1.
        pages: it is the last of a transaction, after which the database has so many pages; else 0.
    """

    number: int
    page: int
    pages: int
    content: bytes


@dataclass(frozen=True, slots=True)
class WalCheck:
    """What a log holds.

    Attributes:
        frames: those of committed transactions, oldest first; of damaged ones, what is whole.
        kept: the number of the last one that SQLite itself keeps.
        problem: one line for people; None when SQLite keeps everything that is known to have been committed.
    """

    page_size: int
    frames: Sequence[Frame] = ()
    kept: int = 0
    problem: str | None = None

    def adds_to(self, database: Content) -> bool:
        """Whether anything here is not in the database yet: only then a log that SQLite does not see is a loss."""
        size = self.page_size
        pages = self.frames[-1].pages if self.frames else 0
        newest = {frame.page: frame.content for frame in self.frames if frame.page <= pages or not pages}
        return any(database[(page - 1) * size : page * size] != content for page, content in newest.items())


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
    seeds = (tuple_of(stored), computed)
    salts = (salt1, salt2)
    if raw and not sound:
        (first,) = _judge(raw[:1], _salts(raw[0]), seeds, little=little)
        if first.intact:
            salts = _salts(raw[0])
        elif magic not in (MAGIC_LITTLE_ENDIAN, MAGIC_BIG_ENDIAN):
            salts = _likely_salts(salts, raw)
    return _summary(_judge(raw, salts, seeds, little=little), page_size, sound=sound)


@dataclass(frozen=True, slots=True)
class _Judged:
    frame: Frame
    intact: bool
    ends: bool
    """It bears the mark of a last frame, and can be believed in that."""


def _judge(raw: Sequence[bytes], salts: Checksum, seeds: tuple[Checksum, Checksum], *, little: bool) -> list[_Judged]:
    judged = []
    intact = True
    for number, frame in enumerate(raw, 1):
        page, pages, salt1, salt2, *stored = struct.unpack(">6I", frame[:FRAME_HEADER_BYTES])
        matching = (salt1 == salts[0]) + (salt2 == salts[1])
        before, intact = intact, False
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
        # In a sector that was not written any more there may be the mark of an older frame: then the frame before,
        # which ends there, is torn too, unless it looked the same; or the mark and the salts lie in two sectors.
        at = HEADER_BYTES + (number - 1) * len(frame)
        apart = (at + 8) % SECTOR == 0
        ends = pages > 0 and matching > 0 and (intact or (before and not apart))
        judged.append(_Judged(Frame(number, page, pages, frame[FRAME_HEADER_BYTES:]), intact, ends))
    return judged


def _summary(judged: list[_Judged], page_size: int, *, sound: bool) -> WalCheck:
    kept = through = 0
    whole = sound
    for one in judged:
        whole = whole and one.intact
        if whole and one.ends:
            kept = one.frame.number
    newest = max((one.frame.number for one in judged if one.intact), default=0)
    unbroken = True
    for one in judged:
        unbroken = unbroken and one.intact
        if one.ends:
            if unbroken or one.frame.number < newest:
                through = one.frame.number
            unbroken = True
    frames = [one.frame for one in judged if one.intact and one.frame.number <= through]
    problem = None
    if not sound and frames:
        problem = "the header of the write-ahead log is damaged"
    elif through > kept:
        broken = [one.frame.number for one in judged[kept:through] if not one.intact]
        problem = f"the write-ahead log is damaged at frame {broken[0]}; {len(broken)} frames are lost"
    return WalCheck(page_size, frames, kept, problem)


def _likely_salts(header: Checksum, raw: Sequence[bytes]) -> Checksum:
    """The salts that the header and the first frames agree about most, each by itself."""
    pairs = [header, *[_salts(frame) for frame in raw[:WITNESSES]]]
    first = Counter(pair[0] for pair in pairs).most_common(1)[0][0]
    second = Counter(pair[1] for pair in pairs).most_common(1)[0][0]
    return first, second


def _salts(frame: bytes) -> Checksum:
    first, second = struct.unpack(">2I", frame[8:16])
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
