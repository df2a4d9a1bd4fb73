"""Tells systemd how the service fares; does nothing where no one asked (no `NOTIFY_SOCKET`).

Each call is one datagram, sent without waiting: a supervisor that does not read must not stop the daemon. The socket
stays open, so that the watchdog hears of a daemon that has no file left to open.

Source: sd_notify(3), systemd.service(5) `Type=notify`, `WatchdogSec=`.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import socket
import time

logger = logging.getLogger(__name__)


def ready(status: str | None = None) -> None:
    """Start-up, or a reload, is complete."""
    _send("READY=1", None if status is None else f"STATUS={_line(status)}")


def reloading() -> None:
    """A reload began; `ready` must follow."""
    _send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> None:
    """The service began to stop."""
    _send("STOPPING=1")


def status(text: str) -> None:
    """One line about the service for `systemctl status`."""
    _send(f"STATUS={_line(text)}")


def extend(seconds: int) -> None:
    """Starting or stopping takes longer: do not give up for so many seconds from now."""
    _send(f"EXTEND_TIMEOUT_USEC={seconds * 1_000_000}")


def watchdog() -> None:
    """The service is alive; call it at least every `watchdog_interval_s()`."""
    _send("WATCHDOG=1")


def watchdog_interval_s() -> float | None:
    """How often `watchdog` should be called: half of what systemd allows; None when it does not watch this process."""
    period_us = os.environ.get("WATCHDOG_USEC", "")
    if not period_us.isdecimal() or int(period_us) == 0:
        return None
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(period_us) / 2_000_000


def _line(text: str) -> str:
    # A line break would begin another assignment.
    return " ".join(text.split())


def _send(*assignments: str | None) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    datagram = "\n".join(text for text in assignments if text is not None).encode()
    try:
        _outlet().sendto(datagram, address)
    except OSError as error:
        logger.debug("systemd does not hear us: %s", error)


@functools.cache
def _outlet() -> socket.socket:
    """The one socket that everything is sent from."""
    outlet = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    outlet.setblocking(False)
    atexit.register(outlet.close)
    return outlet
