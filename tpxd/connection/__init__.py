"""One connection at work: open, deliver, commit, lose, wait.

backlog      lets new uplinks go before a backlog, which gets its share of the link: `backlogShare`
chains       who hands on to whom: `chainedWithConnectionIds`
claims       which reports some connection takes
connection   a connection is a nursery: it keeps its transport open, carries its queue, and nothing of it outlives it
debug_log    `debugMode`: a log line for each uplink, where it went, and its fate, for two days
delivery     carries one connection's queue over its open transport, and commits what has its receipt
far_end      how a link is opened, what ended one, and what is removed at the far end at leave
health       what is known about one connection: state, reason, last error, its queue's ledger, its drain
health_port  a connection's own health port, for probes that can be told an address and no path
in_hand      what is taken from the queue and not committed yet, in order; which of it is suspected
outbound     what of an uplink goes out over a connection, and in which form: validity, flow and format
states       the states of a connection, and which may follow which
state_lines  what is said of a connection's state: in pairs, and no flood of them
watches      when a connection's certificates end, and whether its uplinks come often enough

Imports downlinks, codecs, connector, spool, config, wire; the ground is open to all.
"""
