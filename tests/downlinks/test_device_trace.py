"""What people are shown about a device: its reports and commands in one order, and a command in each of its states."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import orjson
import pytest

from tests.connection.doubles import make_uplink
from tests.downlinks.downlink_doubles import AS_KEY, DEV_EUI, NOW_S, make_book, right
from tpxd.downlinks.book import CommandBook
from tpxd.downlinks.documents import MAX_FIELD, command_document, trace_document
from tpxd.lorawan.downlinks import DownlinkError
from tpxd.lorawan.uplink import Uplink
from tpxd.spool import CommandState, Filtered, Outcome, StoredCommand
from tpxd.spool.fates import DELIVERED, WAITING


def doubted(book: CommandBook, command: StoredCommand) -> None:
    book.begin(command)
    book.doubt(command, "no answer")


@pytest.mark.parametrize(
    ("happens", "shown"),
    [
        (lambda book, command: None, ("waiting", False, None)),
        (lambda book, command: book.begin(command), ("sending", False, None)),
        (lambda book, command: book.hold(command, "no connection"), ("waiting", False, "no connection")),
        (doubted, ("doubtful", False, "no answer")),
        (lambda book, command: book.end(command, CommandState.SENT, "queued", 200), ("sent", True, "queued")),
        (lambda book, command: book.end(command, CommandState.EXPIRED, "late", 408), ("expired", True, "late")),
    ],
)
def test_a_command_in_each_state(
    happens: Callable[[CommandBook, StoredCommand], None], shown: tuple[str, bool, str | None]
) -> None:
    book = make_book()
    command = book.enter("plant", right(AS_KEY=AS_KEY, AS_ID="TWA_1", CorrelationID="A1", ValidityTime=60), "m", None)
    happens(book, command)
    document = command_document(command)
    assert (document["state"], document["final"], document["cause"]) == shown
    assert (document["DevEUI"], document["FPort"], document["payload_hex"], document["CorrelationID"]) == (
        (DEV_EUI, 5, "02ff", "A1")
    )
    assert document["connection"] == "plant"
    assert document["ValidityTime"] == "2026-11-18T11:07:40.000Z"
    assert AS_KEY.encode() not in orjson.dumps(document)


def test_a_command_tells_since_when_it_is_in_its_state() -> None:
    clock = count(int(NOW_S))
    book = make_book(wall=lambda: next(clock))
    command = book.enter("plant", right(), "", None)
    steps: list[Callable[[], None]] = [
        lambda: book.begin(command),
        lambda: book.hold(command, "no connection"),
        lambda: book.begin(command),
        lambda: book.doubt(command, "no answer"),
        lambda: book.end(command, CommandState.SENT, "queued", 200),
    ]
    changed = [command.changed_ms]
    for step in steps:
        step()
        changed.append(command.changed_ms)
    assert changed == [int(NOW_S + n) * 1000 for n in range(6)]


def test_a_wrong_command_shows_what_could_be_read() -> None:
    error = DownlinkError("FPort", "is missing")
    error.dev_eui = "12"
    document = command_document(make_book().enter("", error, "", None))
    assert (document["DevEUI"], document["payload_hex"], document["connection"]) == ("12", None, None)
    assert document["CorrelationID"] is None
    assert (document["state"], document["cause"], document["status"]) == ("rejected", "FPort is missing", 400)


def test_reports_and_commands_come_in_the_order_of_their_arrival() -> None:
    book = make_book()
    command = book.enter("plant", right(), "", None)
    book.transmit(command, {"DeliveryStatus": 0, "DeliveryFailedCause1": "A0", "Lrrid": "x" * 500, "CustomerID": "1"})
    at_ms = int(NOW_S * 1000)
    verdict = Uplink(9, at_ms + 2, "DevEUI_uplink", DEV_EUI, "", b'{"DevEUI_uplink":{}}', recipient="plant")
    uplinks = [make_uplink(8, received_ms=at_ms + 1, FPort=2), verdict, make_uplink(7, received_ms=at_ms - 1)]
    rejected = Outcome("rejected", "404 Not Found")
    fates = {
        7: {"plant": DELIVERED, "office": rejected},
        8: {"plant": WAITING, "office": DELIVERED},
        9: {"plant": WAITING, "office": Outcome("filtered", Filtered.RECIPIENT.value)},
    }
    document: list[Any] = trace_document(uplinks, [command], fates)
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
