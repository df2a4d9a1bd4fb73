"""The book of downlinks: its laws under any sequence of events and crashes, and what it finds, keeps and forgets."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.downlinks.downlink_doubles import AS_KEY, DEV_EUI, NOW_S, make_book, read_back, right, wrong
from tpxd.downlinks import book as downlink_book
from tpxd.downlinks.book import Changed, DownlinkBook, fingerprint
from tpxd.downlinks.customers import Customers
from tpxd.downlinks.documents import WRONG
from tpxd.lorawan.downlinks import Downlink, DownlinkError
from tpxd.spool import DownlinkState, LoadedDownlinks, StoredDownlink
from tpxd.spool.downlinks import downlink_from_row

CONNECTIONS = ("plant", "office", "")
DEVICES = ("70B3D5E75E00A1C4", "70B3D5E75E00A1C5")
FINAL = (DownlinkState.SENT, DownlinkState.REJECTED, DownlinkState.EXPIRED)


# ---- laws


class BookAndDisk(RuleBasedStateMachine):
    """Whatever happens, and whenever the daemon crashes, the book adds up and keeps each device's order."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[int, tuple[Any, ...]] = {}
        self.counts: dict[str, dict[str, int]] = {}
        self.received: Counter[str] = Counter()
        self.received_on_disk: Counter[str] = Counter()
        self.entered: list[int] = []
        self.dirty: dict[int, StoredDownlink] = {}
        self.forgotten: list[int] = []
        self._begin(LoadedDownlinks([], {}, 0))

    def _begin(self, loaded: LoadedDownlinks) -> None:
        self.dirty.clear()
        self.forgotten.clear()
        changed: Changed = lambda downlink, counts: self.dirty.update({downlink.id: downlink})  # noqa: E731
        self.book = DownlinkBook(loaded, changed, self.forgotten.append, Customers(), lambda: NOW_S)

    def _pick(self, data: st.DataObject) -> StoredDownlink:
        return data.draw(st.sampled_from(self.book.open))

    @rule(
        connection=st.sampled_from(CONNECTIONS),
        device=st.sampled_from(DEVICES),
        kind=st.sampled_from(["right", "wrong", "refused", "withdrawn", "wrong and withdrawn"]),
        mark=st.sampled_from(["", "m1", "m2"]),
    )
    def enter(self, connection: str, device: str, kind: str, mark: str) -> None:
        wanted: Downlink | DownlinkError = right(DevEUI=device, AS_KEY=AS_KEY)
        if kind.startswith("wrong"):
            wanted = wrong(dev_eui=device)
        downlink = self.book.enter(connection, wanted, mark, "no LRC" if kind == "refused" else None)
        assert downlink.state.final == (kind not in ("right", "withdrawn"))
        if kind.endswith("withdrawn"):
            self.book.withdraw(downlink)
            self.dirty.pop(downlink.id)
        else:
            self.received[connection] += 1

    @precondition(lambda self: self.book.open)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.book.begin(self._pick(data))

    @precondition(lambda self: self.book.open)
    @rule(data=st.data(), doubtful=st.booleans())
    def comes_back(self, data: st.DataObject, doubtful: bool) -> None:
        (self.book.doubt if doubtful else self.book.hold)(self._pick(data), "no answer")

    @precondition(lambda self: self.book.open)
    @rule(data=st.data(), state=st.sampled_from(FINAL))
    def end(self, data: st.DataObject, state: DownlinkState) -> None:
        downlink = self._pick(data)
        self.book.end(downlink, state, "so it is", 350)
        assert downlink.downlink is not None
        assert downlink.downlink.as_key is None
        unhappy = state is not DownlinkState.SENT
        assert (downlink.verdict is not None) == (unhappy and downlink.connection != "")

    @precondition(lambda self: self.book.open)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        self.book.acknowledge(self._pick(data))

    @rule()
    def save(self) -> None:
        kept = {id: downlink for id, downlink in self.dirty.items() if self.book.find(id) is downlink}
        self.rows |= {id: downlink.to_row() for id, downlink in kept.items()}
        for id in self.forgotten:
            self.rows.pop(id, None)
        self.counts = {id: self.book.counts(id).durable() for id in CONNECTIONS}
        self.received_on_disk = self.received.copy()
        self.dirty.clear()
        self.forgotten.clear()

    @rule()
    def crash(self) -> None:
        found = [downlink_from_row(read_back(row)) for _, row in sorted(self.rows.items())]
        self._begin(LoadedDownlinks([c for c in found if c is not None], self.counts, 0))
        self.received = self.received_on_disk.copy()

    @invariant()
    def it_adds_up(self) -> None:
        waiting = Counter(downlink.connection for downlink in self.book.open)
        for connection in CONNECTIONS:
            counts = self.book.counts(connection)
            assert counts.received == self.received[connection]
            assert counts.received == counts.sent + counts.rejected + counts.expired + counts.waiting
            assert counts.waiting == waiting[connection]
        assert self.book.open_count == len(self.book.open)

    @invariant()
    def order_is_kept(self) -> None:
        open_ids = [downlink.id for downlink in self.book.open]
        assert open_ids == sorted(open_ids)
        for device in DEVICES:
            newest = self.book.of_device(device, 100)
            assert [c.id for c in newest] == sorted((c.id for c in newest), reverse=True)
            assert [c.id for c in reversed(newest) if not c.state.final] == [
                c.id for c in self.book.open if c.dev_eui == device
            ]
            assert self.book.of_device(device, 2) == newest[:2]


