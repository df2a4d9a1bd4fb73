"""Which downlink a DevEUI_downlink_Sent is about, and what that says about it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.downlinks.downlink_doubles import DEV_EUI, Lrc, engine, make_book, refused, right, wrong
from tpxd.downlinks import customers
from tpxd.downlinks.book import ON_AIR
from tpxd.downlinks.customers import Customers
from tpxd.downlinks.documents import downlink_document
from tpxd.lorawan.reports import UPLINK
from tpxd.spool import DownlinkState

DEVICES = ("70B3D5E75E00A1C4", "70B3D5E75E00A1C5")


def sent_report(**fields: Any) -> dict[str, Any]:
    return {"DevEUI": DEV_EUI, "FPort": 5, "FCntDn": 318, "DeliveryStatus": 1} | fields


def test_a_report_is_matched_by_its_correlation_id_however_it_is_written() -> None:
    book = make_book()
    downlink = book.enter("plant", right(CorrelationID="A1"), "", None)
    other = book.enter("plant", right(CorrelationID="00000000000000A1", DevEUI=DEVICES[1]), "", None)
    for written in ("A1", "a1", "00000000000000A1", "0xA1"):
        assert book.of_report(DEV_EUI, sent_report(CorrelationID=written)) is downlink
        assert book.of_report(DEVICES[1], sent_report(CorrelationID=written)) is other
    unknown: list[Any] = ["A2", "", "no hex", "-A1", "1" * 400, [1], {"a": 1}]
    for junk in unknown:
        assert book.of_report(DEV_EUI, sent_report(CorrelationID=junk)) is None
    book.transmit(downlink, sent_report(DeliveryFailedCause1="C0", Lrrid="1000A7F2", CustomerData={"a": 1}))
    assert downlink.transmitted == {
        "FCntDn": 318,
        "DeliveryStatus": 1,
        "DeliveryFailedCause1": "C0",
        "Lrrid": "1000A7F2",
    }


@pytest.mark.parametrize("first", ["silence", "report"])
def test_a_report_ends_the_doubt_whether_the_lrc_has_a_downlink(first: str) -> None:
    book = make_book()
    downlink = book.enter("plant", right(CorrelationID="A1"), "", None)
    book.begin(downlink)
    told = sent_report(CorrelationID="A1")
    if first == "silence":
        book.doubt(downlink, "no answer")
        book.transmit(downlink, told)
    else:
        book.transmit(downlink, told)
        assert downlink.state is DownlinkState.SENDING, "the answer may still come"
        book.doubt(downlink, "no answer")
    counts = book.counts("plant")
    assert (downlink.state, downlink.cause, downlink.verdict) == (DownlinkState.SENT, ON_AIR, None)
    assert (counts.sent, counts.waiting, counts.doubtful) == (1, 0, 1)


def test_a_report_that_may_be_about_another_downlink_ends_no_doubt() -> None:
    book = make_book()
    for fields in ({"CorrelationID": "A1"}, {"CorrelationID": "A2", "FCntDn": 317}):
        book.end(book.enter("plant", right(**fields), "", None), DownlinkState.SENT, "", 200)
    again = book.enter("plant", right(CorrelationID="a1"), "", None)
    counted = book.enter("plant", right(CorrelationID="A3", FCntDn=317), "", None)
    never = book.enter("plant", right(CorrelationID="A4"), "", None)
    for downlink in (again, counted):
        book.begin(downlink)
    for downlink in (again, counted, never):
        book.doubt(downlink, "no answer")
    book.transmit(again, sent_report(CorrelationID="A1"))
    book.transmit(counted, sent_report())
    book.transmit(never, sent_report(CorrelationID="A4"))
    assert {downlink.state for downlink in (again, counted, never)} == {DownlinkState.WAITING}


def test_of_equal_correlation_ids_the_newest_downlink_that_could_be_sent_counts() -> None:
    book = make_book()
    first = book.enter("plant", right(CorrelationID="A1"), "", None)
    newest = book.enter("plant", right(CorrelationID="A1"), "", None)
    book.enter("plant", wrong(correlation_id="A1"), "", None)
    assert book.of_report(DEV_EUI, sent_report(CorrelationID="A1")) is newest
    book.withdraw(first)
    assert book.of_report(DEV_EUI, sent_report(CorrelationID="A1")) is newest


def test_without_a_correlation_id_the_counter_decides() -> None:
    book = make_book()
    by_f_cnt_dn = book.enter("plant", right(FCntDn=317), "", None)
    by_af_cnt_dn = book.enter("plant", right(AFCntDn=400), "", None)
    book.enter("plant", right(DevEUI=DEVICES[1], FCntDn=500), "", None)
    assert book.of_report(DEV_EUI, sent_report()) is by_f_cnt_dn  # the report has the counter to use next
    assert book.of_report(DEV_EUI, sent_report(FCntDn="401")) is by_af_cnt_dn
    unknown: list[Any] = [317, 501, None, "x", [], {}]
    for junk in unknown:
        assert book.of_report(DEV_EUI, sent_report(FCntDn=junk)) is None


@given(st.dictionaries(st.sampled_from(["CorrelationID", "FCntDn"]), st.text() | st.integers() | st.none()))
def test_no_report_breaks_it(fields: dict[str, Any]) -> None:
    book = make_book()
    book.enter("plant", right(CorrelationID="A1", FCntDn=5), "", None)
    book.of_report(DEV_EUI, fields)


SUMMARY = {
    "DevEUI": DEV_EUI, "FPort": 3, "FCntDn": 318, "TransmissionStatus": "PARTIAL", "LrrCnt": 24, "LrrSuccessCnt": 21,
    "LrrFailedCnt": 3, "LrrFailedDistribution": "A3=1,D0=2", "CorrelationID": "A1", "CustomerID": "100009421",
}  # fmt: skip


def test_a_multicast_summary_is_about_the_downlink_whose_correlation_id_it_names() -> None:
    book = make_book()
    counted = book.enter("plant", right(FCntDn=317), "", None)
    downlink = book.enter("plant", right(CorrelationID="A1"), "", None)
    assert book.of_report(DEV_EUI, SUMMARY) is downlink
    bare = {name: value for name, value in SUMMARY.items() if name != "CorrelationID"}
    assert book.of_report(DEV_EUI, bare) is None
    assert book.of_report(DEV_EUI, {"FCntDn": 318}) is counted
    book.begin(downlink)
    book.doubt(downlink, "no answer")
    book.transmit(downlink, SUMMARY)
    assert (downlink.state, downlink.cause) == (DownlinkState.SENT, ON_AIR)
    document = downlink_document(downlink)
    assert document["transmitted"] == {
        name: value for name, value in SUMMARY.items() if name not in ("DevEUI", "FPort", "CustomerID")
    }
    assert document["onAir"].startswith("transmitted in part, by 21 of 24 base stations: 1 × A3")


def test_a_cause_that_is_a_code_goes_back_in_words() -> None:
    book = make_book()
    downlink = book.enter("plant", right(), "", None)
    book.end(downlink, DownlinkState.REJECTED, "E2", 350)
    assert downlink.verdict is not None
    assert b'"DownlinkRejectionCause":"E2, FCntDn is not valid"' in downlink.verdict


# ---- whose a device is


async def test_a_rejection_names_the_customer_that_a_report_of_the_device_brought(autojump_clock: MockClock) -> None:
    async with engine(lrc=Lrc(lambda asked: refused())) as plant:
        assert not plant.downlinks.heard(UPLINK, DEV_EUI, {"CustomerID": "100009421", "FCntUp": 1})
        assert not plant.downlinks.heard(UPLINK, DEV_EUI, {"FCntUp": 2})
        await plant.send()
        await plant.send(DevEUI=DEVICES[1])
        await plant.settled()
        found = {verdict["DevEUI"]: verdict.get("CustomerID") for verdict in plant.disk.verdicts()}
        assert found == {DEV_EUI: "100009421", DEVICES[1]: None}


def test_the_newest_report_says_whose_a_device_is_and_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(customers, "MOST_DEVICES", 3)
    known = Customers()
    for n in range(5):
        known.note(f"device {n}", "1")
    known.note("device 2", "2")
    known.note("device 5", 7)
    assert [known.of(f"device {n}") for n in range(6)] == [None, None, "2", None, "1", 7]
    for odd in ("", "x" * 65, None):
        known.note("device 2", odd)
    assert known.of("device 2") == "2"
