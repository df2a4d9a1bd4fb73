"""What wire tells an operator to do is said in the names of the options, whatever the technology."""

from __future__ import annotations

import re

import pytest

from tpxd.connector import REGISTRY
from tpxd.connectors import load
from tpxd.connectors.parts.next_steps import OPTIONS, options_named
from tpxd.errors import ConfigError, LinkLost, Throttled
from tpxd.wire.next_steps import NextStep

load()


def test_each_step_of_wire_has_its_options() -> None:
    known = {name for each in REGISTRY.values() for name in each.config.model_fields}
    assert OPTIONS.keys() == {*NextStep}
    for text in OPTIONS.values():
        assert {word.partition(".")[0] for word in re.findall(r"[a-z]+(?:[A-Z][a-z]+)+|proxy\.\w+", text)} <= known


@pytest.mark.parametrize("step", NextStep)
def test_an_error_that_leaves_names_them(step: NextStep) -> None:
    with pytest.raises(LinkLost) as caught, options_named():
        raise LinkLost("gone", hint=step)
    assert caught.value.hint == OPTIONS[step]


@pytest.mark.parametrize("hint", [None, "is the network up?"])
def test_other_hints_stay(hint: str | None) -> None:
    with pytest.raises(Throttled) as caught, options_named():
        raise Throttled("later", retry_after_s=1.0, hint=hint)
    assert caught.value.hint == hint


def test_other_errors_pass_and_those_in_a_group_are_named_too() -> None:
    with pytest.raises(ConfigError), options_named():
        raise ConfigError([])
    lost = LinkLost("gone", hint=NextStep.CLIENT_ID)
    with pytest.raises(BaseExceptionGroup), options_named():
        raise BaseExceptionGroup("", [lost, ConfigError([])])
    assert lost.hint == OPTIONS[NextStep.CLIENT_ID]
