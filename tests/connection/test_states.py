"""States follow one another as the table says; one that may not is shown, and logged as the bug that it is."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.connection.doubles import MemoryCursor
from tpxd.connection.health import Health
from tpxd.connection.states import FIRST, NEXT, PASSING, ConnectionState, ImpossibleTransition, check_transition
from tpxd.events import Event

DRAWN = [
    "CLOSED OPENING AUTHENTICATING OPENED CLOSING CLOSED DEACTIVATED",
    "CLOSED OPENING AUTHENTICATING AUTHENTICATION_FAILED",
]
"""The ways of ThingPark's own diagram."""

states = st.sampled_from(ConnectionState)


def health() -> tuple[Health, list[Event]]:
    events: list[Event] = []
    return Health("plant", MemoryCursor(), events.append), events


def reached(begin: ConnectionState) -> set[ConnectionState]:
    """Every state to which some way leads from this one."""
    found, left = {begin}, [begin]
    while left:
        new = NEXT[left.pop()] - found
        found |= new
        left += new
    return found


@pytest.mark.parametrize("way", DRAWN)
def test_the_ways_of_thingparks_diagram_are_in_the_table(way: str) -> None:
    for before, after in pairwise(map(ConnectionState, way.split())):
        check_transition(before, after)


@pytest.mark.parametrize("state", ConnectionState)
def test_no_state_is_a_dead_end(state: ConnectionState) -> None:
    assert reached(state) == set(ConnectionState)
    assert state not in NEXT[state], "the same again is no transition"


def test_a_link_is_open_only_after_it_was_opened_and_a_version_at_work_is_never_invalid() -> None:
    before = {after: {state for state in ConnectionState if after in NEXT[state]} for after in ConnectionState}
    assert before[ConnectionState.OPENED] == {ConnectionState.OPENING, ConnectionState.AUTHENTICATING}
    assert before[ConnectionState.AUTHENTICATING] == {ConnectionState.OPENING}
    assert before[ConnectionState.CLOSING] == {ConnectionState.OPENED}
    assert before[ConnectionState.INVALID] == {ConnectionState.CLOSED, ConnectionState.DEACTIVATED}
    assert all(NEXT[state] - PASSING for state in PASSING), "what passes ends in what lasts"


@given(st.lists(states, max_size=30))
def test_the_table_is_all_that_is_refused(wanted: list[ConnectionState]) -> None:
    for before, after in pairwise([FIRST, *wanted]):
        if after is before or after in NEXT[before]:
            check_transition(before, after)
        else:
            with pytest.raises(ImpossibleTransition, match=f"{after} cannot follow {before}"):
                check_transition(before, after)


def test_a_bug_is_logged_with_its_place_and_the_state_is_shown_truthfully(
    caplog: pytest.LogCaptureFixture,
) -> None:
    subject, events = health()
    subject.enter(ConnectionState.OPENED)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.ERROR,
        "plant: a bug: OPENED cannot follow CLOSED; the state is shown all the same",
    )
    assert record.stack_info is not None
    assert "test_states.py" in record.stack_info
    assert subject.to_document()["state"] == "OPENED"
    assert [event.message for event in events] == ["plant: OPENED"]
    caplog.clear()


def test_another_reason_for_the_same_state_is_no_transition() -> None:
    subject, _ = health()
    subject.enter(ConnectionState.CLOSED, "connection refused")
    assert subject.reason == "connection refused"
