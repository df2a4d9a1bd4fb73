"""A soak among enemies: `python -m tests.hostile [--minutes 5] [ATTACK …]`.

A daemon with Tokens checked carries the reports of an honest LRC, a hundred a second, to a Mosquitto, while each attack
in turn, and then all at once, does what it can. For each the table shows how often it hit, how long the honest posts
took, and the daemon's memory. At the end every report that was accepted must have arrived.

The daemon has one core, everybody else the other. To reach: honest p99 under 100 ms with all at once, under 200 MiB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks import load
from tests.benchmarks.daemon_bench import LOAD_CORE, mosquitto, rss_mib, running, scratch
from tests.daemon.harness import Daemon, eventually, mqtt_file
from tests.hostile.far_ends import FLOODS, file_for, identify
from tests.hostile.senders import ATTACKS
from tests.peers.ports import free_port

RATE = 100
CLIENTS = 8
ALL = "all at once"
WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attack did, and what became of the honest LRC beside it."""

    attack: str
    hits: int
    answers: str
    honest: dict[str, float]
    memory_mib: float


class Soak:
    """One daemon, and those around it."""

    def __init__(self, daemon: Daemon, directory: Path) -> None:
        self._daemon = daemon
        self._directory = directory
        identify(directory)
        self._posted = 0

    def beside(self, name: str, attacks: Sequence[str], seconds: float) -> Outcome:
        """Post honestly for so long while these attacks run."""
        with ExitStack() as stack:
            attackers = [stack.enter_context(self._attacking(attack, seconds + 2 * WARM_UP_S)) for attack in attacks]
            honest = self._post(max(RATE, int(seconds * RATE)))
            memory = rss_mib(self._daemon)
            said = [json.loads(attacker.communicate(timeout=seconds + 30)[0]) for attacker in attackers]
        missed = [attack for attack, each in zip(attacks, said, strict=True) if not each["count"] and len(attacks) == 1]
        assert not missed, f"{missed} hit nothing"
        answers: dict[str, int] = {}
        for each in said:
            for status, count in each["answers"].items():
                answers[status] = answers.get(status, 0) + count
        shown = " ".join(f"{status}:{count}" for status, count in sorted(answers.items()))
        return Outcome(name, sum(each["count"] for each in said), shown, honest, memory)

    @contextmanager
    def _attacking(self, name: str, seconds: float) -> Iterator[subprocess.Popen[str]]:
        """The attack as a process; for a far end with a connection that goes there."""
        port = free_port()
        ports = [str(each) for each in (self._daemon.intake, self._daemon.control, port)]
        argv = [
            "taskset",
            "-c",
            str(LOAD_CORE),
            sys.executable,
            "-m",
            "tests.hostile.attack",
            name,
            str(seconds),
            *ports,
            str(self._directory),
        ]
        attacker = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        id = name.replace("_", "-")
        try:
            if name in FLOODS:
                self._daemon.write(id, file_for(name, port))
            yield attacker
        finally:
            (self._daemon.connections / f"{id}.toml").unlink(missing_ok=True)
            attacker.kill()
            attacker.wait()

    def _post(self, count: int) -> dict[str, float]:
        first, self._posted = 1 + self._posted, self._posted + count
        argv = [sys.executable, "-m", "tests.benchmarks.load", str(self._daemon.intake), f"--clients={CLIENTS}"]
        argv += [f"--count={count}", f"--rate={RATE}", f"--first={first}", "--devices=1"]
        done = subprocess.run(["taskset", "-c", str(LOAD_CORE), *argv], check=True, capture_output=True, text=True)
        found: dict[str, float] = json.loads(done.stdout)
        assert found["refused"] == 0, found
        return found

    def all_arrived(self) -> None:
        """Everything that was accepted was delivered, and the daemon is well."""

        def delivered() -> bool:
            uplinks = self._daemon.uplinks("plant")
            assert uplinks["delivered"] == self._posted, (uplinks, self._posted)
            return True

        eventually("everything accepted has arrived", delivered, 60)
        assert self._daemon.get("/health/live")[0] == 200
        self._daemon.balanced("plant")


def main() -> None:
    """Run and print."""
    known: tuple[str, ...] = (*ATTACKS, *FLOODS)
    arguments = argparse.ArgumentParser(description=__doc__, prog="python -m tests.hostile")
    arguments.add_argument("attacks", nargs="*", choices=[[], *known], metavar="ATTACK", help=", ".join(known))
    arguments.add_argument("--minutes", type=float, default=5.0, help="for everything together, default 5")
    chosen: Any = arguments.parse_args()
    attacks: Sequence[str] = chosen.attacks or known
    turns = [("none", ()), *((each, (each,)) for each in attacks), (ALL, attacks)]
    seconds = chosen.minutes * 60 / len(turns)
    table = Table("attack", "hits", "honest p50", "p99", "worst", "memory", "answers")
    with ExitStack() as stack:
        directory = stack.enter_context(scratch())
        broker = stack.enter_context(mosquitto(directory))
        daemon = Daemon(directory, load.SETTINGS, plant=mqtt_file(broker))
        soak = Soak(stack.enter_context(running(daemon)), directory)
        daemon.opened("plant")
        for name, those in turns:
            outcome = soak.beside(name, those, seconds)
            honest = (f"{outcome.honest[key]:.1f} ms" for key in ("p50_ms", "p99_ms", "max_ms"))
            row = (name, f"{outcome.hits:,}", *honest, f"{outcome.memory_mib:.0f} MiB", outcome.answers)
            print("  ".join(row), flush=True)
            table.add_row(*row)
        soak.all_arrived()
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
