"""README and the pages beside it name only files, commands and paths that exist, and what they show works."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer.main

from tpxd import connectors
from tpxd.cli import COMMANDS, application
from tpxd.connector import REGISTRY

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "config/README.md", "tests/benchmarks/README.md")}
TEXT = "\n".join(PAGES.values())
FENCED = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
INLINE = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL))
SHELL = [line for language, block in FENCED if language == "sh" for line in block.splitlines()]

PATHS = sorted({text for text in INLINE if re.fullmatch(r"(tpxd|tests|examples|config|systemd)/[\w./-]*", text)})
CALLS = sorted({call for text in [*INLINE, *SHELL] for call in re.findall(r"(?<!/etc/)\btpxd ([a-z][^`|&#;]*)", text)})
LINKS = sorted({(page, link) for page, text in PAGES.items() for link in re.findall(r"\]\(([^)]+)\)", text)})


@pytest.mark.parametrize("path", PATHS)
def test_a_path_in_backticks_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_a_link_leads_somewhere(page: str, link: str) -> None:
    name, _, anchor = link.partition("#")
    there = (ROOT / page).parent / name if name else ROOT / page
    assert there.exists()
    if anchor:
        headings = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
        assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_the_table_of_rooms_has_each_once() -> None:
    table = README.partition("## Where a change belongs")[2].partition("\n## ")[0]
    told = [
        room for first in re.findall(r"^\|([^|]+)\|", table, re.MULTILINE) for room in re.findall(r"`(.+?)`", first)
    ]
    assert len(told) == len(set(told))
    gone = [room for room in told if not (ROOT / "tpxd" / room).exists()]
    assert not gone
    rooms = {f"{file.parent.name}/" for file in (ROOT / "tpxd").glob("*/__init__.py")}
    assert rooms <= set(told)


@pytest.mark.parametrize("call", CALLS)
def test_a_command_and_its_options_exist(call: str) -> None:
    name, *arguments = call.split()
    assert name in COMMANDS
    command = typer.main.get_command(application([name]))
    context = command.make_context("tpxd", [name, "--help"], resilient_parsing=True)
    known = {option for each in command.commands[name].get_params(context) for option in each.opts}  # type: ignore[attr-defined]
    assert {argument for argument in arguments if argument.startswith("-")} <= known


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_named(name: str) -> None:
    assert f"`tpxd {name}" in README


def test_every_connector_is_named() -> None:
    connectors.load()
    assert all(id in README for id in REGISTRY)


def test_the_toml_shown_is_toml() -> None:
    blocks = [block for language, block in FENCED if language == "toml"]
    assert blocks
    for block in blocks:
        tomllib.loads(block)


def test_readme_is_short() -> None:
    assert len(README.encode()) <= 15 * 1024


def test_something_is_looked_at() -> None:
    assert "tpxd/cli/reference.py" in PATHS
    assert ("README.md", "examples") in LINKS
    assert ("README.md", "config/README.md#downlinks") in LINKS
    assert {call.split()[0] for call in CALLS} >= {"run", "demo", "check", "status"}
