"""Durability: a journal of uplinks in SQLite, a cursor per connection, a ledger that balances.

rows, state          what is stored, and the arithmetic of the ledger      pure
database, reading, journal, ledger                                         synchronous, SQLite
wal, salvage, repair what to do when bytes on the disk have changed        pure, but for `repair`
room, recent, newest what goes when room is short; duplicates; the newest  pure
keeping, writer      the one thread: group commit, room, recounting
spool, cursor        what the event loop sees
"""

from tpxd.spool.cursor import Cursor
from tpxd.spool.keeping import SpoolLimits
from tpxd.spool.rows import DeadLetter, Rejected, Settled, Verdict
from tpxd.spool.spool import Appended, NewReport, Spool, SpoolStatistics, open_spool
from tpxd.spool.state import Ledger

__all__ = [
    "Appended",
    "Cursor",
    "DeadLetter",
    "Ledger",
    "NewReport",
    "Rejected",
    "Settled",
    "Spool",
    "SpoolLimits",
    "SpoolStatistics",
    "Verdict",
    "open_spool",
]
