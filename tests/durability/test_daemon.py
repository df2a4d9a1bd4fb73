"""The whole daemon on a disk that is slow or fails: what its health says, and what its sender is answered."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.harness import Daemon, eventually
from tests.daemon.lrc import DEVICES, Lrc, uplink
from tests.durability import shim
from tests.durability.shim import Place

pytestmark = pytest.mark.broker


@pytest.fixture
def disk(in_memory: Path, monkeypatch: pytest.MonkeyPatch) -> shim.Disk:
    disk = shim.disk(in_memory)
    for name, value in disk.environment().items():
        monkeypatch.setenv(name, value)
    return disk


@pytest.fixture
def daemon(disk: shim.Disk) -> Iterator[Daemon]:
    """Its state stands on the disk of the shim."""
    daemon = Daemon(disk.root.parent)
    (disk.root.parent / "state").symlink_to(disk.root)
    daemon.start()
    yield daemon
    daemon.end()


def spool_health(daemon: Daemon) -> tuple[int, dict[str, Any]]:
    status, document = daemon.get("/health")
    return status, document["spool"]


def test_a_disk_that_takes_six_seconds_is_in_the_health_until_it_is_quick(daemon: Daemon, disk: shim.Disk) -> None:
    lrc = Lrc(daemon.intake)
    assert lrc.post(uplink(DEVICES[0], 1)) == 200
    assert spool_health(daemon)[0] == 200
    disk.set(Place.SYNCS_SLOW_MS, 6_500)
    posting = threading.Thread(target=lrc.post, args=(uplink(DEVICES[0], 2),))
    posting.start()
    eventually("it says so meanwhile", lambda: "has not ended a write" in str(spool_health(daemon)[1]["reason"]))
    assert spool_health(daemon)[0] == 503
    posting.join()
    eventually("it says so afterwards", lambda: "for the last write" in str(spool_health(daemon)[1]["reason"]))
    disk.set(Place.SYNCS_SLOW_MS, 0)
    assert lrc.post(uplink(DEVICES[0], 3)) == 200
    assert spool_health(daemon)[0] == 200
    assert [counter for _, counter in lrc.accepted] == [1, 2, 3]
    lrc.close()


def test_a_failed_sync_costs_nothing_and_is_told(daemon: Daemon, disk: shim.Disk) -> None:
    lrc = Lrc(daemon.intake)
    assert [lrc.post(uplink(DEVICES[0], n)) for n in range(5)] == [200] * 5
    before = (disk.root / "spool.db").stat().st_ino
    disk.fail_syncs(errno.EIO, disk.get(Place.SYNCS) + 1, 4)
    refused = [lrc.post(uplink(DEVICES[0], n)) for n in range(5, 7)]
    assert 503 in refused
    eventually("it stores again", lambda: spool_health(daemon)[0] == 200)
    assert [lrc.post(uplink(DEVICES[0], n)) for n in range(5, 9)] == [200] * 4
    assert (disk.root / "spool.db").stat().st_ino != before
    assert daemon.get("/health")[1]["spool"]["stored"] == 9
    assert "in a new one; 5 uplinks, 0 are lost" in daemon.log.read_text()
    lrc.close()
