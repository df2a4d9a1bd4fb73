"""The data plane: reports from the LRC come in here, and are answered when they are on disk.

counters     what intake accepted and refused, and whether that looks healthy
downlinks    `POST /iot-flow/downlinkMessages/{downlinkUuid}`: downlinks over HTTP, for every connection
places       who may keep a connection to intake, and whom to close out for the next one
proxies      whose request it is: the peer's, or, where the peer is a trusted proxy, that of whom the proxy names
routes       which request goes where: a table of paths and methods, matched strictly
seen_tokens  tokens that came before, so that a captured one is good for its own report alone
server       the data plane's server: its routes, its limits, its certificate
uplinks      `POST /uplink`: the LRC's tunnel interface, all report types, JSON or XML

Imports downlinks, codecs, spool, config, wire; the ground is open to all.
"""
