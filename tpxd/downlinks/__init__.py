"""A downlink, from where it came in to the LRC's answer and what is told about it.

book        every downlink that is kept, in memory: found by id, device, fingerprint and CorrelationID, and counted
customers   whose each device is, as its reports said: what goes back about a downlink names the customer too
documents   what is said about a downlink: the answer to whoever sent it, and what people are shown
doors       how a downlink comes in, whichever door it takes: a topic, a connection's downlinkUrl, or the control plane
inbox       the downlink side of a connection: messages from its far end become downlinks
lanes       what the LRC should get and is on disk: each device's oldest first, devices in turn
lrc_links   links to the LRC: one for each request that may be under way
lrc_reach   whether the LRC takes downlinks, and when to try it again; times in, decisions out
lrc_sender  sends downlinks to the LRC: each device's in order, devices in parallel, so many a second
queue       downlinks that survive: the book in memory, and the disk that is kept up with it
saving      keeps the disk up with downlinks that change in memory
urls        the address at which each connection takes downlinks over HTTP: made once, kept, and known to nobody else

Imports codecs, connector, spool, config, wire; the ground is open to all.
"""
