"""Devices and the registry of AWS IoT: who is asked for, registered, left out, held, and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.connectors.opening import context
from tests.notebook import Notebook
from tests.wire.scripted_registry import (
    BROKEN,
    DENIED,
    KEY_ID,
    REGION,
    SECRET,
    THROTTLED,
    Fault,
    ScriptedRegistry,
)
from tpxd.connectors.aws_iot.registry import Registry, open_registry
from tpxd.connectors.aws_iot.sigv4 import Signer
from tpxd.connectors.aws_iot.things import ABSENT_S, PARALLEL, REFUSED_REST_S, REST_S, Introduction, ThingRules, Things
from tpxd.errors import AuthenticationFailed, ConnectFailed, Refused, SpoolUnavailable, Throttled, TransportError
from tpxd.events import Event
from tpxd.wire.streams import Endpoint

ARN = "arn:aws:iot:eu-central-1:076081621542:cert/28e7cc38a99f78b3"
A, B, C = (f"70B3D5E75E00A1C{n}" for n in (4, 5, 6))
FINE = Introduction()


class Site:
    """A registry, and what a connection remembers of it across openings."""

    def __init__(self, nursery: trio.Nursery, **parts: Any) -> None:
        self.registry = ScriptedRegistry(**parts)
        self.memory = Notebook()
        self.away = False
        self.troubles: list[TransportError | None] = []
        self.events: list[Event] = []
        self.now = 1_700_000_000.0
        self._nursery = nursery

    def open(self, **rules: Any) -> Things:
        """What one opening of the connection knows."""
        return Things(
            ThingRules("abc-ats", **{"type_name": "sensor"} | rules),
            context(memory=self.memory, troubled=self.troubles.append, tell=self.events.append),
            self._ask,
            lambda: self.now,
        )

    def _ask(self) -> AbstractAsyncContextManager[Registry]:
        endpoint, signer = Endpoint("iot.example.net", 80), Signer(KEY_ID, SECRET, REGION, "iot")
        return open_registry(endpoint, signer, self._dial, connect_timeout_s=5, answer_timeout_s=10)

    async def _dial(self, endpoint: Endpoint, timeout_s: float) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise ConnectFailed(f"{endpoint}: connection refused (TCP)", hint="is it up?")
        near, far = memory_stream_pair()
        self._nursery.start_soon(self.registry.serve, far)
        return near

    def asked(self) -> list[str]:
        """What the registry was asked since this was last called, without the common part of the paths."""
        asked, self.registry.asked = self.registry.asked, []
        return [line.replace("/things/", "").replace("/thing-types/", "type ") for line in asked]


@pytest.fixture
def make_site(nursery: trio.Nursery) -> Callable[..., Site]:
    return lambda **parts: Site(nursery, **parts)


# ---- createDevices = true


async def test_each_device_is_registered_once(make_site: Callable[..., Site]) -> None:
    site = make_site()
    things = site.open()
    assert not things.known(A)
    assert await things.introduce([A, B]) == FINE
    assert things.known(A)
    assert things.known(B)
    assert site.registry.things == {A: "sensor", B: "sensor"}
    assert site.asked() == ["POST type sensor", f"POST {A}", f"POST {B}"]

    again = site.open()
    assert again.known(A)
    assert await again.introduce([C]) == FINE
    assert site.asked() == [f"POST {C}"]


async def test_the_certificate_is_attached(make_site: Callable[..., Site]) -> None:
    site = make_site()
    await site.open(certificate_id=ARN).introduce([A])
    assert site.registry.attached == [(ARN, A)]
    assert site.asked() == ["POST type sensor", f"POST {A}", f"PUT {A}/principals"]


@pytest.mark.parametrize("rules", [{"type_name": "other"}, {"certificate_id": ARN}, {"create": False}])
async def test_other_rules_ask_anew(make_site: Callable[..., Site], rules: dict[str, Any]) -> None:
    site = make_site()
    await site.open().introduce([A])
    assert not site.open(**rules).known(A)


async def test_a_thing_that_exists_is_taken_as_it_is(make_site: Callable[..., Site]) -> None:
    site = make_site(things={A: "other"}, types={"sensor"})
    things = site.open()
    assert await things.introduce([A]) == FINE
    assert things.known(A)
    assert site.registry.things == {A: "other"}


async def test_a_type_that_was_removed_is_made_again(make_site: Callable[..., Site]) -> None:
    site = make_site()
    await site.open().introduce([A])
    site.registry.types.clear()
    site.asked()
    assert await site.open().introduce([B]) == FINE
    assert site.asked() == [f"POST {B}", "POST type sensor", f"POST {B}"]


async def test_a_missing_type_that_is_not_to_be_made_is_told(make_site: Callable[..., Site]) -> None:
    site = make_site()
    assert await site.open(create_types=False).introduce([A]) == FINE
    (trouble,) = site.troubles
    assert trouble is not None
    assert "no thing type sensor" in str(trouble)
    assert "createDeviceTypes = true" in (trouble.hint or "")
    assert site.asked() == [f"POST {A}"]


async def test_a_policy_without_thing_types_is_enough_where_the_type_is_there(make_site: Callable[..., Site]) -> None:
    site = make_site(types={"sensor"}, always={"POST /thing-types/": DENIED})
    assert await site.open().introduce([A]) == FINE
    assert site.registry.things == {A: "sensor"}


async def test_a_policy_without_thing_types_is_named_where_the_type_is_missing(make_site: Callable[..., Site]) -> None:
    site = make_site(always={"POST /thing-types/": DENIED})
    assert await site.open().introduce([A]) == FINE
    (trouble,) = site.troubles
    assert trouble is not None
    assert trouble.hint == "allow iot:CreateThingType in the IAM policy of accessKeyId"


@pytest.mark.parametrize(
    ("path", "action"), [("POST /things/", "CreateThing"), (f"PUT /things/{B}/", "AttachThingPrincipal")]
)
async def test_a_policy_that_forbids_is_told_and_tried_again_after_a_rest_while_uplinks_go(
    make_site: Callable[..., Site], path: str, action: str, autojump_clock: MockClock
) -> None:
    site = make_site(always={path: DENIED})
    things = site.open(certificate_id=ARN)
    assert await things.introduce([B]) == FINE
    assert not things.known(B)
    (trouble,) = site.troubles
    assert trouble is not None
    assert f"not registered, their uplinks go: iot.example.net: iot:{action}: 403" in str(trouble)
    assert trouble.hint == f"allow iot:{action} in the IAM policy of accessKeyId"

    site.asked()
    site.registry.always.clear()
    await trio.sleep(REFUSED_REST_S - 0.1)
    assert await things.introduce([B]) == FINE
    assert site.asked() == []
    await trio.sleep(0.1)
    assert await things.introduce([B]) == FINE
    assert things.known(B)
    assert site.troubles == [trouble, None]
    assert site.registry.attached == [(ARN, B)]


async def test_a_policy_that_forbids_to_look_holds_where_nobody_knows_what_is_wanted(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(always={"GET": DENIED})
    introduction = await site.open(create=False).introduce([A])
    assert introduction.held == {A}
    assert isinstance(introduction.error, AuthenticationFailed)
    assert introduction.error.hint == "allow iot:DescribeThing in the IAM policy of accessKeyId"
    assert site.troubles == []


async def test_while_the_registry_is_away_uplinks_go_and_devices_are_registered_later(
    make_site: Callable[..., Site], autojump_clock: MockClock
) -> None:
    site = make_site()
    site.away = True
    things = site.open()
    assert await things.introduce([A]) == FINE
    assert await things.introduce([A, B]) == FINE
    (trouble,) = site.troubles
    assert "connection refused (TCP)" in str(trouble)
    assert not things.known(A)

    site.away = False
    await trio.sleep(REST_S)
    assert await things.introduce([A]) == FINE
    assert site.troubles == [trouble, None]
    assert site.registry.things == {A: "sensor"}


@pytest.mark.parametrize(("fault", "rest_s"), [(THROTTLED, 7.0), (BROKEN, REST_S)])
async def test_patience_is_obeyed(
    make_site: Callable[..., Site], fault: Fault, rest_s: float, autojump_clock: MockClock
) -> None:
    site = make_site(types={"sensor"}, always={f"POST /things/{C}": fault})
    things = site.open(create_types=False)
    assert await things.introduce([A, C]) == FINE
    assert things.known(A)
    assert bool(site.troubles) is (fault is BROKEN), "to be asked for patience is no trouble"
    site.asked()
    await trio.sleep(rest_s - 0.1)
    assert await things.introduce([B]) == FINE
    assert site.asked() == [], "not even for another device"
    await trio.sleep(0.1)
    assert await things.introduce([B]) == FINE
    assert site.asked() == [f"POST {B}"]


async def test_many_are_registered_few_at_a_time(make_site: Callable[..., Site]) -> None:
    site = make_site()
    many = [f"70B3D5E75E{n:06X}" for n in range(50)]
    assert await site.open().introduce(many) == FINE
    assert set(site.registry.things) == set(many)
    assert len(site.asked()) == 51
    assert site.registry.most_at_once <= PARALLEL


async def test_a_cancelled_registration_leaves_no_link(
    make_site: Callable[..., Site], autojump_clock: MockClock
) -> None:
    site = make_site(silent=True)
    tasks = trio.lowlevel.current_statistics().tasks_living
    with trio.move_on_after(1) as scope:
        await site.open().introduce([A])
    assert scope.cancelled_caught
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_a_full_disk_is_told_and_costs_another_question(
    make_site: Callable[..., Site], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site()

    async def full(key: str, value: str) -> None:
        await trio.lowlevel.checkpoint()
        raise SpoolUnavailable("the disk is full")

    monkeypatch.setattr(site.memory, "remember", full)
    things = site.open()
    assert await things.introduce([A]) == FINE
    assert things.known(A)
    assert "the disk is full" in caplog.text
    assert not site.open().known(A)


# ---- createDevices = false


async def test_devices_that_are_not_there_are_left_out_and_asked_for_after_an_hour(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(things={A: "any"})
    things = site.open(create=False)
    assert await things.introduce([A, B]) == Introduction(absent={B})
    assert things.known(A)
    assert site.asked() == [f"GET {A}", f"GET {B}"]
    assert site.registry.things == {A: "any"}

    site.now += ABSENT_S - 1
    assert await site.open(create=False).introduce([B]) == Introduction(absent={B})
    assert site.asked() == []

    site.now += 1
    assert await site.open(create=False).introduce([B]) == Introduction(absent={B})
    assert site.asked() == [f"GET {B}"]
    assert [(event.kind, event.more) for event in site.events] == [("device", {"DevEUI": B})], "told once"

    site.registry.things[B] = "any"
    site.now += ABSENT_S
    assert await site.open(create=False).introduce([B]) == FINE
    assert site.open(create=False).known(B)


async def test_while_the_registry_is_away_only_devices_never_asked_for_are_held(
    make_site: Callable[..., Site],
) -> None:
    site = make_site()
    await site.open(create=False).introduce([A])
    site.away = True
    site.now += 2 * ABSENT_S
    introduction = await site.open(create=False).introduce([A, B])
    assert (introduction.absent, introduction.held) == ({A}, {B})
    assert type(introduction.error) is Refused
    assert "connection refused" in str(introduction.error)
    assert introduction.error.hint == "is it up?"
    assert await site.open(create=False).introduce([A]) == Introduction(absent={A})


async def test_patience_is_passed_on(make_site: Callable[..., Site]) -> None:
    site = make_site(always={"GET": THROTTLED})
    introduction = await site.open(create=False).introduce([A])
    assert introduction.held == {A}
    assert isinstance(introduction.error, Throttled)
    assert introduction.error.retry_after_s == 7


async def test_a_server_that_is_no_registry_proves_no_absence(make_site: Callable[..., Site]) -> None:
    site = make_site(always={"GET": Fault(404, "")})
    introduction = await site.open(create=False).introduce([A])
    assert introduction.held == {A}
    assert isinstance(introduction.error, Refused)
    assert introduction.error.hint == "is apiEndpoint the address of an AWS IoT registry?"
