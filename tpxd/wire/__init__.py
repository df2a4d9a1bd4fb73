"""Bytes: streams, TLS, proxies, and protocols over them. No uplinks, no connections, no option names.

amqp/             AMQP 0-9-1
broker_link       the tasks of a session with a message broker: one reads, one writes, one keeps the link alive
flood             how much of what carries nothing a far end may send: pings, heartbeats, empty frames
http/             HTTP/1.1, both sides: parsers that never await, and the servers and clients around them
mqtt/             MQTT 3.1.1
next_steps        what an operator may do about a link, where that is a setting; the connectors know its name
open_files        how many files the process may have open, and who may take how many of them for peers
proxy             tunnels through an HTTP proxy: CONNECT
streams           byte streams to an endpoint: name look-up, TCP, proxy, TLS; each failure names its hop
tls               TLS contexts from PEM texts, shared between equal settings; certificates' dates
websocket         a byte stream over a WebSocket: binary messages, whose borders mean nothing (MQTT 3.1.1, 6)
websocket_frames  a server's WebSocket frames on their way to who understands them: judged, counted

Imports the ground only.
"""
