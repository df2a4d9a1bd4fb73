"""What `tpxd check` says of files that are fine and may surprise."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.plant import plant
from tpxd.cli.check import check
from tpxd.config.remarks import NESTED


def test_repetition_inside_of_repetition_is_warned_of(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = [
        'headers = { X-Tag = "{$..tags[?(@ =~ /(x+)+/)]}", X-Mac = "{$..tags[?(@ =~ /([0-9a-f]{2}:){5}.*/)]}" }',
        "[[flow.matchers]]",
        'type = "jsonPath"',
        "path = \"$..tags[?search(@, '(a|b+)*c')]\"",
    ]
    (directory / "plant.toml").write_text(plant(more="\n".join(more)))
    assert check([directory / "plant.toml"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"warning: {directory}/plant.toml:7:21: configuration.headers.…: {NESTED}",
        f"warning: {directory}/plant.toml:10:8: flow.matchers[0].path: {NESTED}",
    ]
