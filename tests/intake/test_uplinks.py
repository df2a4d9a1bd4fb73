"""`POST /uplink`: what is stored, what is refused, and in which order that is decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from tests.intake.doubles import AS_ID, BODY, FIELDS, KEY, SIGNED, TIME_S, TOKEN, UNSIGNED, MemoryStore, signed
from tpxd.errors import SpoolUnavailable
from tpxd.intake.counters import IntakeCounters
from tpxd.intake.routes import Route
from tpxd.intake.uplinks import uplink_route
from tpxd.lorawan.reports import Report
from tpxd.lorawan.token import TokenCheck
from tpxd.wire.http import Request, Response


class Intake:
    """The route with a store in memory and a clock that stands still."""

    def __init__(
        self, keys: dict[str, str] | None = None, *, now_s: float = TIME_S, accept_unsigned: bool = False
    ) -> None:
        self.store = MemoryStore()
        self.claimed = {"DevEUI_uplink"}
        self.counters = IntakeCounters(lambda: now_s)
        tokens = TokenCheck(keys or {}, 60.0, accept_unsigned)
        self.route: Route = uplink_route(
            self.store,
            tokens,
            self.counters,
            lambda: now_s,
            lambda report: report.kind in self.claimed,
            self._is_known,
        )
        self.heard: list[dict[str, Any]] = []
        self.known = False

    def _is_known(self, report: Report) -> bool:
        self.heard.append(report.fields)
        return self.known

    async def post(self, body: bytes, query: str = UNSIGNED, content_type: str | None = "application/json") -> Response:
        headers = {b"content-type": content_type.encode()} if content_type else {}
        return await self.route(Request("POST", "/uplink", query, headers, body, "192.0.2.7"))

    @property
    def refused(self) -> dict[str, Any]:
        refused: dict[str, Any] = self.counters.to_document()["refused"]
        return refused


def error(response: Response) -> str:
    message = orjson.loads(response.body)["error"]
    assert isinstance(message, str)
    assert "\n" not in message
    assert response.content_type == "application/json"
    return message


def fields_of(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    return dict(headers)


async def test_an_uplink_is_stored_as_it_came() -> None:
    intake = Intake()
    body = b" " + BODY.replace(b'":', b'" : ')
    response = await intake.post(body)
    assert (response.status, response.body) == (200, b"")
    (report,) = intake.store.stored
    assert (report.kind, report.lane, report.lrn_infos) == ("DevEUI_uplink", "70B3D5E75E00A1C4", f"{AS_ID}-1-884120")
    assert report.body == body
    assert report.document == {"DevEUI_uplink": FIELDS}
    assert (intake.counters.accepted_total, intake.counters.duplicates_total) == (1, 0)


async def test_what_no_connection_takes_is_stored_and_counted() -> None:
    intake = Intake()
    await intake.post(BODY)
    assert intake.counters.unclaimed_total == 0
    intake.claimed.clear()
    for counter in (1, 2):
        response = await intake.post(BODY.replace(b"70B3D5E75E00A1C4", b"70B3D5E75E00A1C%d" % counter))
        assert response.status == 200
    assert intake.counters.to_document()["unclaimed"] == 2


@pytest.mark.parametrize("kind", ["DevEUI_downlink_Sent", "DevEUI_multicast_summary"])
async def test_a_report_about_a_downlink_that_is_known_is_claimed_by_whoever_sent_it(kind: str) -> None:
    intake = Intake()
    for known in (True, False):
        intake.known = known
        body = orjson.dumps({kind: FIELDS | {"FCntDn": int(known)}})
        assert (await intake.post(body)).status == 200
    assert len(intake.heard) == 2
    assert intake.counters.unclaimed_total == 1


async def test_xml_is_stored_as_json() -> None:
    intake = Intake()
    xml = b'<?xml version="1.0"?><DevEUI_uplink xmlns="http://uri.actility.com/lora"><DevEUI>70b3d5e75e00a1c4</DevEUI>'
    response = await intake.post(xml + b"<FPort>5</FPort></DevEUI_uplink>", content_type="application/xml")
    assert response.status == 200
    (report,) = intake.store.stored
    assert report.lane == "70B3D5E75E00A1C4"
    assert orjson.loads(report.body)["DevEUI_uplink"]["DevEUI"] == "70b3d5e75e00a1c4"


async def test_a_duplicate_is_told_that_it_is_stored() -> None:
    intake = Intake()
    assert [(await intake.post(BODY)).status for _ in range(3)] == [200, 200, 200]
    assert len(intake.store.stored) == 1
    assert (intake.counters.accepted_total, intake.counters.duplicates_total) == (3, 2)


async def test_a_query_without_lrn_infos() -> None:
    intake = Intake()
    assert (await intake.post(BODY, query="")).status == 200
    assert intake.store.stored[0].lrn_infos == ""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        BODY[:40],
        b"[1,2]",
        b"null",
        b'{"DevEUI_uplink": []}',
        b'{"DevEUI_uplink": {"DevEUI": "../x"}}',
        b"[" * 90_000,
    ],
    ids=lambda body: repr(body[:20]),
)
async def test_what_is_no_report(body: bytes) -> None:
    intake = Intake({AS_ID: KEY})
    response = await intake.post(body, query=signed())
    assert response.status == 400
    assert error(response)
    assert intake.store.stored == []
    assert intake.refused["report"]["last"]["peer"] == "192.0.2.7"


async def test_the_published_token_is_let_in() -> None:
    intake = Intake({AS_ID: KEY})
    assert (await intake.post(BODY, query=f"{SIGNED}&Token={TOKEN}")).status == 200
    assert (await intake.post(BODY, query=signed())).status == 200


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (UNSIGNED, "missing"),
        (SIGNED, "missing"),
        (f"{SIGNED}&Token={TOKEN[:-1]}0", "token"),
        (signed(payload="00"), "token"),
        (signed().replace(f"AS_ID={AS_ID}", "AS_ID=other"), "as_id"),
    ],
)
async def test_what_is_not_authenticated_is_not_stored(query: str, reason: str) -> None:
    intake = Intake({AS_ID: KEY})
    response = await intake.post(BODY, query=query)
    assert response.status == 401
    assert b"WWW-Authenticate" in fields_of(response.headers)
    assert KEY not in error(response)
    assert intake.store.stored == []
    assert list(intake.refused) == [reason]
    last = intake.refused[reason]["last"]
    assert (last["DevEUI"], last["peer"]) == ("70B3D5E75E00A1C4", "192.0.2.7")
    assert last["AS_ID"] == (None if "AS_ID" not in query else "other" if reason == "as_id" else AS_ID)
    assert TOKEN not in str(intake.counters.to_document())


@pytest.mark.parametrize("body", [b"<x" * 10_000, b"[" * 10_000, b"", b'<?xml version="1.0" encoding="x"?><x/>'])
async def test_without_a_token_no_body_is_read(body: bytes) -> None:
    intake = Intake({AS_ID: KEY})
    for query, reason in ((UNSIGNED, "missing"), (signed().replace(AS_ID, "other"), "as_id")):
        assert (await intake.post(body, query)).status == 401
        assert intake.refused[reason]["last"]["DevEUI"] == "70B3D5E75E00A1C4"
    assert (await Intake({AS_ID: KEY}, accept_unsigned=True).post(body, UNSIGNED)).status == 400
    assert "report" not in intake.refused


async def test_a_token_is_good_for_one_body() -> None:
    intake = Intake({AS_ID: KEY})
    for _ in range(2):
        assert (await intake.post(BODY, signed())).status == 200
    for other in (
        {**FIELDS, "LrrRSSI": -71.0},
        {**FIELDS, "FCntUp": 421101, "payload_hex": "6700f1026855"},
    ):
        response = await intake.post(orjson.dumps({"DevEUI_uplink": other}), signed())
        assert (response.status, error(response)) == (401, "this Token came before, with another body")
    assert (await intake.post(BODY, signed())).status == 200
    last = intake.refused["token"]["last"]
    assert (last["AS_ID"], last["DevEUI"]) == (AS_ID, "70B3D5E75E00A1C4")
    assert len(intake.store.stored) == 1


@pytest.mark.parametrize(("off_s", "status"), [(0.0, 200), (59.9, 200), (-59.9, 200), (61.0, 401), (-61.0, 401)])
async def test_a_report_must_be_timely(off_s: float, status: int) -> None:
    intake = Intake({AS_ID: KEY}, now_s=TIME_S - off_s)
    assert (await intake.post(BODY, query=signed())).status == status
    if status == 401:
        assert intake.refused["time"]["last"]["timeDifferenceSeconds"] == off_s


@pytest.mark.parametrize(
    ("time", "difference"), [("2025-03-04T08:15:22.481", 0.0), ("2025-03-04T09:15:22.481+01:00", 0.0), ("soon", None)]
)
async def test_the_time_difference_is_told_where_there_is_one(time: str, difference: float | None) -> None:
    intake = Intake({AS_ID: KEY})
    await intake.post(BODY, query=f"{UNSIGNED}&AS_ID=other&Time={time}&Token={TOKEN}")
    ((_, refused),) = intake.refused.items()
    assert refused["last"]["timeDifferenceSeconds"] == difference


@pytest.mark.parametrize(("accept", "status"), [(False, 401), (True, 200)])
async def test_types_without_a_token_rule_are_counted_by_type(accept: bool, status: int) -> None:
    intake = Intake({AS_ID: KEY}, accept_unsigned=accept)
    body = orjson.dumps({"DevEUI_multicast_summary": FIELDS})
    assert (await intake.post(body, query=f"{SIGNED}&Token={TOKEN}")).status == status
    assert len(intake.store.stored) == (status == 200)
    if status == 401:
        assert intake.refused["undocumented"]["types"] == {"DevEUI_multicast_summary": 1}


async def test_a_spool_that_cannot_store() -> None:
    intake = Intake()
    intake.store.failing = SpoolUnavailable("the disk is full", retry_after_s=7)
    response = await intake.post(BODY)
    assert response.status == 503
    assert fields_of(response.headers)[b"Retry-After"] == b"7"
    assert error(response) == "the disk is full"
    assert intake.refused["spool"]["last"]["DevEUI"] == "70B3D5E75E00A1C4"
    assert intake.counters.accepted_total == 0


async def test_the_spool_is_not_asked_about_what_is_not_authenticated() -> None:
    intake = Intake({AS_ID: KEY})
    intake.store.failing = SpoolUnavailable("the disk is full")
    assert (await intake.post(BODY)).status == 401
