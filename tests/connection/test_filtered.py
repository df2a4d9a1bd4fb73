"""What a connector leaves out by its file's rules: it counts as filtered, and proves nothing about the far end."""

from __future__ import annotations

import logging

import pytest

from tests.connection.doubles import make_uplink
from tpxd.connection.debug_log import DebugLog
from tpxd.connection.in_hand import SUSPECT_AFTER, BatchReceipts, Flight
from tpxd.spool import Filtered, Verdict

REASON = "the registry has no such device"


def flying(*seqs: int) -> Flight:
    flight = Flight()
    flight.take([make_uplink(seq) for seq in seqs], lambda uplink: uplink.body)
    flight.sending = len(seqs)
    return flight


def test_it_is_settled_as_filtered_and_is_no_receipt() -> None:
    flight = flying(1, 2)
    receipts = BatchReceipts(flight, flight.next_batch(9))
    receipts.filtered(0, REASON)
    assert flight.settled_prefix() == [(1, Filtered.UNREGISTERED)]
    assert (flight.sending, flight.receipted, flight.proven) == (1, False, False)
    assert flight.progress.is_set()


def test_a_second_word_is_not_heard() -> None:
    flight = flying(1)
    receipts = BatchReceipts(flight, flight.next_batch(9))
    receipts.delivered(0)
    receipts.filtered(0, REASON)
    assert flight.settled_prefix() == [(1, Verdict.DELIVERED)]
    assert flight.sending == 0


def test_nobody_is_convicted_by_it() -> None:
    flight = flying(1, 2, 3)
    for _ in range(SUSPECT_AFTER + 1):
        flight.poison.lost(1)
    second = flight.next_batch(9)
    assert [item.uplink.seq for item in second] == [2]
    BatchReceipts(flight, second).filtered(0, REASON)
    assert flight.poison.suspect == 1
    assert flight.settled_prefix() == []
    assert [item.uplink.seq for item in flight.next_batch(9)] == [3], "the next one is the witness instead"


def test_a_suspect_that_is_left_out_is_suspected_no_more() -> None:
    flight = flying(1, 2)
    for _ in range(SUSPECT_AFTER):
        flight.poison.lost(1)
    alone = flight.next_batch(9)
    BatchReceipts(flight, alone).filtered(0, REASON)
    assert [item.uplink.seq for item in alone] == [1]
    assert flight.poison.suspect is None


def test_debug_mode_tells_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    flight = flying(1)
    batch = flight.next_batch(9)
    BatchReceipts(flight, batch).filtered(0, REASON)
    with caplog.at_level(logging.INFO):
        DebugLog("plant", float("inf")).batch(batch, 0.001)
    assert f": filtered, {REASON};" in caplog.text
