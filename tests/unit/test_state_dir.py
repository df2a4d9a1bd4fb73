"""The directory of the queue is made for one user alone; what stands in the way is told with the key that names it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tpxd.daemon import own_state_dir, run
from tpxd.errors import SpoolUnavailable


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_for_one_user(tmp_path: Path) -> None:
    own_state_dir(tmp_path / "a" / "state")
    assert mode(tmp_path / "a" / "state") == 0o700


@pytest.mark.parametrize("inside", [[], ["spool.db", "more"]])
def test_one_that_is_there_is_closed_to_others(tmp_path: Path, inside: list[str]) -> None:
    for name in inside:
        (tmp_path / name).touch()
    tmp_path.chmod(0o755)
    own_state_dir(tmp_path)
    assert mode(tmp_path) == 0o700


def test_one_that_is_not_the_spools_alone_is_left(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").touch()
    tmp_path.chmod(0o1777)
    own_state_dir(tmp_path)
    assert mode(tmp_path) == 0o1777


@pytest.mark.parametrize("may_not", ["pathlib.Path.mkdir", "pathlib.Path.iterdir"])
def test_where_it_may_not_be_the_message_names_the_key(
    may_not: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(may_not, refuse)
    with pytest.raises(SpoolUnavailable, match=f"^state_dir {tmp_path}/state: Permission denied$") as caught:
        own_state_dir(tmp_path / "state")
    assert caught.value.hint is not None
    assert "tpxd.toml" in caught.value.hint


def test_the_daemon_says_so_and_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tpxd.toml").write_text('state_dir = "tpxd.toml/state"')
    assert run(tmp_path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"state_dir {tmp_path}/tpxd.toml/state: Not a directory; set it in tpxd.toml" in line
