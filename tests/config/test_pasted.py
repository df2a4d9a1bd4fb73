"""What people paste from ThingPark's pages and exports: mended where it can only mean one thing, else told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.plant import plant
from tests.peers import pki
from tpxd import connectors
from tpxd.cli.check import check
from tpxd.config.fields import SecretSources
from tpxd.config.secret import in_lines
from tpxd.reload.files import Broken, Loaded, parse_file
from tpxd.wire.tls import check_pems

connectors.load()


def parsed(text: str, *, forgiving: bool = False) -> Loaded | Broken:
    return parse_file("plant", text.encode(), SecretSources(Path("/nowhere"), {}, None, forgiving=forgiving), "x")


def problems(more: str) -> list[str]:
    entry = parsed(plant(more=more))
    return [problem.message for problem in entry.problems] if isinstance(entry, Broken) else []


@pytest.mark.parametrize(
    "pasted",
    [
        lambda pem: pem.replace("\n", ""),
        lambda pem: pem.replace("\n", " "),
        lambda pem: pem.replace("\n", "\\n"),
        lambda pem: pem.replace("\n", "\\r\\n"),
        lambda pem: "  " + pem.replace("\n", "").replace("CERTIFICATE-----M", "CERTIFICATE----- M"),
        lambda pem: pem,
        lambda pem: pem.replace("\n", "\r\n"),
        lambda pem: "a remark: with a colon\n" + pem,
    ],
)
def test_pem_in_one_line_is_read_as_if_it_had_lines(pasted: object) -> None:
    assert callable(pasted)
    identity = pki.client()
    chain = identity.certificate + pki.ca().certificate
    check_pems(certificate=in_lines(pasted(chain)), private_key=in_lines(pasted(identity.private_key)))


def test_a_file_may_hold_pem_in_one_line() -> None:
    entry = parsed(plant(more=f'certificate = "{pki.ca().certificate}"'.replace("\n", "")))
    assert isinstance(entry, Loaded)


@pytest.mark.parametrize(
    "line", ['password = "*****"', 'headers = { Authorization = "**********" }', 'certificate = "***"']
)
def test_the_mask_of_an_export_is_no_secret(line: str) -> None:
    told = "is the mask that stands for a secret in exported files; write the secret itself"
    assert problems(line) == [told]
    assert isinstance(parsed(plant(more=line), forgiving=True), Loaded) is ("certificate" not in line)


def test_no_uplink_is_younger_than_nothing() -> None:
    (told,) = problems('uplinkTimeValidity = "0s"')
    assert "leave the key out for no limit" in told
    assert problems('uplinkTimeValidity = "1s"') == []


def test_create_devices_of_an_exported_file_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "web.toml"
    head = 'connectorId = "actility-http-iot"\nname = "x"\n[configuration]\ndestinationURL = "http://127.0.0.1/"\n'
    path.write_text(head + "createDevices = true\n")
    assert check([path]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"warning: {path}:5:17: configuration.createDevices: has no effect here")
