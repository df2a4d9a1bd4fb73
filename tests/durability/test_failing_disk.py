"""A write or a sync fails: what was answered is kept all the same, whatever the page cache pretends."""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random

import pytest

from tests.durability import shim
from tests.durability.campaigns import judged_after_failure, posted
from tests.durability.recording import Renamed
from tests.durability.shim import Place
from tests.durability.survivors import answers_in, examine


def fail_once(where: Path, kind: str, why: int, number: int) -> list[str]:
    """Post while one call fails; what is wrong if the process is killed or the power cut soon afterwards, or later."""
    disk = shim.disk(where / "failing", record=True)
    posted(disk, 0)
    if kind == "sync":
        disk.fail_syncs(why, disk.get(Place.SYNCS) + number)
    else:
        disk.fail_writes(why, disk.get(Place.WRITES) + number)
    acts = posted(disk, 60)
    return judged_after_failure(acts, Random(number), where / "image", most=1).wrong


@pytest.mark.parametrize("number", [4, 5, 17])
def test_a_sync_that_fails_once(in_memory: Path, number: int) -> None:
    assert fail_once(in_memory, "sync", errno.EIO, number) == []


@pytest.mark.parametrize("why", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("number", [10, 460])
def test_a_write_that_fails_once(in_memory: Path, number: int, why: int) -> None:
    assert fail_once(in_memory, "write", why, number) == []


def test_a_write_that_a_quota_refuses_leaves_the_file_as_it_is(in_memory: Path) -> None:
    disk = shim.disk(in_memory, record=True)
    posted(disk, 0)
    disk.fail_writes(errno.EDQUOT, disk.get(Place.WRITES) + 40, 2)
    acts = posted(disk, 60)
    renamed = [act.after for act in acts if isinstance(act, Renamed)]
    assert renamed.count("spool.db") == 1, "it was made once"
    assert len(answers_in(acts).kept) in range(40, 60)
    assert not examine(disk.root / "spool.db", answers_in(acts)).wrong
