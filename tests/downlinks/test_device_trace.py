"""What people are shown about a device: its reports and downlinks in one order, and a downlink in each state."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import orjson
import pytest

from tests.connection.doubles import make_uplink
from tests.downlinks.downlink_doubles import AS_KEY, DEV_EUI, NOW_S, make_book, right
from tpxd.downlinks.book import DownlinkBook
from tpxd.downlinks.documents import MAX_FIELD, downlink_document, trace_document
from tpxd.lorawan.downlinks import DownlinkError
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import DownlinkState, Filtered, Outcome, StoredDownlink
from tpxd.spool.fates import DELIVERED, WAITING


def doubted(book: DownlinkBook, downlink: StoredDownlink) -> None:
    book.begin(downlink)
    book.doubt(downlink, "no answer")


@pytest.mark.parametrize(
    ("happens", "shown"),
    [
        (lambda book, downlink: None, ("waiting", False, None)),
        (lambda book, downlink: book.begin(downlink), ("sending", False, None)),
        (lambda book, downlink: book.hold(downlink, "no connection"), ("waiting", False, "no connection")),
        (doubted, ("doubtful", False, "no answer")),
        (lambda book, downlink: book.end(downlink, DownlinkState.SENT, "queued", 200), ("sent", True, "queued")),
        (lambda book, downlink: book.end(downlink, DownlinkState.EXPIRED, "late", 408), ("expired", True, "late")),
    ],
)
def test_a_downlink_in_each_state(
    happens: Callable[[DownlinkBook, StoredDownlink], None], shown: tuple[str, bool, str | None]
) -> None:
    book = make_book()
    downlink = book.enter("plant", right(AS_KEY=AS_KEY, AS_ID="TWA_1", CorrelationID="A1", ValidityTime=60), "m", None)
    happens(book, downlink)
    document = downlink_document(downlink)
    assert (document["state"], document["final"], document["cause"]) == shown
    assert (document["DevEUI"], document["FPort"], document["payload_hex"], document["CorrelationID"]) == (
        (DEV_EUI, 5, "02ff", "A1")
    )
    assert document["connection"] == "plant"
    assert document["ValidityTime"] == "2026-11-18T11:07:40.000Z"
    assert AS_KEY.encode() not in orjson.dumps(document)


def test_a_downlink_tells_since_when_it_is_in_its_state() -> None:
    clock = count(int(NOW_S))
    book = make_book(wall=lambda: next(clock))
    downlink = book.enter("plant", right(), "", None)
    steps: list[Callable[[], None]] = [
        lambda: book.begin(downlink),
        lambda: book.hold(downlink, "no connection"),
        lambda: book.begin(downlink),
        lambda: book.doubt(downlink, "no answer"),
        lambda: book.end(downlink, DownlinkState.SENT, "queued", 200),
    ]
    changed = [downlink.changed_ms]
    for step in steps:
        step()
        changed.append(downlink.changed_ms)
    assert changed == [int(NOW_S + n) * 1000 for n in range(6)]


def test_a_wrong_downlink_shows_what_could_be_read() -> None:
    error = DownlinkError("FPort", "is missing")
    error.dev_eui = "12"
    document = downlink_document(make_book().enter("", error, "", None))
    assert (document["DevEUI"], document["payload_hex"], document["connection"]) == ("12", None, None)
    assert document["CorrelationID"] is None
    assert (document["state"], document["cause"], document["status"]) == ("rejected", "FPort is missing", 400)


def test_reports_and_downlinks_come_in_the_order_of_their_arrival() -> None:
    book = make_book()
    downlink = book.enter("plant", right(), "", None)
    book.transmit(downlink, {"DeliveryStatus": 0, "DeliveryFailedCause1": "A0", "Lrrid": "x" * 500, "CustomerID": "1"})
    at_ms = int(NOW_S * 1000)
    verdict = Uplink(9, at_ms + 2, "DevEUI_uplink", DEV_EUI, "", b'{"DevEUI_uplink":{}}', recipient="plant")
    uplinks = [make_uplink(8, received_ms=at_ms + 1, FPort=2), verdict, make_uplink(7, received_ms=at_ms - 1)]
    rejected = Outcome("rejected", "404 Not Found")
    fates = {
        7: {"plant": DELIVERED, "office": rejected},
        8: {"plant": WAITING, "office": DELIVERED},
        9: {"plant": WAITING, "office": Outcome("filtered", Filtered.RECIPIENT.value)},
    }
    document: list[Any] = trace_document(uplinks, [downlink], fates)
    assert [entry["type"] for entry in document] == ["DevEUI_uplink", "DevEUI_downlink", *["DevEUI_uplink"] * 2]
    assert document[0]["connections"] == {"plant": "delivered", "office": "rejected"}
    assert document[0]["why"] == {"office": "404 Not Found"}
    assert document[2]["connections"] == {"plant": "waiting", "office": "delivered"}
    assert document[3]["connections"] == {"plant": "waiting"}
    assert document[2]["fields"] == {"FPort": 2, "FCntUp": 8}
    sent = {"DeliveryStatus": 0, "DeliveryFailedCause1": "A0", "Lrrid": "x" * MAX_FIELD}
    assert document[1]["transmitted"] == sent


def test_what_came_in_one_millisecond_keeps_its_order() -> None:
    book = make_book()
    for _ in range(3):
        book.enter("plant", right(), "", None)
    at_ms = int(NOW_S * 1000)
    uplinks = [make_uplink(seq, received_ms=at_ms) for seq in (9, 8, 7)]
    document = trace_document(uplinks, book.of_device(DEV_EUI, 10), {})
    assert [entry["seq"] for entry in document if "seq" in entry] == [7, 8, 9]
    assert [entry["id"] for entry in document if "id" in entry] == [1, 2, 3]
