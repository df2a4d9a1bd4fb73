"""Durability: a journal of uplinks in SQLite, a cursor per connection, a ledger that balances.

contract        what may be asked of a spool, with what data, and what it promises: all that other rooms depend on
cursor          one connection's queue: takes what comes next, and says what became of it
damage/         what can be done when bytes on the disk have changed, or the disk has failed: read it all the same
database        the SQLite file beneath the spool: how it is made, opened and checked, and what SQLite's errors mean
downlink_table  the table of downlinks in a spool; its writes share the commits of the uplinks
downlinks       a downlink as it is kept: in memory, and as a row that is rewritten whole when it changes
exchange        the event loop's side of the writer's thread: gives it work, takes in its rounds
fates           what became of each uplink on each connection, for those who look back
journal         the spool's tables, open
keeping         room, retention and recounting, between commits
ledger          what may happen to a cursor: it begins, moves, loses rows, retires, ends
memories        the newest uplinks, duplicates, and what is on its way to the disk
place           where the spool's files stand: no other tpxd uses them, and they are those that were opened
progress        shows that long work on the spool goes on: in systemd's STATUS=, in its time limits, and in the log
reading         reads the journal, each answer in one step of one statement
room            the order of sacrifice: which of the oldest rows go when room is short
rounds          what passes between the event loop and the writer's thread: calls one way, rounds the other
rows            what the spool's file holds: its tables, the rows as Python sees them
spool           the spool as everybody else sees it: append, cursors, numbers
starting        opens the spool's file, whatever state it is in: absent, whole, left by a crash, damaged
state           what the spool knows without reading: the arithmetic of the ledger
storing         whether the disk takes what it is given, and how fast: what is told about that
writer          the one thread that touches SQLite
"""

from tpxd.spool.contract import (
    Appended,
    Cursor,
    DownlinkStore,
    KeptQueue,
    NewReport,
    ReportStore,
    Spool,
    SpoolStatistics,
)
from tpxd.spool.downlinks import DownlinkState, LoadedDownlinks, StoredDownlink
from tpxd.spool.fates import Outcome
from tpxd.spool.keeping import SpoolLimits
from tpxd.spool.rows import DeadLetter, Fate, Filtered, Rejected, Settled
from tpxd.spool.spool import JournalSpool, open_spool
from tpxd.spool.state import Ledger

__all__ = [
    "Appended",
    "Cursor",
    "DeadLetter",
    "DownlinkState",
    "DownlinkStore",
    "Fate",
    "Filtered",
    "JournalSpool",
    "KeptQueue",
    "Ledger",
    "LoadedDownlinks",
    "NewReport",
    "Outcome",
    "Rejected",
    "ReportStore",
    "Settled",
    "Spool",
    "SpoolLimits",
    "SpoolStatistics",
    "StoredDownlink",
    "open_spool",
]
