"""How many files the process may have open, and who may take how many of them for peers.

A socket is an open file. Without a share for each listener, peers that only connect would take the files of the spool
and of the far ends as well.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Final

INTAKE: Final = 1_024
CONTROL: Final = 100
CONTROL_SOCKET: Final = 32
"""The most connections of each listener, however many files there are."""


@dataclass(frozen=True, slots=True)
class Shares:
    """How many connections each listener may hold; more than half of the files stay for the rest of the daemon."""

    intake: int = INTAKE
    control: int = CONTROL
    control_socket: int = CONTROL_SOCKET


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one; returns how many may be open then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # a sandbox that forbids it, or a kernel whose own limit is lower
        return _count(soft)
    return _count(hard)


def _count(limit: int) -> int:
    return 1 << 30 if limit == resource.RLIM_INFINITY else limit


def share_out(files: int) -> Shares:
    """What each listener may take of so many files: a quarter, a sixteenth, a thirty-second, or its most."""
    return Shares(min(INTAKE, files // 4), min(CONTROL, files // 16), min(CONTROL_SOCKET, files // 32))
