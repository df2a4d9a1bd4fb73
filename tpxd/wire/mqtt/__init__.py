"""MQTT 3.1.1.

client   an MQTT 3.1.1 client that never waits: bytes in, packets and bytes out
codec    MQTT 3.1.1 packets as bytes: what a client sends, and what a broker may send to it
session  the tasks around the client, which makes all decisions
"""
