"""Fuzzes every parser, each in a process of its own: `python -m tests.fuzz [TARGET …] [--seconds 60] [--keep]`.

An input that is a finding is left as `finding-…` in this directory; put it into tests/fuzz/corpus/TARGET with its mend.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time

from tests.fuzz.seeds import CORPUS

COUNTED = re.compile(r"stat::number_of_executed_units:\s*([0-9]+)")
PATIENCE_S = 240
"""For importing on a busy machine; an input that takes long is noticed by the fuzzer itself."""


def main() -> int:
    """Run the targets one after the other and print how many inputs each had; 1 when there was a finding."""
    targets = sorted(path.name for path in CORPUS.iterdir())
    arguments = argparse.ArgumentParser(description=__doc__, prog="python -m tests.fuzz")
    arguments.add_argument("targets", nargs="*", metavar="TARGET", help=f"one of {', '.join(targets)}; default all")
    arguments.add_argument("--seconds", type=float, default=60.0, help="for each target, default 60")
    arguments.add_argument("--keep", action="store_true", help="add inputs that reach new code to the corpus")
    chosen = arguments.parse_args()
    if unknown := set(chosen.targets) - set(targets):
        arguments.error(f"there is no target {', '.join(sorted(unknown))}")
    total, findings = 0, []
    for name in chosen.targets or targets:
        began = time.monotonic()
        count, finding = fuzz(name, chosen.seconds, keep=chosen.keep)
        total += count
        print(
            f"{name:16} {count:>10,} inputs in {time.monotonic() - began:5.1f} s{finding and '  A FINDING'}", flush=True
        )
        if finding:
            findings.append(name)
            print(finding, file=sys.stderr)
    print(f"{'':16} {total:>10,} inputs, findings: {', '.join(findings) or 'none'}")
    return 1 if findings else 0


def fuzz(name: str, seconds: float, *, keep: bool) -> tuple[int, str]:
    """How many inputs a target had, and what it said when one was a finding."""
    argv = [sys.executable, "-m", "tests.fuzz.one", name, str(seconds), *([str(CORPUS / name)] if keep else [])]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        return 0, f"{name} did not end"
    said = done.stdout + done.stderr
    counted = COUNTED.search(said)
    return int(counted[1]) if counted else 0, "" if done.returncode == 0 else said[-3_000:]


if __name__ == "__main__":
    sys.exit(main())
