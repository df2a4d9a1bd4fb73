"""Small driver packages of every kind, each with examples of what it gives."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.running import invoke
from tpxd.codecs.drivers import read_drivers

PACKAGES = Path(__file__).parent / "packages"
EXAMPLES = Path(__file__).parents[2] / "examples" / "drivers"


def test_every_package_gives_what_its_examples_say() -> None:
    done = invoke("driver", "test", str(PACKAGES), "--json")
    shown = json.loads(done.stdout)
    assert [row["failures"] for row in shown["packages"]] == [[]] * 5, done.stdout
    assert (shown["passed"], shown["failed"], done.exit_code) == (10, 0, 0)


def test_the_example_of_a_driver_gives_what_its_examples_say() -> None:
    done = invoke("driver", "test", str(EXAMPLES), "--json")
    shown = json.loads(done.stdout)
    assert (shown["passed"], shown["failed"]) == (4, 0), done.stdout


def test_an_example_that_says_something_else_is_shown(tmp_path: Path) -> None:
    (tmp_path / "lamp.js").write_text((PACKAGES / "chirp" / "lamp.js").read_text())
    wrong = [{"name": "dark", "input": {"fPort": 4, "bytes": [0]}, "expected": {"data": {"on": True, "port": 4}}}]
    (tmp_path / "test_decode_lamp.json").write_text(json.dumps(wrong))
    done = invoke("driver", "test", str(tmp_path), "--json")
    [package] = json.loads(done.stdout)["packages"]
    assert (package["passed"], package["failed"], done.exit_code) == (0, 1, 1)
    assert package["failures"] == [
        {"case": "dark", "expected": {"data": {"on": True, "port": 4}}, "got": {"data": {"on": False, "port": 4}}}
    ]


def test_each_is_found_by_the_names_that_people_know() -> None:
    found = read_drivers(PACKAGES)
    assert not found.problems
    names = {driver.id: sorted(driver.names) for driver in found.drivers.values()}
    assert names["acme:thr:2"] == ["acme-thr", "acme:thr:2"]
    assert names["vendor/meter-codec"] == ["vendor/meter-codec", "vendor/meter-codec.yaml"]
    assert names["chirp/lamp.js"] == ["chirp/lamp.js"]
