"""Says that connection files or drivers may have changed, soon after they did; what changed is for others to find out.

A watch sits on an inode, so that one on a directory goes blind when the directory is replaced. Therefore the parent is
watched too, and all watches are laid anew when a directory came, went or became another one, which is looked at every
second. Network mounts tell nothing: every ten seconds the files are read in any case, whatever becomes of the watches:
watchfiles fails on the first name that is not UTF-8, and a mount that hangs answers nobody.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import Final, TypeVar

import trio
from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

from tpxd.errors import behind_barrier
from tpxd.reload.drivers import is_driver_name
from tpxd.reload.files import is_connection_name

logger = logging.getLogger(__name__)

EVERY_S: Final = 10.0
LOOK_S: Final = 1.0
DEBOUNCE_MS: Final = 50
STEP_MS: Final = 25

PATIENCE_S: Final = 5.0
"""For a look at the directories, which hangs where a mount does; then its thread is left to itself."""

MOST_HANGING: Final = 4
FAILURES = (OSError, UnicodeError, WatchfilesRustInternalError, trio.TooSlowError)

Identity = tuple[int, int]
Directories = dict[Path, Identity]
T = TypeVar("T")


async def watch(
    watched: Callable[[], frozenset[Path]],
    changed: Callable[[], None],
    *,
    every_s: float = EVERY_S,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call `changed` when something at these paths may have, and every `every_s` in any case; never returns.

    Args:
        watched: the directories of connections and of drivers, and the files that secrets name; asked again after each
            change. None of them need exist.

    Says started when the first watch lies, or cannot; `changed` is called once for what happened before that.

    Cancellation: the thread that waits for the system ends within 25 ms; one that hangs is left to itself.
    """
    started = False
    said: str | None = None

    def lies() -> None:
        nonlocal started
        if not started:
            task_status.started()
        started = True
        changed()

    look = _Look()
    while True:
        failure = await behind_barrier(
            partial(_watch_once, watched, lies, changed, every_s, look), "watching the files"
        )
        if failure is None:
            continue
        if str(failure) != said:
            said = str(failure)
            logger.warning("cannot watch for changes: %s; files are read every %g s", said or "it hangs", every_s)
        lies()
        await trio.sleep(every_s)


class _Look:
    """Does what may hang in threads that can be left to themselves; so many at once, and no more."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(MOST_HANGING)

    async def at(self, work: Callable[[], T]) -> T:
        """Do it; raises trio.TooSlowError where it does not end in time."""
        with trio.fail_after(PATIENCE_S):
            return await trio.to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=True)


async def _watch_once(
    watched: Callable[[], frozenset[Path]],
    lies: Callable[[], None],
    changed: Callable[[], None],
    every_s: float,
    look: _Look,
) -> Exception | None:
    """Lay watches, say so, and tell changes until they no longer lie where they should; returns what failed."""
    try:
        paths = _absolute(watched())
        directories = await look.at(lambda: _directories(paths))
        with await look.at(lambda: _notify(directories)) as notify:
            lies()
            await _until_moved(notify, directories, paths, watched, changed, every_s, look)
    except FAILURES as error:
        return error
    return None


def _notify(directories: Iterable[Path]) -> RustNotify:
    return RustNotify([str(path) for path in directories], False, False, 0, False, True)


async def _until_moved(
    notify: RustNotify,
    directories: Directories,
    paths: frozenset[Path],
    watched: Callable[[], frozenset[Path]],
    changed: Callable[[], None],
    every_s: float,
    look: _Look,
) -> None:
    """Tell changes until the watches no longer lie where they should."""
    due = trio.current_time() + every_s
    while True:
        events = await _wait(notify, min(LOOK_S, due - trio.current_time()))
        if matters := _matters(events, paths) or trio.current_time() >= due:
            changed()
            due = trio.current_time() + every_s
        if not events.isdisjoint(directories) or _absolute(watched()) != paths:
            return
        if matters and await look.at(lambda: _directories(paths)) != directories:
            return
        if await look.at(lambda: _identities(directories)) != directories:
            return


async def _wait(notify: RustNotify, timeout_s: float) -> set[Path]:
    """Wait for changes, in a thread of its own that a cancellation ends at its next step."""
    stop = threading.Event()
    timeout_ms = max(1, int(timeout_s * 1000))
    said: str | set[tuple[int, str]] = ""
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_set_when_cancelled, stop)
        try:
            said = await trio.to_thread.run_sync(notify.watch, DEBOUNCE_MS, STEP_MS, timeout_ms, stop)
        except FAILURES as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return set() if isinstance(said, str) else {Path(path) for _, path in said}


async def _set_when_cancelled(stop: threading.Event) -> None:
    try:
        await trio.sleep_forever()
    finally:
        stop.set()


@lru_cache(maxsize=4)
def _absolute(paths: frozenset[Path]) -> frozenset[Path]:
    return frozenset(path.absolute() for path in paths)


def _identities(directories: Iterable[Path]) -> Directories:
    """Which directories these are now."""
    return {path: identity for path in directories if (identity := _identity(path))}


def _directories(paths: Iterable[Path]) -> Directories:
    """Where watches must lie: each directory among `paths`, and what each path stands in, or would stand in."""
    found: Directories = {}
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
    return any(
        event in paths
        or event in _above(paths)
        or event.name.startswith("..")
        or (event.parent in paths and (is_connection_name(event.name) or is_driver_name(event.name)))
        for event in events
    )


@lru_cache(maxsize=4)
def _above(paths: frozenset[Path]) -> frozenset[Path]:
    return frozenset(parent for path in paths for parent in path.parents)
