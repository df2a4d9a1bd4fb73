"""Scripts as devices' makers write them, and as nobody should: each call ends, and the next one decodes."""

from __future__ import annotations

from typing import Any

import pytest

from tpxd.codecs.engine import Call, Limits, Operation, Outcome, Signature, run_batch, run_call

LIMITS = Limits(cpu_s=0.2, memory_bytes=16 << 20, stack_bytes=256 << 10, result_characters=10_000)
UPLINK = {"bytes": [0, 215], "fPort": 5, "recvTime": "2025-03-04T09:15:21.902+01:00"}
THERMO = "function decodeUplink(input) { return {data: {t: (input.bytes[0] << 8 | input.bytes[1]) / 10}}; }"


def run(
    source: str,
    operation: Operation = "decodeUplink",
    signature: Signature = "lora-alliance",
    *,
    context: list[Any] | None = None,
    **given: Any,
) -> Outcome:
    return run_call(Call(source, signature, operation, {**UPLINK, **given}, context), LIMITS)


def body(statements: str) -> Outcome:
    return run(f"function decodeUplink(input) {{ {statements} }}")


def test_a_decoder_gets_bytes_port_and_a_date() -> None:
    outcome = body("return {data: {n: input.bytes.length, p: input.fPort, at: input.recvTime.getTime()}};")
    assert outcome.result == {"data": {"n": 2, "p": 5, "at": 1_741_076_121_902}}
    assert outcome.failure is None


@pytest.mark.parametrize(
    "source", ["function decodeUplink(i) {\n  return {", "function decodeUplink(i) {\n  return {\n"]
)
def test_what_a_script_lacks_at_its_end_is_told_at_its_end(source: str) -> None:
    failure = run(source).failure
    assert failure is not None
    assert (failure.kind, failure.place) == ("load", (2, 11))


@pytest.mark.parametrize(
    ("signature", "source", "data"),
    [
        ("lora-alliance", THERMO, {"t": 21.5}),
        ("lora-alliance", "exports.decodeUplink = i => ({data: {n: i.bytes.length}})", {"n": 2}),
        ("lora-alliance", "module.exports = {decodeUplink(i) { return {data: {n: 2}}; }}", {"n": 2}),
        ("lora-alliance", "var driver = {n: 2, decodeUplink(i) { return {data: {n: this.n}}; }}", {"n": 2}),
        ("lora-alliance", "exports.driver = {decodeUplink: i => ({data: {n: 2}})}", {"n": 2}),
        ("lora-alliance", "const decodeUplink = i => ({data: {n: 2}}), other = 1", {"n": 2}),
        ("lora-alliance", "function Decoder(b, port) { return {n: b.length, port: port}; }", {"n": 2, "port": 5}),
        ("lora-alliance", "function Decode(port, b) { return {n: b.length, port: port}; }", {"n": 2, "port": 5}),
        ("lora-alliance", "function decodeUplink(i) { for (x of i.bytes) y = 010; return {data: {y: y}}; }", {"y": 8}),
        ("actility", "exports.decodeUplink = i => ({at: i.time instanceof Date})", {"at": True}),
        ("ttn", "function Decoder(b, port) { return {n: b.length, port: port}; }", {"n": 2, "port": 5}),
        ("chirpstack", "function Decode(port, b) { return {n: b.length, port: port}; }", {"n": 2, "port": 5}),
    ],
)
def test_every_signature_and_every_way_to_offer_a_function(
    signature: Signature, source: str, data: dict[str, Any]
) -> None:
    outcome = run(source, signature=signature)
    assert (outcome.result or {}).get("data") == data, outcome.failure


@pytest.mark.parametrize(
    ("signature", "source"),
    [
        ("lora-alliance", "function encodeDownlink(i) { return {bytes: [i.data.minutes, 300], fPort: 7}; }"),
        ("actility", "function encodeDownlink(o) { return {bytes: [o.minutes, 300], fPort: 7}; }"),
        ("ttn", "function Encoder(o, port) { return [o.minutes, 300]; }"),
        ("chirpstack", "function Encode(port, o) { return [o.minutes, 300]; }"),
    ],
)
def test_every_signature_encodes_and_bytes_wrap(signature: Signature, source: str) -> None:
    outcome = run(source, "encodeDownlink", signature, data={"minutes": 15}, fPort=7)
    assert outcome.result == {"bytes": [15, 44], "fPort": 7}, outcome.failure


def test_what_a_script_has_is_listed_without_calling_it() -> None:
    outcome = run("function decodeUplink() { for (;;); }\nexports.encodeDownlink = decodeUplink", "names")
    assert outcome.result == ["decodeUplink", "encodeDownlink"]


