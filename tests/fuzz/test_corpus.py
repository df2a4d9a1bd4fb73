"""Every kept input once, so that what was found once stays mended."""

from __future__ import annotations

import pytest

from tests.fuzz.seeds import CORPUS, kept
from tests.fuzz.targets import TARGETS

MOST_BYTES = 64 * 1024


def test_every_target_has_a_corpus_and_a_small_one() -> None:
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(TARGETS)
    for name in TARGETS:
        inputs = kept(name)
        assert inputs
        assert sum(map(len, inputs)) < MOST_BYTES, name


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_inputs(name: str) -> None:
    for data in kept(name):
        TARGETS[name](data)
