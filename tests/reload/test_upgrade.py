"""A file that ran before an upgrade goes on, word by word as it was; what only this version refuses is a warning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from tests.config.plant import plant
from tpxd.config.flow import JsonPathMatcher
from tpxd.config.toml import MAX_BYTES
from tpxd.errors import PatternError
from tpxd.lorawan.patterns import Target, compile_pattern
from tpxd.lorawan.uplink import Uplink
from tpxd.reload.last_good import Kept, LastGood
from tpxd.reload.versions import ConfigDir, Desired

REPEATED = "$..tags[?(@ =~ /(a{40}){40}|b/)]"
BROUGHT = "$[?match(@.name, $.DevEUI_uplink.wanted)]"
LARGE = "# " + "a remark " * (MAX_BYTES // 9)


def flow(path: str) -> str:
    return f"\n[flow]\nmatchers = [{{ type = \"jsonPath\", path = '{path}' }}]\n"


Old = Callable[[str], Desired]


@pytest.fixture
def old(directory: Path, kept: Path, opened: Callable[[], ConfigDir]) -> Old:
    """What becomes of a file that was at work under the version before."""

    def judged(text: str) -> Desired:
        (directory / "plant.toml").write_text(text)
        LastGood(kept).keep("plant", Kept(1, text.encode()))
        return opened().read().desired["plant"]

    return judged


TIGHTER = {
    "a validity of nothing": plant(more='uplinkTimeValidity = "0s"'),
    "a mask as a password": plant(more='password = "*****"'),
    "more repetition than is compiled": plant() + flow(REPEATED),
    "an expression that an uplink brings": plant() + flow(BROUGHT),
    "more than 64 KiB": plant() + LARGE,
}


@pytest.mark.parametrize("text", TIGHTER.values(), ids=TIGHTER.keys())
def test_what_only_this_version_refuses_is_a_warning_where_it_ran_before(
    text: str, old: Old, directory: Path, opened: Callable[[], ConfigDir], caplog: pytest.LogCaptureFixture
) -> None:
    (directory / "new.toml").write_text(text)
    found = old(text)
    assert found.problems == ()
    assert found.model is not None
    (warning,) = found.warnings
    assert warning.severity == "warning"
    assert "it goes on, since it ran before" in str(warning)
    new = opened().read().desired["new"]
    assert (len(new.problems), new.model, new.warnings) == (1, None, ())


def test_an_edited_file_is_judged_as_a_new_one(old: Old, directory: Path, opened: Callable[[], ConfigDir]) -> None:
    before = old(plant("one:1") + LARGE)
    assert before.model is not None
    (directory / "plant.toml").write_text(plant("two:1") + LARGE[:-9])
    found = opened().read().desired["plant"]
    assert "larger than 64 KiB" in str(found.problems[0])
    assert found.model == before.model, "what ran before the edit goes on"


def test_an_expression_in_a_topic_goes_on_too() -> None:
    text = f"plant/{{{REPEATED}}}"
    with pytest.raises(PatternError, match="more than 1000 times"):
        compile_pattern(text, Target.MQTT_TOPIC)
    assert compile_pattern(text, Target.MQTT_TOPIC, forgiving=True).render(report(tags=["b"])).text == "plant/b"


def report(**fields: object) -> Uplink:
    return Uplink(1, 0, "DevEUI_uplink", "70B3D5E75E00A1C4", "", orjson.dumps({"DevEUI_uplink": fields}))


def test_what_goes_on_finds_what_it_found(old: Old) -> None:
    def takes(path: str, uplink: Uplink) -> bool:
        found = old(plant() + flow(path)).model
        assert found is not None
        (matcher,) = found.flow.matchers
        assert isinstance(matcher, JsonPathMatcher)
        return matcher.matches(uplink)

    assert takes(REPEATED, report(tags=["b"]))
    assert not takes(REPEATED, report(tags=["c"]))
    assert takes(BROUGHT, report(name="paris", wanted="p.*"))
    assert not takes(BROUGHT, report(name="paris", wanted="b.*"))
    assert not takes(BROUGHT, report(name="paris", wanted="(a{1000}){1000}|p.*")), "beyond the bounds it finds nothing"
    assert not takes(BROUGHT, report(name="paris", wanted=7))
