"""What is wrong with a connection file is told in plain words at its place, and never repeats a secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.plant import plant
from tpxd.config.fields import SecretSources
from tpxd.config.problems import suggestion
from tpxd.reload.files import Broken, Loaded, parse_file


def told(text: str, *, lenient: bool = False) -> list[str]:
    sources = SecretSources(Path("/nowhere"), {}, None, lenient=lenient)
    entry = parse_file("plant", text.encode(), sources, "plant.toml")
    problems = entry.problems if isinstance(entry, Broken) else entry.warnings
    return [f"{problem.severity}: {problem}".removeprefix("error: ") for problem in problems]


def told_of(line: str) -> str:
    """The only problem of a file with this line 7 in its `[configuration]`, without its place."""
    (problem,) = told(plant(more=line))
    assert problem.startswith("plant.toml:7:"), problem
    return problem.split(" ", 1)[1]


def test_a_file_that_is_fine_has_no_problem() -> None:
    assert told(plant(more='protocol = "SSL"\nqos = 0')) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('protocol = "SLS"', 'configuration.protocol: "SLS" is not one of TCP, SSL, WSS; did you mean "SSL"?'),
        ("protocol = 1", "configuration.protocol: 1 is not one of TCP, SSL, WSS"),
        ("qos = 2", "configuration.qos: 2 is not one of 0, 1"),
        ('qos = "1"', 'configuration.qos: "1" is text; write the number without quotes: 1'),
        ('retain = "yes"', "configuration.retain: the text is not true or false"),
        ("retain = 1", "configuration.retain: the number is not true or false"),
        (
            'connectionTimeout = "5000"',
            'configuration.connectionTimeout: "5000" is text; write the number without quotes: 5000',
        ),
        ('connectionTimeout = "soon"', "configuration.connectionTimeout: the text is not a whole number"),
        ("connectionTimeout = 1.5", "configuration.connectionTimeout: 1.5 is not a whole number"),
        ("connectionTimeout = 5", "configuration.connectionTimeout: 5 is too small; the smallest is 100"),
        ("connectionTimeout = 70000", "configuration.connectionTimeout: 70000 is too large; the largest is 60000"),
        ("username = 7", "configuration.username: the number is not text; write it in quotes"),
        ('username = ""', "configuration.username: is empty"),
        ("username = 1979-05-27", None),
        ("topics = 5", "configuration.topics: the number is not an array; write it in brackets"),
        ("topics = [5]", "configuration.topics[0]: the number is not a table"),
        ("headers = []", "configuration.headers: an array is not a table"),
        (
            "uplinkTimeValidity = 72",
            'configuration.uplinkTimeValidity: 72 is not text; write it as "90s", "5m" or "72h"',
        ),
        ("hostname = 'x'", 'configuration.hostname: unknown key; did you mean "hostName"?'),
        (
            "uplinkTimeValidty = '1h'",
            'configuration.uplinkTimeValidty: unknown key; did you mean "uplinkTimeValidity"?',
        ),
        (
            "active = false",
            "configuration.active: unknown key; it belongs to the top of the file, before the first [table]",
        ),
        ("colour = 'red'", "configuration.colour: unknown key"),
        ('"two words" = 1', "configuration.…: unknown key"),
        ("password = { env = 'X' }", "configuration.password: the environment variable X is not set"),
    ],
)
def test_one_wrong_line_is_one_problem(line: str, problem: str | None) -> None:
    if problem is None:
        assert told(plant(more=line)) == []
    else:
        assert told_of(line) == problem


def test_places_are_those_of_the_value_or_of_an_unknown_key() -> None:
    (value,) = told(plant(more='  protocol   = "SLS"  # ours'))
    (key,) = told(plant(more="  protocoll   = 5"))
    (nested,) = told(plant(more="topics = [ { fPort = 1, uplinkTopicPattern = 'a', x = 1 } ]"))
    assert value.startswith("plant.toml:7:16: configuration.protocol: ")
    assert key.startswith("plant.toml:7:3: configuration.protocoll: ")
    assert nested.startswith("plant.toml:7:51: configuration.topics[0].x: ")


def test_what_is_missing_is_told_where_its_table_begins() -> None:
    text = 'name = "x"\n\n[configuration]\n[[configuration.topics]]\nfPort = 1\n'
    assert told(text.replace("name", "connectorId = 'test-plant'\nname")) == [
        "plant.toml:4:1: configuration.hostName: is missing; it is required",
        "plant.toml:5:1: configuration.topics[0].uplinkTopicPattern: is missing; it is required",
    ]
    assert told("connectorId = 'test-plant'") == [
        "plant.toml:1:1: name: is missing; it is required",
        "plant.toml:1:1: configuration: is missing; it is required",
    ]


def test_a_matcher_of_no_kind_is_told_at_its_type() -> None:
    matchers = '[ { tags = ["a"] }, { type = 5 }, { type = "jsonpath", path = "$" }, 7 ]'
    kinds = "thing, key, fPort, report, jsonPath"
    assert [problem.split(": ", 1)[1] for problem in told(plant() + f"[flow]\nmatchers = {matchers}\n")] == [
        "flow.matchers[0].type: is missing; it is required",
        f"flow.matchers[1].type: 5 is not one of {kinds}",
        f'flow.matchers[2].type: "jsonpath" is not one of {kinds}; did you mean "jsonPath"?',
        "flow.matchers[3]: the number is not a table",
    ]


def test_an_empty_file_is_one_problem() -> None:
    assert told("") == ["plant.toml:1:1: connectorId: is missing; the file is empty"]
    assert told("# nothing yet\n") == ["plant.toml:1:1: connectorId: is missing; the file is empty"]


def test_an_unknown_connector_is_told_with_everything_else() -> None:
    text = "connectorId = 'test-plnt'\nnmae = 'x'\n[configuration]\nanything = 1\n"
    problems = told(text)
    assert len(problems) == 3
    assert problems[0] == "plant.toml:1:1: name: is missing; it is required"
    assert problems[1].startswith('plant.toml:1:15: connectorId: "test-plnt" is not one of ')
    assert problems[1].endswith('test-plant; did you mean "test-plant"?')
    assert problems[2] == 'plant.toml:2:1: nmae: unknown key; did you mean "name"?'
    assert told("name = 'x'\nconfiguration = {}") == ["plant.toml:1:1: connectorId: is missing; it is required"]
    assert told("connectorId = 5\nname = 'x'\nconfiguration = {}") == [
        "plant.toml:1:15: connectorId: the number is not text; write it in quotes"
    ]


def test_a_key_of_another_table_is_told_where_it_belongs() -> None:
    (problem,) = told(plant(top="protocol = 'SSL'"))
    assert problem == "plant.toml:3:1: protocol: unknown key; there is one in [configuration]"


def test_everything_wrong_is_told_at_once_in_the_order_of_lines() -> None:
    problems = told(plant("broker", more="qos = 3\nretain = 0\nx = 1", top="activ = true"))
    assert [problem.split(": ")[0] for problem in problems] == [
        "plant.toml:3:1",
        "plant.toml:6:12",
        "plant.toml:7:7",
        "plant.toml:8:10",
        "plant.toml:9:1",
    ]


def test_a_reference_that_does_not_resolve_is_a_warning_where_sources_are_lenient() -> None:
    text = plant(more="password = { env = 'X' }")
    warning = "warning: plant.toml:7:12: configuration.password: the environment variable X is not set"
    assert told(text, lenient=True) == [warning]
    assert told(f"{text}qos = 5", lenient=True) == [warning, "plant.toml:8:7: configuration.qos: 5 is not one of 0, 1"]


def test_a_long_value_is_cut() -> None:
    assert len(told_of(f"protocol = '{'x' * 5000}'")) < 200


SECRET = "hush-hush-4711"
SECRETS = st.sampled_from(
    [
        f'password = ["{SECRET}"]',
        f'password = {{ enw = "{SECRET}" }}',
        f'pasword = "{SECRET}"',
        f'certificate = "{SECRET}"',
        f'downlinkAsKey = "{SECRET}"',
        f'headers = {{ Authorization = "Bearer {SECRET}{{" }}',
        f'headers = {{ Authorization = ["{SECRET}"] }}',
        f'headers = "{SECRET}"',
        f'topics = ["{SECRET}"]',
        f'password.x.y = "{SECRET}"',
        f'qos = {{ a = "{SECRET}" }}',
    ]
)


@given(st.lists(SECRETS, min_size=1, unique=True))
def test_no_problem_repeats_a_secret(lines: list[str]) -> None:
    for line in lines:
        problems = told(plant(more=line))
        assert problems
        if not line.startswith(('headers = "', "topics")):
            assert SECRET not in "".join(problems)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x, max_size=2), max_leaves=4)
)
def test_every_problem_is_one_line(value: object) -> None:
    text = json.dumps(value)
    if "null" in text:
        return
    for key in ("protocol", "qos", "topics", "hostName", "headers", "retain", "connectionTimeout", "downlinkPort"):
        entry = parse_file("p", plant(more=f"{key} = {text}").encode(), SecretSources(), "p.toml")
        assert isinstance(entry, Broken | Loaded)
        if isinstance(entry, Broken):
            assert all(str(problem).isprintable() or "\n" not in str(problem) for problem in entry.problems)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("mqtt", '; did you mean "actility-mqtt-iot"?'),
        ("actility-mqt-iot", '; did you mean "actility-mqtt-iot"?'),
        ("x", ""),
    ],
)
def test_suggestions(word: str, told: str) -> None:
    assert suggestion(word, ["actility-mqtt-iot", "actility-http-iot"]) == told


@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("\n".join(f"k{n} = 1" for n in range(5_000)), "plant.toml:7:1: configuration.k0: unknown key"),
        (f"topics = [{'5,' * 5_000}]", "plant.toml:7:11: configuration.topics[0]: the number is not a table"),
        (
            f"chainedWithConnectionIds = [{'5.5,' * 5_000}]",
            "plant.toml:7:29: configuration.chainedWithConnectionIds[0]: the number is not text",
        ),
    ],
)
def test_of_thousands_of_problems_twenty_are_told_and_the_others_counted(line: str, first: str) -> None:
    problems = told(plant(more=line))
    assert len(problems) == 21
    assert problems[0].startswith(first)
    assert problems[-1] == "plant.toml: and 4980 more; mend these first"


def test_of_thousands_of_warnings_twenty_are_told(tmp_path: Path) -> None:
    headers = ", ".join(f'h{n} = {{ env = "H{n}" }}' for n in range(1_000))
    problems = told(plant(more=f"headers = {{ {headers} }}"), lenient=True)
    assert len(problems) == 21
    assert problems[-1] == "warning: plant.toml: and 980 more; mend these first"
