"""Reads a directory of connection files as the daemon does."""

from __future__ import annotations

from tests.config.plant import PlantConfig, plant
from tpxd.reload.versions import ConfigDir, Desired

BAD = plant(more="prtocol = 'TCP'")


def unhurried() -> None:
    """What vanished gets no time to come back."""


def host(desired: Desired) -> str:
    assert desired.model is not None
    assert isinstance(desired.model.configuration, PlantConfig)
    return desired.model.configuration.hostName.host


def read(config_dir: ConfigDir, id: str = "plant") -> Desired:
    return config_dir.read().desired[id]


def read_and_accept(config_dir: ConfigDir, id: str = "plant") -> Desired:
    config_dir.accept(id, read(config_dir, id).generation)
    return read(config_dir, id)
