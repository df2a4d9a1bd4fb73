"""Durability: a journal of uplinks in SQLite, a cursor per connection, a ledger that balances.

spool, cursor, contract     what the event loop sees
underway, recent, newest    its memories: what is being stored, duplicates, the newest        pure
rounds, writer, keeping     the one thread: group commit, then room, retention, recounting
room                        what goes when room is short                                     pure
journal, reading, ledger    what the thread does with SQLite
fates                       what became of each uplink, for those who look back
rows, state, ahead          what is stored, and the arithmetic of the ledger                 pure
database, starting          the file: made, opened, checked, locked
commands                    commands and their counters, beside the journal
storing, progress           what is told of a disk that refuses or is slow, and of long repairs
damage                      what can be read when bytes have changed or the disk has failed, and a new file out of it
"""

from tpxd.spool.commands import CommandState, CommandStore, LoadedCommands, StoredCommand
from tpxd.spool.contract import Appended, KeptQueue, NewReport, SpoolStatistics
from tpxd.spool.cursor import Cursor
from tpxd.spool.fates import Outcome
from tpxd.spool.keeping import SpoolLimits
from tpxd.spool.rows import DeadLetter, Filtered, Rejected, Settled, Verdict
from tpxd.spool.spool import Spool, open_spool
from tpxd.spool.state import Ledger

__all__ = [
    "Appended",
    "CommandState",
    "CommandStore",
    "Cursor",
    "DeadLetter",
    "Filtered",
    "KeptQueue",
    "Ledger",
    "LoadedCommands",
    "NewReport",
    "Outcome",
    "Rejected",
    "Settled",
    "Spool",
    "SpoolLimits",
    "SpoolStatistics",
    "StoredCommand",
    "Verdict",
    "open_spool",
]