@pytest.fixture(autouse=True, scope="module")
def few_are_kept() -> Any:
    """So few that forgetting is part of what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downlink_book, "KEPT", 6)
        yield


TestBookAndDisk = BookAndDisk.TestCase


# ---- what comes again


@given(st.text(max_size=9), st.binary(max_size=9), st.text(max_size=9), st.binary(max_size=9))
def test_fingerprints_are_equal_where_topic_and_body_are(a: str, b: bytes, c: str, d: bytes) -> None:
    assert (fingerprint(a, b) == fingerprint(c, d)) == ((a, b) == (c, d))


def test_what_is_not_acknowledged_may_come_again_and_each_one_once() -> None:
    book = make_book()
    first, second = (book.enter("plant", right(), "m", None) for _ in range(2))
    met = {first.id}
    assert book.redelivered("plant", "m", ()) is first
    assert book.redelivered("plant", "m", met) is second
    assert book.redelivered("plant", "m", {first.id, second.id}) is None
    assert book.redelivered("office", "m", ()) is None
    book.acknowledge(first)
    assert book.redelivered("plant", "m", ()) is second
    book.acknowledge(second)
    assert book.redelivered("plant", "m", ()) is None
    assert book.taken_before("plant", "m")
    assert not book.taken_before("office", "m")


def test_what_is_forgotten_or_withdrawn_is_not_recognised() -> None:
    book = make_book()
    withdrawn = book.enter("plant", right(), "m", None)
    book.withdraw(withdrawn)
    assert not book.taken_before("plant", "m")
    assert book.redelivered("plant", "m", ()) is None
    old = book.enter("plant", right(), "m", None)
    book.end(old, DownlinkState.SENT, "", 200)
    for _ in range(downlink_book.KEPT):
        book.end(book.enter("plant", right(), "another", None), DownlinkState.SENT, "", 200)
    assert book.find(old.id) is None
    assert not book.taken_before("plant", "m")
    assert book.redelivered("plant", "m", ()) is None


def test_what_a_broker_may_retain_is_recognised_however_many_came_since() -> None:
    book = make_book()
    retained = {}
    for device in DEVICES[:2]:
        for port in (5, 6):
            downlink = book.enter("plant", right(DevEUI=device, FPort=port), f"{device} {port}", None)
            book.end(downlink, DownlinkState.SENT, "", 200)
            retained[downlink.mark] = downlink
    kept: list[StoredDownlink] = []
    for n in range(20 * downlink_book.KEPT):
        kept.append(book.enter("plant", right(DevEUI=DEVICES[0], FPort=7), f"{n}", None))
        book.end(kept[-1], DownlinkState.SENT, "", 200)
    assert all(book.taken_before("plant", mark) for mark in retained)
    assert sum(book.find(downlink.id) is downlink for downlink in kept) <= downlink_book.KEPT
    again = make_book(*retained.values())
    for n in range(3 * downlink_book.KEPT):
        again.end(again.enter("plant", right(FPort=7), f"{n}", None), DownlinkState.SENT, "", 200)
    assert all(again.taken_before("plant", mark) for mark in retained), "after a restart too"


@given(st.lists(st.tuples(st.sampled_from(DEVICES), st.integers(1, 9)), max_size=200))
def test_what_is_kept_is_bounded_however_many_devices_there_are(places: list[tuple[str, int]]) -> None:
    book = make_book()
    downlinks: list[StoredDownlink] = []
    for device, port in places:
        downlinks.append(book.enter("plant", right(DevEUI=device, FPort=port), f"{len(downlinks)}", None))
        book.end(downlinks[-1], DownlinkState.SENT, "", 200)
    found = [downlink for downlink in downlinks if book.find(downlink.id) is downlink]
    assert len(found) <= 3 * downlink_book.KEPT
    newest = dict(zip(places, downlinks, strict=True))
    latest = sorted(newest.values(), key=lambda downlink: downlink.id)[-downlink_book.KEPT :]
    assert all(downlink in found for downlink in latest)


# ---- what is kept


def test_the_newest_are_kept_and_none_whose_sender_does_not_know_yet() -> None:
    forgotten: list[int] = []
    book = make_book(forgotten=forgotten.append)
    owed = book.enter("plant", wrong(), "", None)
    for _ in range(3 * downlink_book.KEPT):
        book.end(book.enter("", right(), "", None), DownlinkState.SENT, "", 200)
    assert owed.verdict is not None
    assert book.find(owed.id) is owed
    assert [downlink.id for downlink in book.of_device(DEV_EUI, 1_000)] == [19, 18, 17, 16, 15, owed.id]
    assert forgotten == list(range(2, 15))
    owed.verdict = None
    for _ in range(downlink_book.KEPT):
        book.end(book.enter("", right(), "", None), DownlinkState.SENT, "", 200)
    assert book.find(owed.id) is None
    assert book.counts("plant").rejected == 1, "the counters forget nothing"


def test_open_ones_are_never_forgotten() -> None:
    book = make_book()
    waiting = [book.enter("plant", right(), "", None) for _ in range(3)]
    for _ in range(3 * downlink_book.KEPT):
        book.enter("plant", wrong(dev_eui=""), "", None)
    assert book.open == waiting


def test_it_is_full_at_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downlink_book, "MAX_OPEN", 4)
    book = make_book()
    book.enter("plant", right(), "", None)
    book.enter("plant", wrong(), "", None)
    fill = [book.full("plant")]
    last = book.enter("plant", right(), "", None)
    fill.append(book.full("plant"))
    book.end(last, DownlinkState.SENT, "", 200)
    assert [*fill, book.full("plant")] == [False, True, False]


@given(st.lists(st.sampled_from(["plant", "office", ""]), max_size=200))
@example(["plant"] * 30 + ["office"] * 15 + [""] * 15)
def test_a_connection_that_floods_leaves_room_for_the_others(given: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downlink_book, "MAX_OPEN", 60)
        book = make_book()
        for connection in given:
            if not book.full(connection):
                book.enter(connection, right(), "", None)
        assert book.open_count < 60
        assert not book.full("newcomer")
        # the first may take half of all, the second half of what is left then, and so on
        for connection in ("plant", "office", ""):
            assert book.counts(connection).waiting >= min(60 // 2**3, given.count(connection))


def test_a_wrong_downlink_is_over_at_once_and_says_why() -> None:
    book = make_book()
    downlink = book.enter("plant", wrong(f_port=7, correlation_id="A1"), "m", None)
    assert (downlink.state, downlink.cause, downlink.status) == (DownlinkState.REJECTED, "FPort is missing", WRONG)
    assert (downlink.downlink, downlink.f_port, downlink.correlation_id) == (None, 7, "A1")
    assert downlink.verdict is not None
    nobody = book.enter("plant", wrong(dev_eui=""), "m", None)
    assert nobody.verdict is None, "no device, so no report"


@pytest.mark.parametrize(
    ("received", "found"), [(5, (5, 2, 2, 1)), (4, (4, 2, 1, 1)), (1, (4, 2, 1, 1)), (0, (4, 2, 1, 1))]
)
def test_what_damage_took_away_counts_as_rejected(received: int, found: tuple[int, ...]) -> None:
    waits = make_book().enter("plant", right(), "", None)
    counts = make_book(waits, plant={"received": received, "sent": 2, "rejected": 1}).counts("plant")
    assert (counts.received, counts.sent, counts.rejected, counts.waiting) == found
