"""A disk that fails when it is told to, as SQLite tells of it."""

from __future__ import annotations

import sqlite3


class Faults(sqlite3.Connection):
    """A connection to a database whose disk fails.

    Attributes:
        code: with which error; None: it works.
        times: how often; None: until `code` is None again.
        where: the beginnings of the statements that fail.
    """

    code: int | None = None
    times: int | None = None
    where: tuple[str, ...] = ("INSERT", "COMMIT")

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        code, times = Faults.code, Faults.times
        if code is not None and times != 0 and statement.startswith(Faults.where):
            Faults.times = None if times is None else times - 1
            error = sqlite3.OperationalError("the disk fails")
            error.sqlite_errorcode = code
            raise error
        return super().execute(statement, *values)  # type: ignore[arg-type]
