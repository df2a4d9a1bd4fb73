"""What a demo's directory holds: settings and two connections, as a user would write them."""

from __future__ import annotations

import secrets
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tpxd.simulate.downlink_rules import PATH
from tpxd.simulate.lrc import DEFAULT_AS_ID

SETTINGS = """\
# The settings of this demo's daemon. They are read once, at its start.
state_dir = "state"

[intake]
listen = "{intake}"
public_url = "http://{intake}"

[lrc]
tunnel_keys = {{ "{as_id}" = "{key}" }}
downlink_url = "http://{lrc}{downlink_path}"
as_id = "{as_id}"
as_key = "{key}"

[control]
listen = "{control}"

[spool]
max_size = "64 MiB"
min_free = "0 B"

[broker]
enabled = true
listen = "{broker}"
"""

BROKER = """\
# To the embedded MQTT broker. Change something and save: the connection follows within a moment.
connectorId = "actility-mqtt-iot"
name = "Embedded broker"
active = true

[configuration]
hostName = "{broker}"
protocol = "TCP"
uplinkTopicPattern = "demo/{{DevEUI}}/uplink"
downlinkTopicPattern = "demo/{{DevEUI}}/downlink"
uplinkTimeValidity = "1h"
"""

RECEIVER = """\
# To a web server in the demo. Break the URL to see uplinks wait, mend it to see them go.
connectorId = "actility-http-iot"
name = "Web server"
active = true

[configuration]
destinationURL = "http://{receiver}{uplink_path}"
headers = {{ X-Device = "{{DevEUI}}" }}
uplinkTimeValidity = "1h"
"""

UPLINK_PATH = "/uplinks"


@dataclass(frozen=True, slots=True)
class Scene:
    """Where everything is; addresses are `host:port`.

    Attributes:
        lrc: where the simulated LRC takes downlinks.
        key: signs uplinks and downlinks, made for this demo only.
    """

    directory: Path
    intake: str
    control: str
    broker: str
    receiver: str
    lrc: str
    key: str = field(repr=False)

    @property
    def log(self) -> Path:
        """Where the daemon's log goes."""
        return self.directory / "tpxd.log"


def set_scene(directory: Path) -> Scene:
    """Choose free ports and write the files.

    Raises:
        OSError: the directory, which must exist, cannot be written.
    """
    intake, control, broker, receiver, lrc = free_addresses(5)
    scene = Scene(directory.absolute(), intake, control, broker, receiver, lrc, secrets.token_hex(16))
    values = {
        "intake": intake,
        "control": control,
        "broker": broker,
        "receiver": receiver,
        "lrc": lrc,
        "downlink_path": PATH,
        "key": scene.key,
        "as_id": DEFAULT_AS_ID,
        "uplink_path": UPLINK_PATH,
    }
    connections = directory / "connections.d"
    connections.mkdir()
    settings = directory / "tpxd.toml"
    settings.touch(mode=0o600)
    settings.write_text(SETTINGS.format_map(values))
    (connections / "broker.toml").write_text(BROKER.format_map(values))
    (connections / "web.toml").write_text(RECEIVER.format_map(values))
    return scene


def free_addresses(count: int) -> list[str]:
    """So many different TCP addresses of loopback that are free now; another program may be quicker to use one."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
