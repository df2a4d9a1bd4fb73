"""Says that connection files may have changed, soon after they did; what changed is for the reader to find out.

A watch sits on an inode, so that one on a directory goes blind when the directory is replaced. Therefore the parent is
watched too, and all watches are laid anew when a directory came, went or became another one, which is looked at every
second. Network mounts tell nothing: every ten seconds the files are read in any case.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import trio
from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

from tpxd.engine.connection_files import is_connection_name

logger = logging.getLogger(__name__)

EVERY_S: Final = 10.0
LOOK_S: Final = 1.0
DEBOUNCE_MS: Final = 50
STEP_MS: Final = 25

Identity = tuple[int, int]


async def watch(
    watched: Callable[[], frozenset[Path]],
    changed: Callable[[], None],
    *,
    every_s: float = EVERY_S,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call `changed` when something at these paths may have, and every `every_s` in any case; never returns.

    Args:
        watched: the directory of connections and the files that secrets name; asked again after each change. None of
            them need exist.

    Says started when the first watch lies; `changed` is called once for what happened before that.

    Cancellation: the thread that waits for the system ends within 25 ms.
    """
    while True:
        paths = frozenset(path.absolute() for path in watched())
        directories = _directories(paths)
        try:
            with RustNotify([str(path) for path in directories], False, False, 0, False, True) as notify:
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                changed()
                await _until_moved(notify, directories, paths, watched, changed, every_s)
        except (OSError, WatchfilesRustInternalError) as error:
            logger.warning("cannot watch for changes: %s; files are read every %g s", error, every_s)
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(every_s)
            changed()


async def _until_moved(
    notify: RustNotify,
    directories: dict[Path, Identity],
    paths: frozenset[Path],
    watched: Callable[[], frozenset[Path]],
    changed: Callable[[], None],
    every_s: float,
) -> None:
    """Tell changes until the watches no longer lie where they should."""
    due = trio.current_time() + every_s
    while True:
        events = await _wait(notify, min(LOOK_S, due - trio.current_time()))
        if _matters(events, paths) or trio.current_time() >= due:
            changed()
            due = trio.current_time() + every_s
        if not events.isdisjoint(directories):
            return
        if _directories(frozenset(path.absolute() for path in watched())) != directories:
            return


async def _wait(notify: RustNotify, timeout_s: float) -> set[Path]:
    """Wait for changes, in a thread of its own that a cancellation ends at its next step."""
    stop = threading.Event()
    timeout_ms = max(1, int(timeout_s * 1000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_set_when_cancelled, stop)
        said = await trio.to_thread.run_sync(notify.watch, DEBOUNCE_MS, STEP_MS, timeout_ms, stop)
        nursery.cancel_scope.cancel()
    return set() if isinstance(said, str) else {Path(path) for _, path in said}


async def _set_when_cancelled(stop: threading.Event) -> None:
    try:
        await trio.sleep_forever()
    finally:
        stop.set()


def _directories(paths: Iterable[Path]) -> dict[Path, Identity]:
    """Where watches must lie: each directory among `paths`, and what each path stands in, or would stand in."""
    found: dict[Path, Identity] = {}
    for path in paths:
        if identity := _identity(path):
            found[path] = identity
        for above in path.parents:
            if identity := _identity(above):
                found[above] = identity
                break
    return found


def _identity(path: Path) -> Identity | None:
    """Which directory this is, None when it is none."""
    try:
        there = path.stat()
    except OSError:
        return None
    return (there.st_dev, there.st_ino) if path.is_dir() else None


def _matters(events: set[Path], paths: frozenset[Path]) -> bool:
    """Whether a reader may find something new; editors' swap and backup files are no reason to read.

    Names that begin with two dots are how Kubernetes swaps the files of a volume.
    """
    above = {parent for path in paths for parent in path.parents}
    return any(
        event in paths
        or event in above
        or event.name.startswith("..")
        or (event.parent in paths and is_connection_name(event.name))
        for event in events
    )
