"""Payload scripts: what devices send, decoded; what applications want, encoded.

engine     runs a script: JSON in, JSON out, within limits; the only importer of quickjs
runtime/   what a script finds around it, in JavaScript: harness, Buffer, ciphers
workers    the processes that scripts run in, and what happens when one overruns
catalogue  the drivers that may be used now, by all their names
decoding   each uplink decoded once per driver, however many connections want it
drivers    the drivers of a directory: found and read
vectors    the examples that driver packages bring along
"""
