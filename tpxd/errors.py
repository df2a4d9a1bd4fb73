"""The errors that pass from room to room, and who must act on each.

    TpxdError
    ├─ ConfigError             the operator: edit the file; never retried until it changes
    ├─ ReportError             the sender: the body is no report (400)
    ├─ TokenError              the sender: the Token, AS_ID or Time is wrong (401)
    ├─ PatternError            the operator: the pattern cannot be compiled
    │  ├─ Unresolvable         the uplink lacks what the pattern names: a dead letter
    │  └─ TooSlow              a regular expression takes too long on the uplink: a dead letter
    ├─ SpoolError
    │  ├─ SpoolUnavailable     the disk: 503 to the LRC with Retry-After
    │  └─ SpoolVersionError    the operator: the file was written by a newer tpxd
    ├─ WireError
    │  ├─ RemoteViolation      the far end broke the protocol
    │  └─ LocalMisuse          our own bug; never caught on purpose
    └─ TransportError          the engine
       ├─ LinkLost             reopen, and send again what has no receipt
       │  ├─ ConnectFailed     the same, before the link existed
       │  └─ Refused           the far end answered, and said no in a way that holds everything back
       ├─ AuthenticationFailed long delay, a state of its own
       └─ Throttled            keep the link, wait as told

`str(error)` is one line that an operator understands; `hint` is the next step.

Further kinds of `TpxdError` stand where they are raised:

    lorawan   DownlinkError, NotJson
    spool     Displaced, Distrusted
    wire      CannotListen
    downlinks Later, NotTaken, Unauthorised, Unknown
    cli       Declined, ScriptFailed, Unanswered, Unreachable
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

EXIT_INVALID: Final = 78
"""What a process ends with whose configuration is wrong (EX_CONFIG of sysexits.h)."""


class TpxdError(Exception):
    """The root of all errors raised on purpose."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in one file, with its place; line and column count from 1, 0 means the file as a whole."""

    path: str
    line: int
    column: int
    field: str
    message: str
    severity: str = "error"

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}:{self.column}" if self.line else self.path
        return f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"


class ConfigError(TpxdError):
    """A file is wrong; `problems` lists everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


class ReportError(TpxdError):
    """The body is not a report that the LRC could have sent."""


class TokenError(TpxdError):
    """The query's Token, AS_ID or Time does not authenticate the report.

    `reason` is one word for counters: `missing`, `as_id`, `token`, `time`, `undocumented`.
    """

    def __init__(self, message: str, *, reason: str, as_id: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.as_id = as_id


class PatternError(TpxdError):
    """A pattern's text cannot be compiled."""


class Unresolvable(PatternError):
    """The document has none of the values that the pattern asks for; `name` is the expression."""

    def __init__(self, name: str, *, hint: str | None = None) -> None:
        super().__init__(f"the uplink has no {name}", hint=hint)
        self.name = name


class TooSlow(PatternError):
    """A regular expression of a file takes too long on what a device or its owner wrote."""


class SpoolError(TpxdError):
    """The spool cannot do what was asked."""


class SpoolUnavailable(SpoolError):
    """Nothing can be stored at the moment; the sender should try again after `retry_after_s` seconds."""

    def __init__(self, message: str, *, retry_after_s: int = 5, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class SpoolVersionError(SpoolError):
    """The spool's file was written by a newer tpxd and was left untouched."""


class WireError(TpxdError):
    """Bytes on the wire are not what the protocol allows."""


class RemoteViolation(WireError):
    """The far end broke the protocol."""


class LocalMisuse(WireError):
    """We asked a protocol core for something that its state does not allow."""


class TransportError(TpxdError):
    """A connection cannot send at the moment; nothing is lost."""


class LinkLost(TransportError):
    """The link ended; what had no receipt may or may not have arrived."""


class ConnectFailed(LinkLost):
    """The link could not be opened."""


class Refused(LinkLost):
    """The far end is there and refuses to take uplinks now; what it refused is held, never suspected as poison."""


class AuthenticationFailed(TransportError):
    """The far end refused our credentials."""


class Throttled(TransportError):
    """The far end asks for patience; the link stays open for `retry_after_s` seconds of silence."""

    def __init__(self, message: str, *, retry_after_s: float, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors inside nested exception groups, in order; a plain error yields itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def unreadable(error: OSError) -> str:
    """Why a file cannot be read, and for one that only others may read what to do."""
    hint = "; it must be readable for the user that tpxd runs as" if isinstance(error, PermissionError) else ""
    return f"cannot be read: {error.strerror}{hint}"


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
