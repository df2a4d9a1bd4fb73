from __future__ import annotations

import pytest

from tpxd.control.guard import Asked, refusal

LOCAL = [(b"host", b"127.0.0.1:8091")]
TOKEN = "s3cret-tökén"


def status(
    method: str = "POST",
    path: str = "/reload",
    headers: list[tuple[bytes, bytes]] | None = None,
    peer: str | None = "127.0.0.1",
    token: str = "",
) -> int | None:
    refused = refusal(Asked(method, path, LOCAL if headers is None else headers, peer), token)
    return None if refused is None else refused.status


@pytest.mark.parametrize("token", ["", TOKEN])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/", "/health", "/health/live", "/health/plant", "/metrics", "/assets/page.js"])
def test_health_and_metrics_answer_everyone(path: str, method: str, token: str) -> None:
    assert status(method, path, [(b"host", b"edge.example")], "192.0.2.7", token) is None


@pytest.mark.parametrize("path", ["/events", "/connections", "/healthy", "/metricsx", "/reload", "//", "/x/health/"])
def test_nothing_else_does(path: str) -> None:
    assert status("GET", path, peer="192.0.2.7") == 403
    assert status("GET", path, peer="192.0.2.7", token=TOKEN) == 401


def test_health_is_only_read_by_everyone() -> None:
    assert status("POST", "/health", peer="192.0.2.7") == 403
    assert status("DELETE", "/", peer="192.0.2.7", token=TOKEN) == 401


def bearer(value: str) -> list[tuple[bytes, bytes]]:
    return [*LOCAL, (b"authorization", value.encode())]


@pytest.mark.parametrize("value", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN} "])
@pytest.mark.parametrize("peer", ["127.0.0.1", "192.0.2.7", None])
def test_the_right_token_opens(value: str, peer: str | None) -> None:
    assert status(headers=bearer(value), peer=peer, token=TOKEN) is None


@pytest.mark.parametrize(
    "headers",
    [
        LOCAL,
        bearer(""),
        bearer("Bearer"),
        bearer("Bearer "),
        bearer(f"Bearer {TOKEN}x"),
        bearer(f"Bearer {TOKEN[:-1]}"),
        bearer(f"Basic {TOKEN}"),
        bearer(TOKEN),
        [*bearer(f"Bearer {TOKEN}"), *bearer("Bearer x")],
    ],
)
@pytest.mark.parametrize("peer", ["127.0.0.1", None])
def test_anything_else_does_not(headers: list[tuple[bytes, bytes]], peer: str | None) -> None:
    assert status(headers=headers, peer=peer, token=TOKEN) == 401


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8091", "127.0.0.1:8091", "[::1]:8091", "[::1]"])
def test_without_a_token_this_machine_is_answered(peer: str, host: str) -> None:
    assert status(headers=[(b"host", host.encode())], peer=peer) is None


@pytest.mark.parametrize("peer", ["192.0.2.7", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "", "localhost"])
def test_without_a_token_no_other_machine_is(peer: str) -> None:
    assert status(peer=peer) == 403


@pytest.mark.parametrize("header", [b"x-forwarded-for", b"forwarded"])
def test_a_proxy_on_this_machine_does_not_make_its_clients_local(header: bytes) -> None:
    assert status(headers=[*LOCAL, (header, b"for=127.0.0.1")]) == 403


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [b"evil.example"],
        [b"evil.example:8091"],
        [b"localhost.evil.example"],
        [b"127.0.0.1.evil.example"],
        [b"127.0.0.1:80@evil.example"],
        [b"[::1].evil.example"],
        [b"192.0.2.7:8091"],
        [b"localhost", b"localhost"],
        [b""],
    ],
)
def test_a_name_that_was_rebound_to_this_machine_is_refused(hosts: list[bytes]) -> None:
    assert status(headers=[(b"host", host) for host in hosts]) == 403


@pytest.mark.parametrize(
    ("header", "value", "expected"),
    [
        (b"origin", b"http://127.0.0.1:8091", None),
        (b"origin", b"http://127.0.0.1:3000", 403),
        (b"origin", b"https://evil.example", 403),
        (b"origin", b"null", 403),
        (b"sec-fetch-site", b"same-origin", None),
        (b"sec-fetch-site", b"none", None),
        (b"sec-fetch-site", b"cross-site", 403),
        (b"sec-fetch-site", b"same-site", 403),
    ],
)
def test_a_foreign_page_is_refused(header: bytes, value: bytes, expected: int | None) -> None:
    assert status(headers=[*LOCAL, (header, value)]) == expected


def test_the_socket_asks_for_nothing_where_no_token_is_set() -> None:
    assert status(headers=[(b"host", b"anything")], peer=None) is None


def test_a_refusal_says_what_to_do_and_repeats_no_token() -> None:
    elsewhere = refusal(Asked("POST", "/reload", LOCAL, "192.0.2.7"), "")
    assert elsewhere is not None
    assert '"token" in [control]' in elsewhere.message
    wrong = refusal(Asked("POST", "/reload", bearer("Bearer guess"), None), TOKEN)
    assert wrong is not None
    assert "guess" not in wrong.message
    assert TOKEN not in wrong.message
