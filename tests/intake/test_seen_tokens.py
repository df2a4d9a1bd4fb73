"""One Token, one body: for as long as the Token can be valid, and bounded."""

from __future__ import annotations

from hashlib import sha256

from tpxd.intake.seen_tokens import SeenTokens


def token(n: int) -> str:
    return sha256(b"%d" % n).hexdigest()


def test_the_same_body_again_and_another_one() -> None:
    seen = SeenTokens(120.0)
    assert seen.first_with(token(1), b"a", 0.0)
    assert seen.first_with(token(1), b"a", 1.0)
    assert not seen.first_with(token(1), b"b", 1.0)
    assert seen.first_with(token(2), b"b", 1.0)
    assert seen.first_with(token(1), b"a", 2.0)


def test_for_a_whole_window_and_not_for_ever() -> None:
    for first_s in range(0, 480, 7):
        seen = SeenTokens(120.0)
        for other_s in range(0, first_s, 5):
            assert seen.first_with(token(10_000 + other_s), b"a", other_s)
        assert seen.first_with(token(1), b"a", first_s)
        for later_s in range(first_s, first_s + 120, 5):
            assert not seen.first_with(token(1), b"b", later_s)
            assert seen.first_with(token(later_s + 2), b"a", later_s)
        assert seen.first_with(token(99), b"a", first_s + 241)
        assert seen.first_with(token(98), b"a", first_s + 362)
        assert seen.first_with(token(1), b"b", first_s + 362)


def test_the_oldest_go_when_there_are_too_many() -> None:
    seen = SeenTokens(120.0, most=8)
    for n in range(100):
        assert seen.first_with(token(n), b"a", 0.0)
        assert not seen.first_with(token(max(0, n - 3)), b"b", 0.0)
        assert len(seen._young) + len(seen._old) <= 8
    assert seen.first_with(token(0), b"b", 0.0)
