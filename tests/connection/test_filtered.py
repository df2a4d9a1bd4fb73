"""What a connector leaves out by its file's rules: it counts as filtered, and proves nothing about the far end."""

from __future__ import annotations

import logging

import pytest

from tests.connection.doubles import make_uplink
from tpxd.connection.debug_log import DebugLog
from tpxd.connection.in_hand import SUSPECT_AFTER, BatchReceipts, InHand
from tpxd.spool import Fate, Filtered

REASON = "the registry has no such device"


def flying(*seqs: int) -> InHand:
    in_hand = InHand()
    in_hand.take([make_uplink(seq) for seq in seqs], lambda uplink: uplink.body)
    in_hand.sending = len(seqs)
    return in_hand


def test_it_is_settled_as_filtered_and_is_no_receipt() -> None:
    in_hand = flying(1, 2)
    receipts = BatchReceipts(in_hand, in_hand.next_batch(9))
    receipts.filtered(0, REASON)
    assert in_hand.settled_prefix() == [(1, Filtered.UNREGISTERED)]
    assert (in_hand.sending, in_hand.receipted, in_hand.proven) == (1, False, False)
    assert in_hand.progress.is_set()


def test_a_second_word_is_not_heard() -> None:
    in_hand = flying(1)
    receipts = BatchReceipts(in_hand, in_hand.next_batch(9))
    receipts.delivered(0)
    receipts.filtered(0, REASON)
    assert in_hand.settled_prefix() == [(1, Fate.DELIVERED)]
    assert in_hand.sending == 0


def test_nobody_is_convicted_by_it() -> None:
    in_hand = flying(1, 2, 3)
    for _ in range(SUSPECT_AFTER + 1):
        in_hand.poison.lost(1)
    second = in_hand.next_batch(9)
    assert [item.uplink.seq for item in second] == [2]
    BatchReceipts(in_hand, second).filtered(0, REASON)
    assert in_hand.poison.suspect == 1
    assert in_hand.settled_prefix() == []
    assert [item.uplink.seq for item in in_hand.next_batch(9)] == [3], "the next one is the witness instead"


def test_a_suspect_that_is_left_out_is_suspected_no_more() -> None:
    in_hand = flying(1, 2)
    for _ in range(SUSPECT_AFTER):
        in_hand.poison.lost(1)
    alone = in_hand.next_batch(9)
    BatchReceipts(in_hand, alone).filtered(0, REASON)
    assert [item.uplink.seq for item in alone] == [1]
    assert in_hand.poison.suspect is None


def test_debug_mode_tells_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    in_hand = flying(1)
    batch = in_hand.next_batch(9)
    BatchReceipts(in_hand, batch).filtered(0, REASON)
    with caplog.at_level(logging.INFO):
        DebugLog("plant", float("inf")).batch(batch, 0.001)
    assert f": filtered, {REASON};" in caplog.text
