"""The crash barrier: a bug that one connection, one request or one peer can reach ends there.

The only place that catches every exception. Cancellation passes, alone and in groups; what is meant to happen is caught
where it is expected, so whatever arrives here is a bug: it is logged with its traceback.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


async def behind_barrier(work: Callable[[], Awaitable[T]], what: str, *parts: object) -> T | Exception:
    """Run `work`; returns what it returns, or the unexpected exception that ended it.

    Args:
        what: whose work it is, for the log, as a format of `logging` with its `parts`.

    Cancellation: passes.
    """
    try:
        return await work()
    except Exception as error:
        logger.exception(f"{what}: crashed, a bug", *parts)  # noqa: G004 # `what` is a format itself
        return error


def thread_behind_barrier(work: Callable[[], T], what: str, *parts: object) -> T | Exception:
    """As `behind_barrier`, in a thread."""
    try:
        return work()
    except Exception as error:
        logger.exception(f"{what}: crashed, a bug", *parts)  # noqa: G004 # `what` is a format itself
        return error
