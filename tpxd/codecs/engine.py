"""Runs payload scripts, each call in a context of its own: JSON in, JSON out. The only importer of quickjs.

This half never awaits: it is what a worker process runs (`codecs.workers`), one batch a crossing. A script finds what
`runtime/harness.js` puts around it, and nothing of the host. A context ends with its call, so nothing that one message
leaves behind is seen by the next; that costs about half a millisecond, most of it for parsing the script.

Limits: processor time, memory and stack are the engine's own. It looks at the time between its own steps only; one
long step of a built-in function (`Array.join` over a sparse list) is ended by whoever watches the worker's clock.

Source: LoRa Alliance TS013-1.0.0 (payload codec API); the driver guide of Actility's device catalogue for signatures.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import quickjs

Operation = Literal["decodeUplink", "encodeDownlink", "decodeDownlink", "extractPoints", "names"]
Signature = Literal["lora-alliance", "actility", "ttn", "chirpstack"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may use.

    Attributes:
        cpu_s: processor time.
        wall_s: time by the clock, from when a worker has it.
        memory_bytes: of the script's heap.
        stack_bytes: of its calls.
        result_characters: of its result as JSON.
    """

    cpu_s: float = 1.0
    wall_s: float = 2.0
    memory_bytes: int = 32 * 1024 * 1024
    stack_bytes: int = 512 * 1024
    result_characters: int = 300_000


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a script.

    Attributes:
        source: the script's text.
        input: what its function gets, of JSON's types; `recvTime` becomes a Date.
        context: what the script's device kept from its last call, where its driver asks for that.
    """

    source: str
    signature: Signature
    operation: Operation
    input: Mapping[str, Any]
    context: list[Any] | None = None


FailureKind = Literal["load", "missing", "threw", "told", "result", "stopped"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call gave no result.

    Attributes:
        kind: "load": the script cannot be run at all; "missing": it has no such function; "threw"; "told": it returned
            `errors`; "result": what it returned is no result; "stopped": a limit ended it.
        text: for people, one line.
        place: line and column in the script, from 1, where known.
    """

    kind: FailureKind
    text: str
    place: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call: a result or a failure.

    Attributes:
        result: `{"data", "warnings"}` of a decoder, `{"bytes", "fPort"}` of an encoder, names of functions for "names";
            beside a failure of the kind "told", all that the script returned.
        logs: what the script wrote to its console.
        context: what its device keeps, None where it keeps nothing.
        cpu_s: what it cost.
    """

    result: Any = None
    failure: Failure | None = None
    logs: tuple[str, ...] = ()
    context: list[Any] | None = None
    cpu_s: float = 0.0


def run_batch(calls: Sequence[Call], limits: Limits) -> list[Outcome]:
    """Run calls one after the other until their time by the clock is used up.

    Returns:
        An outcome for each of the first calls, at least one; the others were not begun.
    """
    outcomes: list[Outcome] = []
    began = time.monotonic()
    for call in calls:
        if outcomes and time.monotonic() - began > limits.wall_s / 2:
            break
        outcomes.append(run_call(call, limits))
    return outcomes


def run_call(call: Call, limits: Limits) -> Outcome:
    """Run one call in a context of its own; whatever the script does, this returns."""
    began = time.process_time()
    try:
        answer = _read(_answer(call, limits))
    except quickjs.JSException as error:  # the engine itself gave up: a script's own exceptions end in the harness
        answer = {"error": _limit_of(str(error), limits), "kind": "stopped"}
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        answer = {"error": f"the result is no JSON: {error}", "kind": "result"}
    failure = None
    if "error" in answer:
        place = answer.get("place")
        failure = Failure(answer["kind"], _line(answer["error"]), _within(call.source, *place) if place else None)
        if (limit := _limit_of(answer["error"], limits)) != answer["error"]:
            failure = Failure("stopped", limit, failure.place)
    return Outcome(
        answer.get("result"),
        failure,
        tuple(answer.get("logs", ())),
        answer.get("context"),
        time.process_time() - began,
    )


def _answer(call: Call, limits: Limits) -> str:
    context = quickjs.Context()
    context.set_memory_limit(limits.memory_bytes)
    context.set_max_stack_size(limits.stack_bytes)
    context.set_time_limit(limits.cpu_s)
    wants_ciphers = "crypto" in call.source or "aes-cmac" in call.source
    if wants_ciphers or "Buffer" in call.source or "buffer" in call.source:
        context.eval(_runtime("buffer.js"))
    job: dict[str, Any] = {
        "source": call.source,
        "signature": call.signature,
        "op": call.operation,
        "input": call.input,
        "most": limits.result_characters,
    }
    if call.context is not None:
        job["context"] = call.context
    ciphers = _runtime("crypto.js") if wants_ciphers else "null"
    # ASCII JSON is a JavaScript literal too, and no byte of it can end the text early
    text = json.dumps(json.dumps(job))
    answer = context.eval(f"{_runtime('harness.js')}({text}, {ciphers})")
    assert isinstance(answer, str)
    return answer


def _within(source: str, line: int, column: int) -> tuple[int, int]:
    """The place in the script; its end, where it lacks something that what follows it does not bring."""
    lines = source.splitlines() or [""]
    return (line, column) if line <= len(lines) else (len(lines), len(lines[-1]) + 1)


def _read(answer: str) -> Any:
    """The answer's JSON; half a character, which JavaScript's texts may hold and UTF-8 cannot, is replaced."""
    found = json.loads(answer)
    if "\\ud" in answer:
        whole = json.dumps(found, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
        found = json.loads(whole.decode("utf-16-le", "replace"))
    return found


@cache
def _runtime(name: str) -> str:
    return files("tpxd.codecs").joinpath("runtime", name).read_text().rstrip().removesuffix(";")


def _limit_of(error: str, limits: Limits) -> str:
    """In the operator's words, which limit an engine's error speaks of; other errors as they are."""
    if error.startswith("InternalError: interrupted"):
        return f"stopped after {limits.cpu_s:g} s of processor time"
    if "out of memory" in error:
        return f"stopped at {limits.memory_bytes >> 20} MiB of memory"
    if "Maximum call stack" in error or "stack overflow" in error:
        return f"stopped at {limits.stack_bytes >> 10} KiB of stack: it calls itself too deeply"
    return error


def _line(text: str) -> str:
    return " ".join(text.split()) or "an error without a text"
