"""Ends a child process when its parent does, also when the parent was killed.

The parent starts the child with a pipe as standard input and never writes to it: the system closes the pipe when the
parent is gone, whatever ended it. `PR_SET_PDEATHSIG` would not do: it fires when the parent's *thread* ends, and trio
starts processes from worker threads that come and go.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def end_with_parent() -> None:
    """Send this process SIGTERM as soon as its standard input ends; for processes that were given a pipe."""
    threading.Thread(target=_wait_for_end, args=(sys.stdin.fileno(),), name="lifeline", daemon=True).start()


def _wait_for_end(descriptor: int) -> None:
    while os.read(descriptor, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
