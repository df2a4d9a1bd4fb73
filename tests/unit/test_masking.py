"""What a far end repeats of our request is masked, in plain text and inside of JSON, and nothing else is touched."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpxd.log import MASK, QUOTED, masked, quoted

CANARY = "c4n4ry-0123456789abcdef"
HEX = "0123456789abcdef0123456789ABCDEF"

ECHOES = [
    f"no such path /in?LrnDevEui=1&Token={CANARY}&Time=x",
    f"token={CANARY}",
    f"access_token={CANARY} is wrong",
    f'{{"Token": "{CANARY}"}}',
    f"{{'token':'{CANARY}'}}",
    f"Authorization: Basic {CANARY}",
    f"authorization: {CANARY}",
    f"Proxy-Authorization=Bearer {CANARY}",
    f'headers: {{"Authorization": "Bearer {CANARY}", "X": 1}}',
    f"AS_KEY={HEX}",
    f'"as_key": "{HEX}"',
    f"asKey: {HEX}",
    f"redirected to https://user:{CANARY}@as.example.net/in",
    f"amqp://{CANARY}@broker",
    f'{{"DevEUI_uplink": {{}}, "downlinkUrl": "http://127.0.0.1:8090/iot-flow/downlinkMessages/{CANARY}"}}',
]


@pytest.mark.parametrize("text", ECHOES)
def test_what_is_echoed_is_masked_at_every_depth_of_json(text: str) -> None:
    for _ in range(3):
        shown = masked(text)
        assert CANARY not in shown
        assert HEX not in shown
        assert MASK in shown
        text = json.dumps({"message": text, "more": None})
        json.loads(masked(text))


@pytest.mark.parametrize(
    "text",
    [
        'this needs the token of [control]: send it as "Authorization: Bearer"',
        'put them into headers, such as Authorization = { credential = "name" }',
        "tpxd.toml:9:1: control.token: is missing; it is required",
        "tpxd.toml:9:1: lrc.as_key: is not a key of 32 hex digits; it has 5 characters",
        '{"refused":{"token":3},"as_key":null}',
        "http://as.example.net/in: 500, mail to admin@example.net",
    ],
)
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert masked(text) == text
    assert json.loads(masked(json.dumps(text))) == text


@given(st.dictionaries(st.text(max_size=5), st.text(st.sampled_from("token=:\"'\\ as_key@/authorization,0af"))))
def test_a_document_stays_a_document(document: dict[str, str]) -> None:
    shown = json.loads(masked(json.dumps(document)))
    assert len(shown) <= len(document)
    assert isinstance(shown, dict)


@pytest.mark.parametrize("before", [0, 150, 185, 190, 195, 199])
@pytest.mark.parametrize("text", ECHOES)
def test_what_is_quoted_is_masked_before_it_is_cut(before: int, text: str) -> None:
    shown = quoted("x" * before + " " + text + "\x1b[2J\r\n" + "y" * 5_000)
    assert not any(CANARY[:length] in shown for length in (6, 10)), shown
    assert len(shown) <= QUOTED
    assert shown.isprintable()
