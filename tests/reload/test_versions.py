"""What a directory of connection files says should run, through edits, mistakes and files that come and go."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.plant import plant
from tests.config.reading import BAD, host, read, read_and_accept, unhurried
from tests.hung_files import hung
from tpxd.reload import bounded, stamps
from tpxd.reload import versions as config_dir_module
from tpxd.reload.files import Entry, id_problem, load_file
from tpxd.reload.versions import ConfigDir


def test_reading_the_same_again_is_no_new_version(directory: Path, opened: Callable[[], ConfigDir]) -> None:
    file = directory / "plant.toml"
    file.write_text(plant())
    config_dir = opened()
    first = read(config_dir)
    file.write_text(plant())
    os.utime(file, (1, 1))
    assert read(config_dir) == first


def test_a_bad_version_counts_and_the_last_good_one_runs(directory: Path, opened: Callable[[], ConfigDir]) -> None:
    file = directory / "plant.toml"
    file.write_text(plant("one:1"))
    config_dir = opened()
    read_and_accept(config_dir)
    file.write_text(BAD)
    desired = read(config_dir)
    assert (desired.generation, desired.running, host(desired)) == (2, 1, "one")
    assert [str(problem) for problem in desired.problems] == [
        'connections.d/plant.toml:7:1: configuration.prtocol: unknown key; did you mean "protocol"?'
    ]
    file.write_text(plant("two:1"))
    desired = read(config_dir)
    assert (desired.generation, desired.running, host(desired), desired.problems) == (3, 3, "two", ())


def test_a_file_that_never_was_fine_has_nothing_to_run(directory: Path, opened: Callable[[], ConfigDir]) -> None:
    (directory / "plant.toml").write_text(BAD)
    desired = read(opened())
    assert (desired.generation, desired.running, desired.model) == (1, None, None)
    assert desired.problems


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (BAD, ("Plant", "test-plant")),
        ("name = 'Plant'\nconnectorId = 'password'\n", ("Plant", None)),
        ("name = 5\nconnectorId = ['test-plant']\n", ("", None)),
        ("name = = 'Plant'", ("", None)),
        ("", ("", None)),
    ],
)
def test_what_never_was_fine_has_the_names_that_can_be_read(
    text: str, names: tuple[str, str | None], directory: Path, opened: Callable[[], ConfigDir]
) -> None:
    (directory / "plant.toml").write_text(text)
    desired = read(opened())
    assert (desired.model, desired.name, desired.connector_id) == (None, *names)


def test_a_file_half_written_is_bad_until_it_is_whole(directory: Path, opened: Callable[[], ConfigDir]) -> None:
    file = directory / "plant.toml"
    file.write_text(plant("one:1"))
    config_dir = opened()
    read(config_dir)
    whole = plant("two:1")
    for end in range(0, len(whole), 7):
        file.write_text(whole[:end])
        desired = read(config_dir)
        assert desired.model is not None
        assert host(desired) in ("one", "two")
    file.write_text(whole)
    assert host(read(config_dir)) == "two"


def test_a_bad_file_leaves_the_others_alone(directory: Path, opened: Callable[[], ConfigDir]) -> None:
    for number in range(20):
        (directory / f"c{number}.toml").write_text(plant(f"h{number}:1"))
    config_dir = opened()
    before = config_dir.read().desired
    (directory / "c7.toml").write_text("no toml at all")
    after = config_dir.read().desired
    assert {id for id in before if before[id] != after[id]} == {"c7"}


def test_a_deleted_file_is_gone_with_its_text_and_its_count_goes_on(
    directory: Path, kept: Path, opened: Callable[[], ConfigDir]
) -> None:
    file = directory / "plant.toml"
    file.write_text(plant("one:1"))
    config_dir = opened()
    read_and_accept(config_dir)
    file.unlink()
    assert config_dir.read().desired == {}
    assert not (kept / "plant.toml").exists()
    file.write_text(BAD)
    desired = read(config_dir)
    assert (desired.generation, desired.model) == (2, None)
    file.write_text(plant("one:1"))
    assert read(opened()).generation == 3


def test_a_file_that_was_deleted_while_nothing_ran_is_gone_too(
    directory: Path, kept: Path, opened: Callable[[], ConfigDir]
) -> None:
    (directory / "plant.toml").write_text(plant())
    read_and_accept(opened())
    (directory / "plant.toml").unlink()
    assert opened().read().desired == {}
    assert not (kept / "plant.toml").exists()


def test_a_file_that_vanishes_for_a_moment_was_never_away(directory: Path, kept: Path) -> None:
    file = directory / "plant.toml"
    moments = []

    def write_again() -> None:
        moments.append(1)
        file.write_text(plant("two:1"))

    config_dir = ConfigDir(directory, kept, settle=write_again)
    file.write_text(plant("one:1"))
    config_dir.read()
    assert not moments
    file.unlink()
    assert host(read(config_dir)) == "two"
    assert moments


def test_a_directory_that_is_away_or_being_copied_stops_nothing(directory: Path, kept: Path) -> None:
    copied = iter(range(3))

    def copy_one() -> None:
        for number in copied:
            shutil.copy(directory.with_suffix(".old") / f"c{number}.toml", directory)
            return

    for number in range(3):
        (directory / f"c{number}.toml").write_text(plant(f"h{number}:1"))
    config_dir = ConfigDir(directory, kept, settle=copy_one)
    before = config_dir.read().desired
    directory.rename(directory.with_suffix(".old"))
    away = config_dir.read()
    assert away.desired == before
    assert [str(problem) for problem in away.strays] == [
        f"{directory}: the directory cannot be read: No such file or directory"
    ]
    directory.mkdir()
    assert config_dir.read().desired == before


def test_a_directory_that_does_not_exist_yet_is_no_error(tmp_path: Path, kept: Path) -> None:
    config_dir = ConfigDir(tmp_path / "later", kept, settle=unhurried)
    assert config_dir.read().desired == {}
    assert len(config_dir.read().strays) == 1
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "plant.toml").write_text(plant())
    snapshot = config_dir.read()
    assert (list(snapshot.desired), snapshot.strays) == (["plant"], ())


def test_names_that_are_no_id_are_told_and_others_ignored(directory: Path, opened: Callable[[], ConfigDir]) -> None:
    for name in ("a.b-c_1.toml", "Plant.toml", "live.toml", "ready.toml", "-x.toml", f"{'x' * 64}.toml", "a b.toml"):
        (directory / name).write_text(plant())
    for name in (".plant.toml", ".plant.toml.swp", "plant.toml~", "4913", "plant.toml.rpmnew", "#plant.toml#"):
        (directory / name).write_text("x")
    snapshot = opened().read()
    assert list(snapshot.desired) == ["a.b-c_1"]
    assert sorted(problem.path.removeprefix("connections.d/") for problem in snapshot.strays) == sorted(
        ["Plant.toml", "live.toml", "ready.toml", "-x.toml", f"{'x' * 64}.toml", "a b.toml"]
    )


def test_a_name_of_any_bytes_is_told_on_one_line(directory: Path, opened: Callable[[], ConfigDir]) -> None:
    (directory / "a\nb.toml").write_text("")
    Path(os.fsdecode(bytes(directory) + b"/\xff.toml")).write_text("")
    strays = [str(problem) for problem in opened().read().strays]
    assert len(strays) == 2
    assert all(stray.isprintable() and stray.encode() for stray in strays)


@given(st.text(max_size=70))
def test_an_id_is_what_is_documented(id: str) -> None:
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789")
    fine = 0 < len(id) <= 63 and id[0] in allowed and set(id) <= allowed | set("._-") and id not in ("live", "ready")
    assert (id_problem(id) is None) is fine


def test_a_changed_secret_is_a_new_version(directory: Path, opened: Callable[[], ConfigDir]) -> None:
    secret = directory.parent / "secret"
    (directory / "plant.toml").write_text(plant(more=f'password = {{ file = "{secret}" }}'))
    config_dir = opened()
    desired = read(config_dir)
    assert (desired.generation, desired.model) == (1, None)
    assert config_dir.watched() == {directory, secret}
    secret.write_text("one")
    first = read(config_dir)
    assert (first.generation, first.running, first.problems) == (2, 2, ())
    assert read(config_dir) == first
    secret.write_text("two")
    second = read(config_dir)
    assert (second.generation, second.running) == (3, 3)
    assert second.model != first.model
    secret.unlink()
    third = read(config_dir)
    assert (third.generation, third.running, third.model) == (4, 3, second.model)
    assert "No such file" in str(third.problems[0])


def test_what_two_files_cannot_share_stays_with_the_one_that_has_it(
    directory: Path, opened: Callable[[], ConfigDir]
) -> None:
    health = "[health]\nlisten = '127.0.0.1:9101'"
    (directory / "b.toml").write_text(plant(more=health))
    config_dir = opened()
    read_and_accept(config_dir, "b")
    (directory / "a.toml").write_text(plant(more=health))
    for each in (config_dir, config_dir, opened()):
        snapshot = each.read()
        assert snapshot.desired["b"].problems == ()
        assert [str(problem) for problem in snapshot.desired["a"].problems] == [
            'connections.d/a.toml:8:10: health.listen: "127.0.0.1:9101" is taken by the connection b; choose another'
        ]
        assert snapshot.desired["a"].model is None
    (directory / "b.toml").unlink()
    desired = read(config_dir, "a")
    assert (desired.generation, desired.running, desired.problems) == (1, 1, ())


def test_a_file_that_cannot_be_read_keeps_running(directory: Path, opened: Callable[[], ConfigDir]) -> None:
    file = directory / "plant.toml"
    file.write_text(plant("one:1"))
    config_dir = opened()
    read(config_dir)
    file.unlink()
    file.mkdir()
    desired = read(config_dir)
    assert (desired.generation, desired.running, host(desired)) == (2, 1, "one")
    assert str(desired.problems[0]) == "connections.d/plant.toml: is a directory, not a file"


@pytest.fixture
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "PATIENCE_S", 0.3)


@pytest.mark.usefixtures("_hurried")
def test_a_file_that_hangs_is_told_and_keeps_no_other_waiting(directory: Path, opened: Callable[[], ConfigDir]) -> None:
    for name in "abc":
        (directory / f"{name}.toml").write_text(plant(f"{name}1:1"))
    config_dir = opened()
    for name in "abc":
        read_and_accept(config_dir, name)
    for name in "abc":
        (directory / f"{name}.toml").write_text(plant(f"{name}2:1"))
    with hung(directory / "b.toml"):
        for _ in range(3):
            desired = config_dir.read().desired
            assert [host(desired[name]) for name in "abc"] == ["a2", "b1", "c2"]
            assert [str(problem) for problem in desired["b"].problems] == [
                "connections.d/b.toml: cannot be read within 5 s; does a mount hang?"
            ]
            assert not desired["a"].problems
        again = opened().read().desired["b"]
        assert (host(again), again.running, len(again.problems)) == ("b1", 1, 1), "a start runs the last good one"
    wait_for_threads()
    assert (host(read(config_dir, "b")), read(config_dir, "b").problems) == ("b2", ())


@pytest.mark.usefixtures("_hurried")
def test_a_secret_that_hangs_keeps_what_runs(directory: Path, opened: Callable[[], ConfigDir]) -> None:
    secret = directory.parent / "secret"
    secret.write_text("one")
    (directory / "plant.toml").write_text(plant(more=f'password = {{ file = "{secret}" }}'))
    (directory / "other.toml").write_text(plant("o1:1"))
    config_dir = opened()
    before = read(config_dir)
    with hung(secret):
        desired = config_dir.read().desired
        assert (desired["plant"].model, desired["plant"].running) == (before.model, 1)
        assert "cannot be read within" in str(desired["plant"].problems)
        assert not desired["other"].problems
    wait_for_threads()
    assert read(config_dir).problems == ()


def wait_for_threads() -> None:
    for thread in threading.enumerate():
        if thread.name == "tpxd-files":
            thread.join(5)


def test_what_did_not_change_is_not_read_again_and_every_change_is_seen(
    directory: Path, opened: Callable[[], ConfigDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = directory.parent / "secret"
    secret.write_text("one")
    file = directory / "plant.toml"
    file.write_text(plant("one:1", more=f'password = {{ file = "{secret}" }}'))
    config_dir = opened()
    reads: list[Path] = []

    def noted(path: Path, *given: Any, most_bytes: int) -> Entry:
        reads.append(path)
        return load_file(path, *given, most_bytes=most_bytes)

    monkeypatch.setattr(config_dir_module, "load_file", noted)
    first = read_and_accept(config_dir)
    read(config_dir)
    assert len(reads) == 3, "what changed a moment ago is not believed yet"
    monkeypatch.setattr(stamps, "FRESH_NS", 0)
    read(config_dir)
    assert len(reads) == 4
    before = config_dir.read()
    for _ in range(3):
        assert config_dir.read().desired is before.desired
    assert len(reads) == 4
    secret.write_text("two")
    assert read(config_dir).generation == first.generation + 1
    file.write_text(plant("two:1", more=f'password = {{ file = "{secret}" }}'))
    os.utime(file, (1, 1))
    assert host(read(config_dir)) == "two"
    secret.unlink()
    assert read(config_dir).problems
    assert read(config_dir).problems
    secret.write_text("two")
    assert not read(config_dir).problems
