"""What a command that fails says, and its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer

from tpxd.errors import ConfigError, TpxdError
from tpxd.log import masked

FAILED: Final = 1
INVALID: Final = 78
INTERRUPTED: Final = 130


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn expected errors into lines on standard error and `typer.Exit`; what is no expected error passes through.

    A reader that went away (`tpxd status | head -1`) and Ctrl-C are no news to whoever caused them: nothing is said.
    """
    try:
        yield
        sys.stdout.flush()
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        raise typer.Exit(INVALID) from None
    except TpxdError as error:
        print(f"tpxd: {masked(error.message)}", file=sys.stderr)
        if error.hint is not None:
            print(f"tpxd: {masked(error.hint)}", file=sys.stderr)
        raise typer.Exit(FAILED) from None
    except BrokenPipeError:
        # Python flushes once more when it exits, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
