"""The suspicion state machine: who is convicted, who is acquitted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tpxd.connection.in_hand import Poison, Sending


def sending(poison: Poison) -> Sending:
    return poison.sending


def lose(poison: Poison, seq: int | None, times: int) -> None:
    for _ in range(times):
        assert poison.lost(seq) is False


def test_three_losses_with_the_same_oldest_send_it_alone() -> None:
    poison = Poison()
    lose(poison, 7, 2)
    assert sending(poison) is Sending.ALL
    lose(poison, 7, 1)
    assert sending(poison) is Sending.OLDEST_ALONE


def test_the_fourth_loss_sets_it_aside_and_a_receipt_for_the_next_convicts_it() -> None:
    poison = Poison()
    lose(poison, 7, 4)
    assert sending(poison) is Sending.SECOND_ALONE
    assert poison.receipt(8) == 7
    assert sending(poison) is Sending.ALL
    assert poison.suspect is None


def test_a_loss_on_the_next_one_too_acquits_both() -> None:
    poison = Poison()
    lose(poison, 7, 4)
    assert poison.lost(8) is True
    assert sending(poison) is Sending.ALL
    assert poison.suspect is None


def test_a_receipt_for_the_suspect_acquits_it() -> None:
    poison = Poison()
    lose(poison, 7, 3)
    assert poison.receipt(7) is None
    assert sending(poison) is Sending.ALL
    lose(poison, 7, 2)
    assert sending(poison) is Sending.ALL, "the count began anew"


def test_another_oldest_begins_another_count() -> None:
    poison = Poison()
    lose(poison, 7, 2)
    lose(poison, 9, 2)
    assert sending(poison) is Sending.ALL
    lose(poison, 9, 1)
    assert sending(poison) is Sending.OLDEST_ALONE


def test_a_loss_with_nothing_in_flight_changes_nothing() -> None:
    poison = Poison()
    lose(poison, 7, 2)
    lose(poison, None, 5)
    assert sending(poison) is Sending.ALL
    lose(poison, 7, 1)
    assert sending(poison) is Sending.OLDEST_ALONE


@given(st.integers(1, 30), st.integers(0, 29))
def test_exactly_the_poisonous_one_of_a_queue_is_convicted(length: int, place: int) -> None:
    """A far end that dies whenever it sees one certain uplink, and takes all others."""
    queue = list(range(length))
    bad = place % length
    poison, convicted, delivered, rounds = Poison(), [], [], 0
    while queue and rounds < 20:
        rounds += 1
        slices = {Sending.ALL: slice(None), Sending.OLDEST_ALONE: slice(1), Sending.SECOND_ALONE: slice(1, 2)}
        batch = queue[slices[poison.sending]]
        if not batch:
            break  # the suspect waits for a next one
        for seq in batch:
            if seq == bad:
                poison.lost(queue[0])
                break
            delivered.append(seq)
            queue.remove(seq)
            guilty = poison.receipt(seq)
            if guilty is not None:
                convicted.append(guilty)
                queue.remove(guilty)
    assert set(convicted) <= {bad}
    assert delivered == [seq for seq in range(length) if seq != bad]
    if bad != length - 1:
        assert convicted == [bad]
