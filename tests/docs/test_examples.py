"""Every example is a connection file that `tpxd check` accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tpxd import connectors
from tpxd.cli.check import check
from tpxd.config.secret import SecretSources
from tpxd.connector import REGISTRY
from tpxd.lorawan.uplink import Uplink
from tpxd.reload.files import Loaded, load_file

DIRECTORY = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(DIRECTORY.glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_check_accepts_it(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([path]) == 0, capsys.readouterr().out
    for line in capsys.readouterr().out.splitlines():
        assert line.startswith("warning: "), line
        assert "cannot be read" in line or "configuration.qos" in line, line


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_says_what_it_is_in_two_comments(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert [number for number, line in enumerate(lines) if line.startswith("#")] == [0, 1]


def test_all_examples_can_stand_in_one_directory(capsys: pytest.CaptureFixture[str]) -> None:
    assert EXAMPLES
    assert check([DIRECTORY]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({"CustomerData": {"tags": ["coldchain", "PlantNorth", "roof"]}}, True),
        ({"CustomerData": {"tags": ["ColdChain"]}}, False),
        ({"FPort": 3}, True),
        ({"LrrRSSI": -121.0}, True),
        ({"LrrRSSI": -90.0}, False),
    ],
)
def test_the_flow_of_the_example_takes_what_it_says(fields: dict[str, object], taken: bool) -> None:
    loaded = load_file(DIRECTORY / "flow.toml", SecretSources(DIRECTORY, lenient=True), "flow.toml")
    assert isinstance(loaded, Loaded), loaded
    uplink = Uplink(1, 0, "DevEUI_uplink", "70B3D5E75E00A1C4", "", b"", {"DevEUI_uplink": fields})
    assert loaded.file.flow.takes(uplink) is taken


def test_every_connector_and_protocol_has_one() -> None:
    connectors.load()
    shown = set()
    for path in EXAMPLES:
        loaded = load_file(path, SecretSources(path.parent, lenient=True), str(path))
        assert isinstance(loaded, Loaded), loaded
        shown.add((loaded.file.connectorId, getattr(loaded.file.configuration, "protocol", None)))
    wanted = set()
    for connector in REGISTRY.values():
        protocol = connector.config.model_json_schema()["properties"].get("protocol", {"enum": [None]})
        wanted |= {(connector.id, name) for name in protocol["enum"]}
    assert wanted - shown == set()
