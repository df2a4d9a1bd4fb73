"""The Buffer and the ciphers that scripts find, against Node's documentation and NIST's vectors."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpxd.codecs.engine import Call, Limits, run_call

LIMITS = Limits()


def value_of(expression: str, **given: Any) -> Any:
    source = f"function decodeUplink(input) {{ return {{data: {{v: ({expression})}}}}; }} // Buffer crypto"
    outcome = run_call(Call(source, "lora-alliance", "decodeUplink", given), LIMITS)
    assert outcome.failure is None, outcome.failure
    return outcome.result["data"].get("v")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("Buffer.from('00ff', 'hex').readUInt16BE(0)", 255),
        ("Buffer.from('00ff', 'hex').readInt16LE(0)", -256),
        ("Buffer.from([1, 2, 3]).slice(1).toString('hex')", "0203"),
        ("Buffer.from('aé€😀').toString('base64')", "YcOp4oKs8J+YgA=="),
        ("Buffer.from('YcOp4oKs8J-YgA', 'base64url').toString()", "aé€😀"),
        ("Buffer.concat([Buffer.from([1]), Buffer.from('z')]).length", 2),
        ("new Buffer([1, 2]).readUInt16BE()", 258),
        ("Buffer.alloc(3, 'ab').toString()", "aba"),
        ("Buffer.isBuffer(Buffer.alloc(1)) && !Buffer.isBuffer(new Uint8Array(1))", True),
        ("Buffer.from([1, 2, 3]).equals(Buffer.from([1, 2, 3]))", True),
        ("JSON.stringify(Buffer.from([1]))", '{"type":"Buffer","data":[1]}'),
        ("Buffer.from(Buffer.from([7]).toJSON()).readUint8(0)", 7),
        ("Buffer.from([1, 2, 3, 4, 5, 6]).readUIntBE(0, 6)", 1_108_152_157_446),
        ("Buffer.from([255, 255, 255]).readIntLE(0, 3)", -1),
        ("Buffer.from('hello').indexOf('ll')", 2),
        ("Buffer.from([1, 2, 3, 4]).swap16().toString('hex')", "02010403"),
        ("Buffer.byteLength('é')", 2),
        ("(() => { var b = Buffer.alloc(4); b.writeInt32BE(-2, 0); return b.toString('hex'); })()", "fffffffe"),
        ("(() => { var b = Buffer.alloc(4); b.writeFloatLE(1.5, 0); return b.readFloatLE(0); })()", 1.5),
        ("(() => { try { Buffer.alloc(1).readUInt16LE(0); } catch (e) { return e.code; } })()", "ERR_OUT_OF_RANGE"),
        ("Buffer.from([0xc3, 0x28]).toString()", "\ufffd("),
        ("Buffer.from(input.bytes).reverse().subarray(1).toString('hex')", "0201"),
    ],
)
def test_the_buffer_does_what_nodes_does(expression: str, expected: Any) -> None:
    assert value_of(expression, bytes=[1, 2, 3]) == expected


@given(st.binary(max_size=40))
def test_bytes_come_back_from_every_encoding(content: bytes) -> None:
    there = "Buffer.from(input.bytes).toString(e)"
    trip = f"['hex', 'base64', 'base64url', 'latin1'].map(e => Buffer.from({there}, e).toString('hex'))"
    assert value_of(trip, bytes=list(content)) == [content.hex()] * 4


@given(st.text(max_size=40))
def test_text_is_utf_8_as_python_has_it(text: str) -> None:
    assert (
        value_of("Buffer.from(input.t).toString('hex')", t=text) == text.encode(errors="replace").hex()
        or "\ud800" in text
    )
    assert value_of("Buffer.from(input.h, 'hex').toString()", h=text.encode().hex()) == text


@given(st.binary(min_size=8, max_size=8))
def test_numbers_are_read_as_struct_reads_them(content: bytes) -> None:
    read = "[b.readUInt32LE(0), b.readInt32BE(4), b.readInt16LE(2), b.readInt8(7), b.readUIntLE(1, 5)]"
    got = value_of(f"(b => {read})(Buffer.from(input.bytes))", bytes=list(content))
    wanted = [
        struct.unpack_from("<I", content)[0],
        struct.unpack_from(">i", content, 4)[0],
        struct.unpack_from("<h", content, 2)[0],
        struct.unpack_from("b", content, 7)[0],
        int.from_bytes(content[1:6], "little"),
    ]
    assert got == wanted


KEY = "2b7e151628aed2a6abf7158809cf4f3c"
BLOCK = "6bc1bee22e409f96e93d7e117393172a"
SEQUENCE = "000102030405060708090a0b0c0d0e0f"


@pytest.mark.parametrize(
    ("mode", "iv", "expected"),
    [
        ("ecb", "", "3ad77bb40d7a3660a89ecaf32466ef97"),
        ("cbc", SEQUENCE, "7649abac8119b246cee98e9b12e9197d"),
        ("ctr", "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", "874d6191b620e3261bef6864990db6ce"),
    ],
    ids=["SP 800-38A F.1.1", "SP 800-38A F.2.1", "SP 800-38A F.5.1"],
)
def test_aes_is_as_nist_has_it_both_ways(mode: str, iv: str, expected: str) -> None:
    def coded(verb: str, data: str) -> Any:
        made = f"require('crypto').{verb}('aes-128-{mode}', Buffer.from('{KEY}', 'hex'), Buffer.from('{iv}', 'hex'))"
        return value_of(
            f"(c => {{ c.setAutoPadding(false); return c.update('{data}', 'hex', 'hex') + c.final('hex'); }})({made})"
        )

    assert coded("createCipheriv", BLOCK) == expected
    assert coded("createDecipheriv", expected) == BLOCK


def test_aes_with_256_bits_is_as_fips_197_has_it() -> None:
    key, plain = "".join(f"{n:02x}" for n in range(32)), "00112233445566778899aabbccddeeff"
    made = f"require('crypto').createCipheriv('aes-256-ecb', Buffer.from('{key}', 'hex'), null)"
    got = value_of(f"(c => {{ c.setAutoPadding(false); return c.update('{plain}', 'hex', 'hex'); }})({made})")
    assert got == "8ea2b7ca516745bfeafc49904b496089"


def test_padding_is_added_and_taken_away() -> None:
    iv = f"Buffer.from('{SEQUENCE}', 'hex')"
    key = f"Buffer.from('{KEY}', 'hex')"
    text = f"""(() => {{
        var c = require('crypto'), e = c.createCipheriv('aes-128-cbc', {key}, {iv});
        var hidden = Buffer.concat([e.update('seventeen letters'), e.final()]);
        var d = c.createDecipheriv('aes-128-cbc', {key}, {iv});
        var parts = [d.update(hidden.subarray(0, 5)), d.update(hidden.subarray(5)), d.final()];
        return [hidden.length, Buffer.concat(parts).toString()];
    }})()"""
    assert value_of(text) == [32, "seventeen letters"]


def test_ccm_is_as_sp_800_38c_has_it_and_refuses_a_wrong_tag() -> None:
    key, nonce = "404142434445464748494a4b4c4d4e4f", "1011121314151617"
    text = """(() => {
        var key = Buffer.from('%s', 'hex'), nonce = Buffer.from('%s', 'hex');
        var d = require('crypto').createDecipheriv('aes-128-ccm', key, nonce, {authTagLength: 6});
        d.setAAD(Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex'));
        d.setAuthTag(Buffer.from('%s', 'hex'));
        try { return d.update('d2a1f0e051ea5f62081a7792073d593d', 'hex', 'hex') + d.final('hex'); }
        catch (e) { return e.message; }
    })()"""
    assert value_of(text % (key, nonce, "1fc64fbfaccd")) == "202122232425262728292a2b2c2d2e2f"
    assert "authenticate" in value_of(text % (key, nonce, "1fc64fbfaccc"))


@pytest.mark.parametrize(
    ("message", "mac"),
    [
        ("", "bb1d6929e95937287fa37d129b756746"),
        (BLOCK, "070a16b46b4d4144f79bdd9dd04a287c"),
        (BLOCK + "ae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411", "dfa66747de9ae63030ca32611497c827"),
    ],
    ids=["RFC 4493, example 1", "RFC 4493, example 2", "RFC 4493, example 3"],
)
def test_cmac_is_as_rfc_4493_has_it(message: str, mac: str) -> None:
    got = value_of(f"require('node-aes-cmac').aesCmac(Buffer.from('{KEY}', 'hex'), Buffer.from('{message}', 'hex'))")
    assert got == mac
