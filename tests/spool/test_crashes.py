"""Nothing that was acknowledged is lost, whenever the process ends."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.spool.journals import drain, store
from tpxd.events import Event
from tpxd.spool import Fate, Ledger, Rejected, Settled, SpoolLimits, ledger
from tpxd.spool.database import sidecars
from tpxd.spool.keeping import Keeping
from tpxd.spool.starting import start_journal

PAGE = 1_024
NOW_S = 1_795_000_000.0
IDS = st.sampled_from(["a", "b", "c"])
FATES: st.SearchStrategy[Settled] = st.sampled_from([*Fate, Rejected("no")])


NOTHING = Ledger(0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Known:
    """What the oracle knows of one cursor."""

    base: int
    done: frozenset[int]
    ledger: Ledger = NOTHING

    def counting(self, seq: int, word: str) -> Known:
        """One more uplink came to this end."""
        counted = replace(self.ledger, **{word: getattr(self.ledger, word) + 1})
        return replace(self, done=self.done | {seq}, ledger=counted)


class Spools(RuleBasedStateMachine):
    """A journal, used and killed at any point between commits, against plain Python."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.generation = 0
        self.events: list[Event] = []
        self.bodies: dict[int, bytes] = {}
        self.first = 1
        self.cursors: dict[str, Known] = {}

    @property
    def path(self) -> Path:
        return self.directory / str(self.generation) / "spool.db"

    @initialize()
    def open(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        self.journal = start_journal(self.path, PAGE, lambda: NOW_S, self.events.append)

    @rule(sizes=st.lists(st.integers(0, 3_000), min_size=1, max_size=8))
    def append(self, sizes: list[int]) -> None:
        self.bodies |= store(self.journal, sizes)

    @rule(id=IDS)
    def ensure(self, id: str) -> None:
        with self.journal.transaction():
            ledger.ensure(self.journal, id)
        self.cursors.setdefault(id, Known(len(self.bodies), frozenset()))

    def waiting(self, known: Known) -> list[int]:
        return [seq for seq in range(known.base + 1, len(self.bodies) + 1) if seq not in known.done]

    @rule(id=IDS, fates=st.lists(FATES, min_size=1, max_size=6))
    def settle(self, id: str, fates: list[Settled]) -> None:
        if (known := self.cursors.get(id)) is not None:
            self.settle_these(id, self.waiting(known), fates, in_order=True)

    @rule(id=IDS, fates=st.lists(FATES, min_size=1, max_size=6), chance=st.randoms(use_true_random=False))
    def settle_ahead(self, id: str, fates: list[Settled], chance: Random) -> None:
        if (known := self.cursors.get(id)) is not None:
            shuffled = self.waiting(known)
            chance.shuffle(shuffled)
            self.settle_these(id, shuffled, fates, in_order=False)

    def settle_these(self, id: str, seqs: list[int], fates: list[Settled], *, in_order: bool) -> None:
        settled = list(zip(seqs, fates, strict=False))
        with self.journal.transaction():
            ledger.settle(self.journal, id, settled, 0, in_order=in_order)
        for seq, fate in settled:
            word = "rejected" if isinstance(fate, Rejected) else fate.value
            self.cursors[id] = self.cursors[id].counting(seq, word)

    @rule(id=IDS)
    def forget(self, id: str) -> None:
        with self.journal.transaction():
            ledger.forget(self.journal, id)
        self.cursors.pop(id, None)

    @rule(id=IDS)
    def retire(self, id: str) -> None:
        with self.journal.transaction():
            ledger.retire(self.journal, id, 0)

    @precondition(lambda self: self.bodies)
    @rule(validity_s=st.sampled_from([None, -1.0]))
    def squeeze(self, validity_s: float | None) -> None:
        """The spool is just full, and a row more is to fit."""
        limits = SpoolLimits(max_bytes=self.journal.reader.used_bytes(), min_free_bytes=0)
        keeping = Keeping(limits, self.path, lambda: NOW_S, lambda directory: 1 << 40)
        keeping.validity_s.update(dict.fromkeys(self.cursors, validity_s))
        keeping.measure(self.journal)
        with self.journal.transaction():
            keeping.make_room(self.journal, 500)
        self.first = self.journal.state.first_seq
        word = "dropped" if validity_s is None else "expired"
        for id, known in self.cursors.items():
            for seq in self.waiting(known):
                if seq < self.first:
                    known = known.counting(seq, word)
            self.cursors[id] = known

    @rule()
    def checkpoint(self) -> None:
        self.journal.checkpoint()

    @rule(torn=st.binary(max_size=300))
    def crash(self, torn: bytes) -> None:
        """Go on with the files as they are now, and with the beginning of a write that never ended."""
        old = self.path
        self.generation += 1
        self.path.parent.mkdir()
        shutil.copy(old, self.path)
        wal = sidecars(old)[0].read_bytes() if sidecars(old)[0].exists() else b""
        sidecars(self.path)[0].write_bytes(wal + torn)
        self.journal.close()
        self.open()

    @rule()
    def restart(self) -> None:
        self.journal.close()
        self.open()

    @invariant()
    def everything_is_there(self) -> None:
        if not hasattr(self, "journal"):
            return
        state = self.journal.state
        assert not self.events
        assert state.last_seq == len(self.bodies)
        assert state.cursors.keys() == self.cursors.keys()
        for id, known in self.cursors.items():
            found = drain(self.journal, id)
            assert list(found) == self.waiting(known)
            assert all(self.bodies[seq] == body for seq, body in found.items())
            expected = replace(known.ledger, received=len(self.bodies) - known.base, waiting=len(found))
            row = state.cursors[id]
            assert state.ledger(row) == expected
            assert row.position + 1 == min([*found, len(self.bodies) + 1]), "the position has come as far as it can"
            assert row.ahead.count == sum(seq > row.position for seq in known.done)
            assert expected.imbalance == 0

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
        shutil.rmtree(self.directory)


Spools.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestSpools = Spools.TestCase


APPEND_FOR_EVER = """
import sys, trio
from pathlib import Path
from tpxd.spool import NewReport, SpoolLimits, open_spool

async def main(path, begin):
    async with open_spool(path, SpoolLimits(), tell=print) as spool:
        await spool.cursor("plant")
        async def one(task):
            n = begin
            while True:
                n += 1
                body = b'{"DevEUI_uplink":{"FCntUp":%d,"Task":%d}}' % (n, task)
                seq = (await spool.append(NewReport("DevEUI_uplink", "L", "", body))).seq
                print(seq, body.decode(), flush=True)
        async with trio.open_nursery() as nursery:
            for task in range(20):
                nursery.start_soon(one, task)

trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
"""


def test_what_was_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "state" / "spool.db"
    acknowledged: dict[int, bytes] = {}
    for begin in (0, 10_000, 20_000):
        with subprocess.Popen(
            [sys.executable, "-c", APPEND_FOR_EVER, str(path), str(begin)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            for _ in range(200 + begin // 50):
                seq, body = process.stdout.readline().split(b" ", 1)
                acknowledged[int(seq)] = body.strip()
            process.send_signal(signal.SIGKILL)
            for line in process.stdout.read().splitlines(keepends=True):
                if line.endswith(b"}}\n"):
                    seq, body = line.split(b" ", 1)
                    acknowledged[int(seq)] = body.strip()
        events: list[Event] = []
        journal = start_journal(path, 4_096, lambda: NOW_S, events.append)
        found = drain(journal, "plant")
        row = journal.state.cursors["plant"]
        assert journal.state.ledger(row) == Ledger(len(found), 0, 0, 0, 0, 0, len(found))
        journal.close()
        assert list(found) == list(range(1, len(found) + 1))
        assert acknowledged.items() <= found.items()
        assert not events


FILL_THE_DISK = """
import os, resource, sys, trio
from pathlib import Path
from tpxd.errors import SpoolUnavailable
from tpxd.spool import NewReport, SpoolLimits, Fate, open_spool

SOFT, HARD = resource.getrlimit(resource.RLIMIT_FSIZE)

async def main(path):
    events = []
    async with open_spool(path, SpoolLimits(min_free_bytes=0), tell=events.append) as spool:
        cursor = await spool.cursor("plant")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, HARD))
        stored, refused = [], 0
        for n in range(2_000):
            try:
                stored.append((await spool.append(NewReport("DevEUI_uplink", "L", "", b"%d" % n * 400))).seq)
            except SpoolUnavailable:
                refused += 1
        assert refused > 100, refused
        assert not spool.statistics().storing
        resource.setrlimit(resource.RLIMIT_FSIZE, (SOFT, HARD))
        stored.append((await spool.append(NewReport("DevEUI_uplink", "L", "", b"{}"))).seq)
        with trio.fail_after(10):
            while not spool.statistics().storing:
                await trio.sleep(0.05)
        assert stored == list(range(1, len(stored) + 1))
        assert cursor.ledger.waiting == cursor.ledger.received == len(stored)
        said = [event.message.partition(":")[0] for event in events]
        assert len(said) < 40, said  # a checkpoint now and then makes room for a few more
        assert set(zip(said[::2], said[1::2], strict=True)) == {("nothing can be stored", "the spool stores again")}
    print(len(stored))

trio.run(main, Path(sys.argv[1]))
"""


def test_a_full_disk_is_an_answer_and_no_end(tmp_path: Path) -> None:
    path = tmp_path / "state" / "spool.db"
    done = subprocess.run([sys.executable, "-c", FILL_THE_DISK, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    events: list[Event] = []
    journal = start_journal(path, 4_096, lambda: NOW_S, events.append)
    assert list(drain(journal, "plant")) == list(range(1, int(done.stdout) + 1))
    assert not events
    journal.close()
