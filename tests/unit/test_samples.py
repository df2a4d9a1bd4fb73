"""The files in config/ and systemd/ say what is true."""

from __future__ import annotations

import configparser
import os
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from tpxd.cli.check import check
from tpxd.config.settings import Settings, load_settings

TOP = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TPXD_")]:
        monkeypatch.delenv(name)


def keys_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    keys = set()
    for name, field in model.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            keys |= keys_of(part, f"{name}.")
        else:
            keys.add(prefix + name)
    return keys


def test_the_sample_of_the_settings_is_every_default(tmp_path: Path) -> None:
    sample = (TOP / "config" / "tpxd.toml").read_text()
    (tmp_path / "tpxd.toml").write_text(sample)
    written = load_settings(tmp_path)
    (tmp_path / "tpxd.toml").unlink()
    assert written == load_settings(tmp_path)
    document = tomllib.loads(sample)
    parts = {key for key, value in document.items() if isinstance(value, dict)}
    keys = {key for key in document if key not in parts} | {f"{part}.{key}" for part in parts for key in document[part]}
    assert keys == keys_of(Settings)


def test_the_sample_of_a_connection_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = TOP / "config" / "connections.d" / "plant.toml.example"
    target = tmp_path / "connections.d" / "plant.toml"
    target.parent.mkdir()
    target.write_text(sample.read_text())
    assert check([tmp_path]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if "configuration.password" not in line] == []


def test_the_unit_starts_what_the_command_line_offers() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign] # the documented way to keep upper case
    unit.read(TOP / "systemd" / "tpxd.service")
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["ExecStart"].endswith("tpxd run --config /etc/tpxd")
    assert service["StateDirectory"] == "tpxd"
    name, _, value = service["Environment"].partition("=")
    assert (name, value) == ("TPXD_CONTROL__SOCKET", "%t/tpxd/control.sock")
    assert service["RestartPreventExitStatus"] == "78"
