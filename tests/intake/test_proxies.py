"""Who sent a request that came through reverse proxies."""

from __future__ import annotations

from ipaddress import ip_network

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.intake.doubles import BODY, MemoryStore
from tests.intake.serving import serving
from tpxd.intake.proxies import Proxies
from tpxd.wire.http import Request

PROXIES = Proxies([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])
PROXY = "10.0.0.1"


def sender(peer: str = PROXY, proxies: Proxies = PROXIES, **headers: str) -> str:
    named = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
    return proxies.named(Request("POST", "/uplink", "", named, b"", peer)).peer


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("198.51.100.9, 192.0.2.7", "192.0.2.7"),
        ("198.51.100.9, 192.0.2.7, 10.2.3.4", "192.0.2.7"),
        ("192.0.2.7:4711", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, fd00::1", "192.0.2.7"),
        ("10.9.9.9, 10.2.3.4", "10.9.9.9"),
        ("192.0.2.7, unknown", PROXY),
        ("192.0.2.7, unknown, 10.2.3.4", "10.2.3.4"),
        ("192.0.2.7,", PROXY),
        ("", PROXY),
        ("é", PROXY),
    ],
)
def test_the_rightmost_entry_that_is_no_trusted_proxy(told: str, expected: str) -> None:
    assert sender(x_forwarded_for=told) == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("for=192.0.2.7", "192.0.2.7"),
        ('For="[2001:db8::7]:4711";proto=https', "2001:db8::7"),
        ('by=10.0.0.1; for="192.0.2.7:80"', "192.0.2.7"),
        ("for=198.51.100.9, for=192.0.2.7, for=10.2.3.4", "192.0.2.7"),
        ('for="198.51.100.9, for=192.0.2.7', "192.0.2.7"),
        ("for=192.0.2.7, for=_hidden", PROXY),
        ("for=192.0.2.7, proto=https", PROXY),
        ('for=192.0.2.7;host="x,for=198.51.100.9;a="', PROXY),
        ("notfor=192.0.2.7", PROXY),
    ],
)
def test_forwarded_says_the_same(told: str, expected: str) -> None:
    assert sender(forwarded=told) == expected


def test_only_trusted_proxies_are_believed() -> None:
    assert sender("192.0.2.1", x_forwarded_for="192.0.2.7") == "192.0.2.1"
    assert sender(proxies=Proxies([]), x_forwarded_for="192.0.2.7") == PROXY
    assert sender("not an address", x_forwarded_for="192.0.2.7") == "not an address"
    assert sender("::ffff:10.0.0.1", x_forwarded_for="192.0.2.7") == "192.0.2.7"
    assert sender() == PROXY


def test_two_headers_that_disagree_are_one_too_many() -> None:
    assert sender(x_forwarded_for="192.0.2.7", forwarded="for=192.0.2.7") == "192.0.2.7"
    assert sender(x_forwarded_for="192.0.2.7", forwarded="for=192.0.2.8") == PROXY


@given(st.text(alphabet="10.2,:[]fd \"'for=;unkow_é", max_size=80))
def test_whatever_is_told_somebody_is_the_peer(told: str) -> None:
    assert sender(x_forwarded_for=told, forwarded=told)


async def test_intake_knows_its_proxies() -> None:
    headers = {"X-Forwarded-For": "192.0.2.7"}
    for trusted, expected in ((["127.0.0.0/8", "::1"], "192.0.2.7"), ([], "127.0.0.1")):
        async with (
            serving(MemoryStore(), trusted_proxies=trusted) as (intake, address),
            httpx.AsyncClient(headers=headers) as client,
        ):
            assert (await client.post(f"http://{address}/uplink", content=BODY[1:])).status_code == 400
        assert intake.counters.to_document()["refused"]["report"]["last"]["peer"] == expected


@pytest.mark.parametrize("coding", ["gzip", "identity", "br, gzip", ""])
async def test_an_encoded_body_is_refused_and_told(coding: str) -> None:
    store = MemoryStore()
    async with serving(store) as (intake, address), httpx.AsyncClient() as client:
        answer = await client.post(f"http://{address}/uplink", content=BODY, headers={"Content-Encoding": coding})
    assert (answer.status_code, answer.headers["accept-encoding"], store.stored) == (415, "identity", [])
    assert intake.counters.to_document()["refused"]["encoding"]["count"] == 1
