"""The last good version of each file: when it is kept, what is kept, and what it outlives."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.plant import PlantConfig, plant
from tests.config.reading import BAD, host, read, read_and_accept
from tpxd.reload.last_good import Kept, LastGood, Versions
from tpxd.reload.versions import ConfigDir


def test_a_fine_file_runs_and_its_text_is_kept_once_it_does(
    directory: Path, kept: Path, opened: Callable[[], ConfigDir]
) -> None:
    (directory / "plant.toml").write_text(plant("one:1"))
    config_dir = opened()
    desired = read(config_dir)
    assert (desired.generation, desired.running, desired.accepted, desired.problems) == (1, 1, 0, ())
    assert not (kept / "plant.toml").exists()
    config_dir.accept("plant", 1)
    assert read(config_dir).accepted == 1
    assert (kept / "plant.toml").read_text() == plant("one:1") + "\n# kept by tpxd: generation 1\n"
    assert stat.S_IMODE((kept / "plant.toml").stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700


def test_after_a_restart_a_bad_file_runs_its_last_good_version_and_counts_on(
    directory: Path, opened: Callable[[], ConfigDir]
) -> None:
    file = directory / "plant.toml"
    file.write_text(plant("one:1"))
    config_dir = opened()
    read_and_accept(config_dir)
    file.write_text(BAD)
    read(config_dir)
    desired = read(opened())
    assert (desired.generation, desired.running, desired.accepted, host(desired)) == (2, 1, 1, "one")
    file.write_text(f"{BAD}# again")
    desired = read(opened())
    assert (desired.generation, desired.running) == (3, 1)
    file.write_text(plant("two:1"))
    desired = read(opened())
    assert (desired.generation, desired.running, host(desired), desired.problems) == (4, 4, "two", ())


def test_kept_texts_hold_references_and_no_secret(directory: Path, kept: Path, opened: Callable[[], ConfigDir]) -> None:
    secret = directory.parent / "secret"
    secret.write_text("hush")
    (directory / "plant.toml").write_text(plant("one:1", more=f'password = {{ file = "{secret}" }}'))
    read_and_accept(opened())
    assert str(secret) in (kept / "plant.toml").read_text()
    assert all(b"hush" not in path.read_bytes() for path in kept.iterdir())
    (directory / "plant.toml").write_text(BAD)
    secret.write_text("changed meanwhile")
    desired = read(opened())
    assert desired.model is not None
    assert isinstance(desired.model.configuration, PlantConfig)
    assert desired.model.configuration.password is not None
    assert desired.model.configuration.password.get_secret_value() == "changed meanwhile"


def test_accepting_what_is_not_the_newest_good_version_changes_nothing(
    directory: Path, kept: Path, opened: Callable[[], ConfigDir]
) -> None:
    file = directory / "plant.toml"
    file.write_text(plant("one:1"))
    config_dir = opened()
    read(config_dir)
    file.write_text(plant("two:1"))
    read(config_dir)
    config_dir.accept("plant", 1)
    config_dir.accept("nobody", 1)
    assert not (kept / "plant.toml").exists()
    file.write_text(BAD)
    read(config_dir)
    config_dir.accept("plant", 2)
    assert LastGood(kept).kept("plant") == (2, plant("two:1").encode())


def test_a_disk_that_refuses_is_told_and_tried_again(
    directory: Path, kept: Path, opened: Callable[[], ConfigDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "plant.toml").write_text(plant())
    config_dir = opened()

    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        snapshot = config_dir.read()
        config_dir.accept("plant", 1)
        assert snapshot.desired["plant"].running == 1
        assert "cannot be written: No space left on device" in str(snapshot.strays[0])
    assert config_dir.read().strays == ()
    assert (kept / "plant.toml").exists()
    assert read(opened()).accepted == 1


def test_what_was_accepted_outlives_a_process_that_dies_at_once(
    directory: Path, opened: Callable[[], ConfigDir]
) -> None:
    (directory / "plant.toml").write_text(plant("one:1"))
    config_dir = opened()
    config_dir.accept("plant", read(config_dir).generation)
    (directory / "plant.toml").write_text(BAD)
    assert host(read(opened())) == "one"


def test_a_damaged_record_is_no_reason_to_stop(directory: Path, kept: Path, opened: Callable[[], ConfigDir]) -> None:
    (directory / "plant.toml").write_text(plant("one:1"))
    read_and_accept(opened())
    (kept / "versions.json").write_text("{")
    (directory / "plant.toml").write_text(BAD)
    desired = read(opened())
    assert (host(desired), desired.generation, desired.running) == ("one", 2, 1)
    (kept / "versions.json").write_text("[]")
    (directory / "plant.toml").unlink()
    opened().read()
    assert not (kept / "plant.toml").exists()


def test_a_torn_text_is_none(kept: Path) -> None:
    store = LastGood(kept)
    store.keep("plant", Kept(7, b"name = 'x'"))
    whole = (kept / "plant.toml").read_bytes()
    for end in range(len(whole)):
        (kept / "plant.toml").write_bytes(whole[:end])
        assert store.kept("plant") is None


@given(st.integers(0, 2**53), st.text(st.characters(codec="utf-8")), st.binary())
def test_what_is_remembered_and_kept_is_recalled(
    tmp_path_factory: pytest.TempPathFactory, generation: int, digest: str, text: bytes
) -> None:
    store = LastGood(tmp_path_factory.mktemp("store"))
    store.remember({"x": Versions(generation, digest)})
    store.keep("x", Kept(generation, text))
    store.sync(["x", "gone"])
    assert store.recall() == {"x": Versions(generation, digest)}
    assert store.kept("x") == (generation, text)
