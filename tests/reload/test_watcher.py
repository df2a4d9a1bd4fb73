"""Changes on a real disk are noticed soon, whatever way an editor or an operator makes them."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from watchfiles._rust_notify import RustNotify

from tpxd.reload import watcher
from tpxd.reload.watcher import watch

PATIENCE_S = 8.0


class Changes:
    """Counts calls, and lets a test wait for the next one."""

    def __init__(self) -> None:
        self.count = 0
        self._more = trio.Event()

    def tell(self) -> None:
        self.count += 1
        self._more.set()
        self._more = trio.Event()

    async def after(self, act: Callable[[], object]) -> None:
        """Do something to the disk and wait until it is noticed."""
        more = self._more
        act()
        with trio.fail_after(PATIENCE_S):
            await more.wait()

    async def quiet(self) -> None:
        """Wait until nothing more is told of what happened before."""
        while True:
            more = self._more
            with trio.move_on_after(0.2) as waiting:
                await more.wait()
            if waiting.cancelled_caught:
                return


@asynccontextmanager
async def watching(*paths: Path, every_s: float = 3600.0) -> AsyncIterator[Changes]:
    """A watch that lies, and has told what it tells at its beginning."""
    changes = Changes()

    def watched() -> frozenset[Path]:
        return frozenset(paths)

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await watch(watched, changes.tell, every_s=every_s, task_status=task_status)

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        await changes.quiet()
        yield changes
        nursery.cancel_scope.cancel()


async def test_every_way_of_writing_is_noticed(directory: Path) -> None:
    file, other = directory / "plant.toml", directory / "plant.toml.tmp"
    async with watching(directory) as changes:
        await changes.after(lambda: file.write_text("a"))
        await changes.quiet()
        await changes.after(lambda: file.write_text("b"))
        await changes.quiet()
        await changes.after(lambda: (other.write_text("c"), other.replace(file)))
        await changes.quiet()
        await changes.after(file.unlink)


async def test_many_files_at_once_are_few_readings(directory: Path) -> None:
    def write_all() -> None:
        for number in range(20):
            (directory / f"c{number}.toml").write_text("x")

    async with watching(directory) as changes:
        before = changes.count
        await changes.after(write_all)
        await changes.quiet()
        assert changes.count - before < 10


async def test_a_directory_that_was_replaced_is_still_watched(directory: Path) -> None:
    away = directory.with_suffix(".away")
    (directory / "plant.toml").write_text("a")

    def emptied() -> None:
        shutil.rmtree(directory)
        directory.mkdir()

    async with watching(directory) as changes:
        await changes.after(lambda: directory.rename(away))
        await changes.quiet()
        await changes.after(lambda: shutil.copytree(away, directory))
        await changes.quiet()
        await changes.after(lambda: (directory / "plant.toml").write_text("b"))
        await changes.quiet()
        await changes.after(emptied)
        await changes.quiet()
        await changes.after(lambda: (directory / "new.toml").write_text("c"))


async def test_a_directory_may_come_later_with_its_parents(tmp_path: Path) -> None:
    directory = tmp_path / "etc" / "tpxd" / "connections.d"
    async with watching(directory) as changes:
        await changes.after(lambda: directory.mkdir(parents=True))
        await changes.quiet()
        await changes.after(lambda: (directory / "plant.toml").write_text("a"))


async def test_a_link_that_leads_elsewhere_is_noticed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "connections.d").mkdir(parents=True)
    link = tmp_path / "current"
    link.symlink_to("one")

    def turned() -> None:
        link.unlink()
        link.symlink_to("two")

    async with watching(link / "connections.d") as changes:
        await changes.after(turned)
        await changes.quiet()
        await changes.after(lambda: (tmp_path / "two" / "connections.d" / "plant.toml").write_text("a"))


async def test_files_of_secrets_are_watched_also_before_they_exist(directory: Path) -> None:
    (directory.parent / "secrets").mkdir()
    secret = directory.parent / "secrets" / "password"
    async with watching(directory, secret) as changes:
        await changes.after(lambda: secret.write_text("one"))
        await changes.quiet()
        await changes.after(lambda: secret.write_text("two"))
        await changes.quiet()
        await changes.after(secret.unlink)


async def test_without_any_news_files_are_read_now_and_then(directory: Path) -> None:
    async with watching(directory, every_s=0.5) as changes:
        for _ in range(2):
            await changes.after(lambda: None)


@pytest.mark.parametrize("error", [OSError("OS file watch limit reached."), ZeroDivisionError("a bug of the test's")])
async def test_where_watching_fails_files_are_read_now_and_then(
    directory: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*arguments: object) -> RustNotify:
        raise error

    monkeypatch.setattr(watcher, "RustNotify", refuse)
    async with watching(directory, every_s=0.3) as changes:
        for _ in range(3):
            await changes.after(lambda: None)


async def test_a_cancelled_watch_ends_at_once(directory: Path) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: watch(lambda: frozenset({directory}), lambda: None, task_status=task_status)
        )
        begin = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - begin < 2.0


@pytest.mark.parametrize(
    ("event", "matters"),
    [
        ("/etc/tpxd/connections.d/plant.toml", True),
        ("/etc/tpxd/connections.d", True),
        ("/etc/tpxd", True),
        ("/etc/tpxd/connections.d/..data", True),
        ("/run/secrets/password", True),
        ("/run/secrets/..data", True),
        ("/etc/tpxd/connections.d/plant.toml~", False),
        ("/etc/tpxd/connections.d/.plant.toml.swp", False),
        ("/etc/tpxd/connections.d/.plant.toml", False),
        ("/etc/tpxd/connections.d/4913", False),
        ("/etc/tpxd/other.toml", False),
        ("/run/secrets/another", False),
    ],
)
def test_backup_files_and_neighbours_are_no_reason_to_read(event: str, matters: bool) -> None:
    paths = frozenset({Path("/etc/tpxd/connections.d"), Path("/run/secrets/password")})
    assert watcher._matters({Path(event)}, paths) is matters


async def test_a_name_that_is_not_utf_8_is_noticed_and_blinds_nothing(directory: Path) -> None:
    strange = os.fsdecode(b"\xff.toml")
    async with watching(directory, every_s=0.3) as changes:
        await changes.after((directory / strange).touch)
        for number in range(3):
            await changes.after(lambda number=number: (directory / f"c{number}.toml").touch())  # type: ignore[misc]
        await changes.after((directory / strange).unlink)


async def test_a_name_that_is_not_utf_8_beside_a_secret_ends_nothing(directory: Path) -> None:
    secrets = directory.parent / "secrets"
    secrets.mkdir()
    async with watching(directory, secrets / "password", every_s=0.3) as changes:
        await changes.after((secrets / os.fsdecode(b"caf\xe9")).touch)
        await changes.after((secrets / "password").touch)


async def test_a_directory_that_cannot_be_named_is_read_now_and_then(tmp_path: Path) -> None:
    strange = tmp_path / os.fsdecode(b"\xff")
    strange.mkdir()
    async with watching(strange, every_s=0.3) as changes:
        for _ in range(2):
            await changes.after(lambda: None)


async def test_a_look_that_hangs_leaves_the_reading_alone(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(watcher, "PATIENCE_S", 0.05)
    monkeypatch.setattr(watcher, "_identity", lambda path: answer.wait(30))
    threads = threading.active_count()
    try:
        async with watching(directory, every_s=0.3) as changes:
            for _ in range(8):
                await changes.after(lambda: None)
            assert threading.active_count() - threads <= watcher.MOST_HANGING + 1
    finally:
        answer.set()
