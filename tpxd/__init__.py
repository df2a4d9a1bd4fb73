"""tpxd: carries LoRaWAN uplinks from ThingPark's LRC over every connection that a TOML file declares.

The rooms, top floor first; imports go down only, and `tests/unit/test_layers.py` holds who may import whom:

cli/         one file a command
demo/        everything embedded, to look at
daemon       builds the parts and nests them
control/     what people and programs ask the running daemon
reload/      files, what should run, what runs
connection/  one connection at work: open, deliver, commit, lose, wait
intake/      what comes in over HTTP: the LRC's reports, downlinkUrl
downlinks/   a downlink from where it came in to the LRC's answer
connectors/  a file or a folder a technology; parts/ for what several share
connector    the contract of a connector
codecs/      payload scripts: decoded, encoded
spool/       durability: journal, cursors, ledger, dead letters, downlinks
config/      what people type: TOML, settings, fields, secrets, problems with line and column
wire/        bytes: streams, TLS, proxies, HTTP/1.1, MQTT, AMQP
lorawan/     the field's words, pure
broker/      the embedded MQTT broker, a supervised child process
simulate/    a simulated LRC, both sides: it shares no code with the daemon that it tests

The ground, open to every room: errors, events, log, sdnotify, timing.
"""

__version__ = "0.1.0"
