"""Fuzzes one target for a while: `python -m tests.fuzz.one TARGET SECONDS [DIRECTORY]`; see `tests.fuzz`.

With atheris (libFuzzer) inputs are made to reach new code; without it Hypothesis changes the kept ones. New inputs that
reach new code go into the directory, when one is given.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory

from tests.fuzz.seeds import CORPUS, kept

LONGEST = 4_096


def main() -> None:
    """Fuzz until the time is over; the input that is a finding is left beside, and the exit code is not 0."""
    name, seconds, *into = sys.argv[1:]
    with TemporaryDirectory() as directory:
        if importlib.util.find_spec("atheris"):
            with_atheris(name, float(seconds), into[0] if into else directory)
        else:
            with_hypothesis(name, float(seconds))


def target(name: str) -> Callable[[bytes], None]:
    """The function of this name; imported late, so that what it imports can be instrumented."""
    found: Callable[[bytes], None] = importlib.import_module("tests.fuzz.targets").TARGETS[name]
    return found


def with_atheris(name: str, seconds: float, into: str) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["tpxd"]):
        run = target(name)
    options = [f"-max_total_time={max(1, round(seconds))}", f"-max_len={LONGEST}", "-timeout=10", "-rss_limit_mb=2048"]
    options += ["-artifact_prefix=finding-", "-print_final_stats=1", "-verbosity=0", "-close_fd_mask=0"]
    atheris.Setup(["fuzz", *options, into, str(CORPUS / name)], run)
    atheris.Fuzz()


def with_hypothesis(name: str, seconds: float) -> None:
    """Change the kept inputs a little, again and again."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    run, ends, count = target(name), time.monotonic() + seconds, 0
    edits = st.lists(st.tuples(st.integers(0, LONGEST), st.integers(0, 8), st.binary(max_size=8)), max_size=6)

    @settings(max_examples=10**9, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(st.sampled_from(kept(name)), edits)
    def fuzz(seed: bytes, edits: list[tuple[int, int, bytes]]) -> None:
        nonlocal count
        if time.monotonic() > ends:
            raise TimeoutError
        data = bytearray(seed)
        for at, length, new in edits:
            data[at % (len(data) + 1) : at % (len(data) + 1) + length] = new
        count += 1
        run(bytes(data))

    try:
        fuzz()
    except TimeoutError:
        print(f"stat::number_of_executed_units: {count}", file=sys.stderr)


if __name__ == "__main__":
    main()