@pytest.mark.parametrize(
    ("statements", "kind", "text"),
    [
        ("for (;;);", "stopped", "processor time"),
        ("for (;;) { try { for (;;); } catch (e) {} finally { continue; } }", "stopped", "processor time"),
        ("eval('for (;;);')", "stopped", "processor time"),
        ("/^(a+)+$/.test('a'.repeat(40) + '!')", "stopped", "processor time"),
        ("var a = []; for (;;) a.push(new Array(1e6).fill(1));", "stopped", "16 MiB of memory"),
        ("var s = 'x'; for (;;) s += s;", "threw", "string too long"),
        ("(function f() { f(); })()", "stopped", "256 KiB of stack"),
        ("Object.prototype.toJSON = function () { for (;;); }; return {data: {}};", "stopped", "processor time"),
        ("return {get data() { for (;;); }};", "stopped", "processor time"),
        ("throw {toString() { for (;;); }, toJSON() { for (;;); }};", "stopped", "processor time"),
        ("throw new Error('boom');", "threw", "Error: boom"),
        ("throw null;", "threw", "null"),
        ("throw {get message() { throw 1; }, toString() { throw 2; }, toJSON() { throw 3; }};", "threw", "cannot be"),
        ("require('fs')", "threw", 'require("fs")'),
        ("return {errors: ['no such port', 'and more']};", "told", "no such port; and more"),
        ("return 5;", "result", "a number, not an object"),
        ("return [1];", "result", "a list, not an object"),
        ("return Promise.resolve({data: {}});", "result", "no data"),
        ("return {data: 'text'};", "result", "no data"),
        ("return {data: {a: 1n}};", "result", "no JSON"),
        ("var a = {}; a.a = a; return {data: a};", "result", "no JSON"),
        ("return {data: {x: 'x'.repeat(1e6)}};", "result", "1000028 characters"),
    ],
)
def test_what_goes_wrong_ends_says_why_and_leaves_the_next_call_alone(statements: str, kind: str, text: str) -> None:
    outcome = body(statements)
    assert outcome.result is None or kind == "told"
    assert outcome.failure is not None
    assert (outcome.failure.kind, text in outcome.failure.text) == (kind, True), outcome.failure
    assert run(THERMO).result == {"data": {"t": 21.5}}


def test_what_json_cannot_hold_is_null_and_half_a_character_is_escaped() -> None:
    outcome = body(r"return {data: {nan: NaN, inf: 1 / 0, none: undefined, half: '\ud800', nul: 'a\0b', e: 'é😀'}};")
    assert outcome.result == {"data": {"nan": None, "inf": None, "half": "\ufffd", "nul": "a\0b", "e": "é😀"}}


@pytest.mark.parametrize(
    "trick",
    [
        "globalThis.JSON = null; Array.prototype.push = null; Array.prototype.concat = null;",
        "Function.prototype.call = null; Function.prototype.apply = null; console.log(1);",
        "String.prototype.slice = null; Array.prototype.join = null; console.log(1);",
        "Array.isArray = () => { for (;;); }; Date.now = null; globalThis.eval = null;",
        "delete globalThis.exports; delete globalThis.module; globalThis.console = null;",
        "Object.freeze(Object.prototype); Object.freeze(Array.prototype);",
    ],
)
def test_what_a_script_does_to_built_ins_harms_only_itself(trick: str) -> None:
    assert body(trick + "return {data: {k: 1}};").result == {"data": {"k": 1}}
    assert run(THERMO).result == {"data": {"t": 21.5}}


def test_nothing_of_the_host_is_there() -> None:
    names = "['process', 'std', 'os', 'fetch', 'WebAssembly', 'Worker', 'setTimeout', 'Deno', '__crypto'].filter"
    assert body(f"return {{data: {{there: {names}(n => n in globalThis)}}}};").result == {"data": {"there": []}}


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("var a = 1;\nx = ", (2, 5)),
        ("\n\nfunction decodeUplink(i) {\n  return missing.x;\n}", (4, 10)),
        ("function decodeUplink(i) {\n  require('fs');\n}", (2, 3)),
    ],
)
def test_a_failure_tells_its_place_in_the_script(source: str, place: tuple[int, int]) -> None:
    failure = run(source).failure
    assert failure is not None
    assert failure.place is not None
    assert failure.place[0] in (place[0], place[0] + 1), failure  # a text that breaks off ends on the line behind it


def test_the_console_is_told_and_bounded() -> None:
    logs = body("for (var i = 0; i < 100; i++) console.log('line', {i: i}); return {data: {}};").logs
    assert (logs[0], len(logs), logs[-1]) == ('line {"i":0}', 51, "… and 50 more")
    assert max(map(len, body("console.error('x'.repeat(1e5)); return {data: {}};").logs)) == 500


def test_a_context_is_kept_for_the_driver_that_has_one() -> None:
    source = "function decodeUplink(i) { context.push(i.bytes[1]); return {data: {n: context.length}}; }"
    first = run(source, context=[])
    assert (first.result, first.context) == ({"data": {"n": 1}}, [215])
    assert run(source, context=first.context).result == {"data": {"n": 2}}
    assert run(source).failure is not None


def test_globals_end_with_their_call() -> None:
    source = "this.n = (this.n || 0) + 1; function decodeUplink(i) { return {data: {n: n}}; }"
    outcomes = run_batch([Call(source, "lora-alliance", "decodeUplink", UPLINK)] * 3, LIMITS)
    assert [outcome.result for outcome in outcomes] == [{"data": {"n": 1}}] * 3


def test_a_batch_begins_no_call_after_half_its_time() -> None:
    slow = Call("function decodeUplink() { for (;;); }", "lora-alliance", "decodeUplink", UPLINK)
    outcomes = run_batch([slow] * 20, Limits(cpu_s=0.05, wall_s=0.2))
    assert 1 <= len(outcomes) < 20


def test_points_are_extracted_from_what_was_decoded() -> None:
    source = THERMO + "function extractPoints(i) { return {t: {unitId: 'Cel', records: [{value: i.message.t}]}}; }"
    outcome = run(source, "extractPoints", message={"t": 21.5})
    assert outcome.result == {"data": {"t": {"unitId": "Cel", "records": [{"value": 21.5}]}}}
