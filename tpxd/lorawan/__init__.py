"""The field's words, pure: reports, tokens, patterns, durations. Nothing here awaits, opens or logs.

bounded_regex     regular expressions of a file that meet what a device or its owner wrote
downlink_request  what the LRC is asked over its tunnel interface, and what its answers mean
downlinks         downlinks as applications send them: `DevEUI_downlink`, with or without its root key
durations         durations and sizes as people write them in a file, and durations as tpxd writes them back
expressions       what stands between the braces of a pattern: which value of an uplink it names
fields            the names that stand in reports, and which of them was meant where one is nearly right
json_path         JSONPath over reports, for patterns and matchers
json_reports      the LRC's JSON, and how much of it: what is larger than any report is refused before it costs much
on_air            what the LRC's reports about a downlink say became of it on the air, in words
patterns          patterns such as `plant/{DevEUI}/uplink`: topics, routing keys and header values made from an uplink
reports           reports as the LRC posts them: one root key that names the type, and the fields inside it
token             tokens: how the LRC and an application server prove to each other that they hold the same key
uplink            what the spool stores and a connection sends: one report, as the LRC sent it
xml_reports       the LRC's XML, turned into what it writes when an AS asks for JSON

Imports errors; open to all.
"""
