"""One attack as a process of its own: `python -m tests.hostile.attack NAME SECONDS INTAKE CONTROL PORT DIRECTORY`.

It prints one JSON object: how often it hit, and what was answered.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import trio

from tests.hostile.far_ends import FLOODS, serve
from tests.hostile.senders import ATTACKS, Aim


async def attack(name: str, seconds: float, aim: Aim, port: int, identity: Path) -> None:
    """Attack for so long."""
    with trio.move_on_after(seconds):
        if name in FLOODS:
            await serve(name, port, aim, identity)
        else:
            await ATTACKS[name](aim)


def main() -> None:
    """See the module."""
    name, seconds, intake, control, port, identity = sys.argv[1:]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    aim = Aim(int(intake), int(control))
    trio.run(attack, name, float(seconds), aim, int(port), Path(identity))
    print(json.dumps({"count": aim.count, "answers": aim.answers}))


if __name__ == "__main__":
    main()
