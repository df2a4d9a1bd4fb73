"""tpxd: carries LoRaWAN uplinks from ThingPark's LRC over every connection that a TOML file declares.

The rooms, lowest first; a module imports its own room and lower ones only:

    errors, lorawan/   the field's words, pure: reports, tokens, patterns, durations
    wire/              bytes: streams, TLS, HTTP/1.1, MQTT; no uplinks and no TOML
    spool/             durability: journal, cursors, ledger, dead letters
    connector.py       the contract that a connector implements
    connectors/        one technology, one file
    engine/            what makes a connection live: delivery, health, reload
    intake/, control/  the data plane's and the control plane's HTTP
    cli/, daemon.py    the command line, and the process that nests all of it
"""

__version__ = "0.1.0"
