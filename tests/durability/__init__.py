"""What a spool keeps when the process is killed, the power fails, or the disk does.

shim        a small C library between SQLite and the kernel: it records every write and sync, fails some, kills at one
recording   the record as Python sees it
images      what a disk may hold after a power cut, out of a record
campaigns   faults, each at one moment after the other: runs `posting` there and follows what it leaves
daemon_kills the whole daemon, killed between an LRC and a far end
loop_device a real disk that fails and returns
large       starts with many rows
kinds       all kinds of faults, and what is counted; `python -m tests.durability` runs them and prints a table
posting     a process that stores reports, to run under the shim
survivors   opens what is left and says what of the answered reports is gone
"""
