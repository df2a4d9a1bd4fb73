"""tpxd: carries LoRaWAN uplinks from ThingPark's LRC over every connection that a TOML file declares.

The rooms, lowest first; a room imports itself and lower ones only:

    errors, events, barrier, lifeline, sdnotify
                       what every room may need; a small part of the ground each
    lorawan/           the field's words, pure: reports, tokens, patterns, durations
    wire/              bytes: streams, TLS, proxies, HTTP/1.1, MQTT, AMQP; no uplinks and no TOML
    config, secret, settings, toml_source, problems, log
    connection_file, alarms, flow, tls_config, link_config
                       what people type into tpxd.toml and connection files, and what is wrong with it
    spool/             durability: journal, cursors, ledger, dead letters, commands
    connector, topics, mqtt_transport, left_at_broker, aws_iot_config, aws_things
                       the contract that a connector implements, and what several connectors share
    connectors/        one technology, one file
    engine/            what makes a connection live: delivery, health, reload, commands
    intake/, control/  the data plane's and the control plane's HTTP
    daemon, daemon_state, embedded_broker
                       the process that nests all of it
    demo/              everything embedded, to look at
    cli/               the command line

Apart from all others, as programs of their own: simulate/, an LRC, and broker, a process for local applications.
"""

__version__ = "0.1.0"
