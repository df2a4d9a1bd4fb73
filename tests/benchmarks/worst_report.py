"""How long the worst body takes that a stranger may send: `python -m tests.benchmarks.worst_report [--seconds 60]`.

Every body is as long as the default max_body allows. A search begins with patterns that are known to be bad for some
parser (many values, deep nesting, namespaces, attributes, escapes, long numbers), repeats and joins parts of them,
keeps the slowest, and goes on from there. What is timed is everything that happens before the Token is computed.
The figure to reach is 20 ms.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tpxd.errors import ReportError
from tpxd.lorawan.reports import parse_report

SIZE = 256 * 1024
KEPT = 12

JSON = (
    (b'{"x":{"a":[', b"[],", b"0]}}"),
    (b'{"x":{"a":[', b"{},", b"0]}}"),
    (b'{"x":{"a":[', b'{"":0},', b"0]}}"),
    (b'{"x":{"a":[', b"0.12345678901234567e-300,", b"0]}}"),
    (b'{"x":{"a":[', b"1" * 300 + b".5,", b"0]}}"),
    (b'{"x":{"a":{', b'"":0,', b'"":0}}}'),
    (b'{"x":{"a":"', b"\\u00e9", b'"}}'),
    (b'{"x":{"a":"', b"\\n", b'"}}'),
    (b'{"x":{"a":[', b'"\\u003a:",', b"0]}}"),
    (b'{"x":{"a":[', b'["",{"b":[[{}]]}],', b"0]}}"),
    (b'{"x":{"a":', b" ", b"0}}"),
    (b'{"x":{"a":[', b"[" * 50 + b"]" * 50 + b",", b"0]}}"),
)
XML = (
    (b"<x>", b"<a/>", b"</x>"),
    (b"<x>", b"<a>1</a>", b"</x>"),
    (b"<x>", b"<a>&#65;</a>", b"</x>"),
    (b"<x>", b"&amp;", b"</x>"),
    (b"<x>", b"<!---->", b"</x>"),
    (b"<x>", b"<?a?>", b"</x>"),
    (b"<x>", b"\n", b"</x>"),
    (b"<x>", b"<![CDATA[]]>", b"</x>"),
    (b"<x>", b"<CustomerData>[[],[],[],[]]</CustomerData>", b"</x>"),
    (b"<x><CustomerData>[", b"[],", b"0]</CustomerData></x>"),
    (b"<x><CustomerData>[", b"&#91;&#93;&#44;", b"0]</CustomerData></x>"),
    (b"<x>", b"<Lrr><Lrr><Lrr/></Lrr></Lrr>", b"</x>"),
    (b"<x>", b"<FCntUp>1.5</FCntUp>", b"</x>"),
    (b"<x>", b'<a b="c"/>', b"</x>"),
    (b"<x ", b'a="" ', b"/>"),
    (b'<x xmlns="' + b"u" * 100_000 + b'">', b"<a/>", b"</x>"),
    (b'<x xmlns:p="' + b"u" * 100_000 + b'">', b"<p:a/>", b"</x>"),
    (b'<?xml version="1.0" encoding="windows-1252"?><x>', b"\xe9", b"</x>"),
)


@dataclass(frozen=True, slots=True)
class Body:
    """What comes first, what is repeated (a `%x` becomes a number that counts up), what comes last."""

    before: bytes
    unit: bytes
    after: bytes

    def bytes(self) -> bytes:
        """As long as it may be."""
        room = SIZE - len(self.before) - len(self.after)
        if b"%x" not in self.unit:
            return self.before + self.unit * max(0, room // max(1, len(self.unit))) + self.after
        units, length = [], 0
        for number in range(SIZE):
            unit = self.unit.replace(b"%x", b"k%x" % number)
            length += len(unit)
            if length > room:
                break
            units.append(unit)
        return self.before + b"".join(units) + self.after


def seeds() -> Iterator[Body]:
    """What a search begins with; names that count up too."""
    for before, unit, after in JSON + XML:
        yield Body(before, unit, after)
        for old, new in ((b'""', b'"%x"'), (b"<a", b"<%x"), (b"</a", b"</%x"), (b" b=", b" %x="), (b"a=", b"%x=")):
            unit = unit.replace(old, new)
        yield Body(before, unit, after)


def changed(body: Body, other: Body, choose: random.Random) -> Body:
    """A relative of a body."""
    unit = bytearray(body.unit)
    match choose.randrange(5):
        case 0:
            unit *= choose.choice((2, 8, 64))
        case 1:
            unit += other.unit
        case 2 if unit:
            at = choose.randrange(len(unit))
            unit[at : at + choose.randrange(4)] = other.unit[: choose.randrange(4)]
        case 3 if unit:
            del unit[choose.randrange(len(unit)) :]
        case _:
            return Body(other.before, body.unit, other.after)
    return Body(body.before, bytes(unit[:SIZE]), body.after)


def cost_ms(body: bytes) -> tuple[float, str]:
    """The quicker of two times, so that a busy machine does not count, and what became of the body."""
    times = []
    outcome = ""
    for _ in range(2):
        began = time.perf_counter()
        try:
            parse_report(body)
        except ReportError as error:
            outcome = error.message
        times.append(time.perf_counter() - began)
    return min(times) * 1e3, outcome


def search(seconds: float, seed: int) -> list[tuple[float, Body, str]]:
    """The slowest bodies that were found, the worst first."""
    choose = random.Random(seed)
    kept = sorted(((*cost_ms(body.bytes())[:1], body) for body in seeds()), key=lambda each: -each[0])[: 2 * KEPT]
    ends, tried = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        (_, one), (_, other) = choose.choice(kept), choose.choice(kept)
        body = changed(one, other, choose)
        cost, tried = cost_ms(body.bytes())[0], tried + 1
        if cost > kept[-1][0] and all(body != known for _, known in kept):
            kept = sorted([*kept, (cost, body)], key=lambda each: -each[0])[: 2 * KEPT]
    print(f"{tried} bodies of {SIZE} bytes tried, seed {seed}")
    again = [(*cost_ms(body.bytes()), body) for _, body in kept]
    return sorted(((cost, body, outcome) for cost, outcome, body in again), key=lambda each: -each[0])[:KEPT]


def main() -> None:
    """Search and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=60.0)
    arguments.add_argument("--seed", type=int, default=8090)
    chosen = arguments.parse_args()
    for cost, body, outcome in search(chosen.seconds, chosen.seed):
        print(f"{cost:7.2f} ms  {body.before[:24]!r} {body.unit[:48]!r} {body.after[:16]!r}: {outcome[:60] or 'taken'}")


if __name__ == "__main__":
    main()
