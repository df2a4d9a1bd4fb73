"""Downlinks on a real disk: rows there and back, verdicts in one transaction with their note, damage, older files."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.downlinks.downlink_doubles import AS_KEY, DEV_EUI, read_back, right
from tests.spool.house import House, append_all
from tpxd.errors import SpoolUnavailable
from tpxd.lorawan.downlinks import Downlink
from tpxd.lorawan.reports import DOWNLINK_REJECTED
from tpxd.spool import DownlinkState, NewReport, SpoolLimits, StoredDownlink
from tpxd.spool.downlinks import downlink_from_row


def stored(id: int = 1, **more: Any) -> StoredDownlink:
    downlink = right(CorrelationID=f"{id:X}", AS_ID="TWA_1", AS_KEY=AS_KEY)
    return StoredDownlink(id, "plant", 1_795_000_000_000, "m", DEV_EUI, 5, downlink.correlation_id, downlink, **more)


def verdict(number: int = 1, connection: str = "plant") -> NewReport:
    body = orjson.dumps({DOWNLINK_REJECTED: {"DevEUI": DEV_EUI, "CorrelationID": f"{number:X}"}})
    return NewReport(DOWNLINK_REJECTED, DEV_EUI, "", body, recipient=connection)


def same(found: StoredDownlink, wanted: StoredDownlink) -> bool:
    return all(getattr(found, name) == getattr(wanted, name) for name in StoredDownlink.__slots__)


# ---- rows

texts = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.integers(0, 2**32 - 1)
maybe_flag = st.none() | st.booleans()
downlinks = st.builds(
    Downlink,
    dev_eui=texts,
    f_port=st.integers(1, 224),
    payload_hex=texts,
    f_cnt_dn=st.none() | numbers,
    af_cnt_dn=st.none() | numbers,
    confirmed=maybe_flag,
    flush_queue=maybe_flag,
    valid_until_s=st.none() | st.floats(0, 4e9),
    validity_in_seconds=st.booleans(),
    correlation_id=texts,
    as_id=st.none() | texts,
    as_key=st.none() | texts,
    retry_ineligible_gateways=maybe_flag,
)
stored_downlinks = st.builds(
    StoredDownlink,
    id=st.integers(1, 2**62),
    connection=texts,
    received_ms=numbers,
    mark=texts,
    dev_eui=texts,
    f_port=st.none() | st.integers(0, 255),
    correlation_id=texts,
    downlink=st.none() | downlinks,
    state=st.sampled_from(DownlinkState),
    acknowledged=st.booleans(),
    changed_ms=numbers,
    tries=numbers,
    doubts=numbers,
    cause=texts,
    status=st.none() | numbers,
    verdict=st.none() | texts.map(str.encode),
    transmitted=st.none() | st.dictionaries(texts, texts | numbers | st.floats(allow_nan=False, allow_infinity=False)),
    version=numbers,
)


@given(stored_downlinks)
def test_a_downlink_comes_back_from_its_row_as_it_was(downlink: StoredDownlink) -> None:
    found = downlink_from_row(read_back(downlink.to_row()))
    assert found is not None
    assert same(found, downlink)


@given(stored_downlinks, st.data())
def test_a_row_in_which_anything_changed_is_none(downlink: StoredDownlink, data: st.DataObject) -> None:
    row = list(read_back(downlink.to_row()))
    at = data.draw(st.integers(0, len(row) - 1))
    value = row[at]
    row[at] = value + 1 if isinstance(value, int) else value + b"x" if isinstance(value, bytes) else b""
    assert downlink_from_row(tuple(row)) is None


def test_the_key_stands_in_a_column_of_its_own() -> None:
    *others, key, _ = stored().to_row()
    assert key == AS_KEY
    assert all(AS_KEY not in str(field) and AS_KEY.encode() not in read_back([field]) for field in others)


# ---- on a disk


async def test_what_was_written_is_there_after_a_restart(house: House) -> None:
    async with house.open() as spool:
        store = spool.downlinks
        rows = [stored(id) for id in range(1, 301)]
        await store.write(rows, (), {"plant": {"received": 300}, "": {"received": 1}})
        rows[0].state, rows[0].version = DownlinkState.SENT, 1
        await store.write([rows[0]], (2, 3, 999), {"plant": {"received": 301}})
    async with house.open() as spool:
        loaded = await spool.downlinks.load()
    assert [downlink.id for downlink in loaded.downlinks] == [1, *range(4, 301)]
    assert same(loaded.downlinks[0], rows[0])
    assert (loaded.counts, loaded.damaged) == ({"plant": {"received": 301}, "": {"received": 1}}, 0)


async def test_a_verdict_and_its_note_are_one(house: House) -> None:
    async with house.open() as spool:
        store = spool.downlinks
        cursor, other = await spool.cursor("plant"), await spool.cursor("office")
        await store.write([stored()], (), {}, [verdict(1), verdict(2)])
        batch = await cursor.next_batch(10, 1 << 20)
        assert [(uplink.kind, uplink.lane, uplink.recipient) for uplink in batch] == [
            (DOWNLINK_REJECTED, DEV_EUI, "plant")
        ] * 2
        assert [uplink.body for uplink in batch] == [verdict(1).body, verdict(2).body]
        assert {uplink.received_ms for uplink in batch} == {int(house.now_s * 1000)}
        assert (cursor.ledger.received, other.ledger.received) == (2, 2)
        # equal verdicts are those of different downlinks
        await store.write([stored()], (), {}, [verdict(1)])
        assert cursor.ledger.received == 3


async def test_without_room_for_the_verdict_its_note_is_not_written(house: House) -> None:
    house.limits, house.free = SpoolLimits(min_free_bytes=1 << 20, refuse_when_full=True), 0
    done = stored(state=DownlinkState.REJECTED, version=1)
    async with house.open() as spool:
        store = spool.downlinks
        cursor = await spool.cursor("plant")
        await store.write([stored()], (), {})
        with pytest.raises(SpoolUnavailable, match="full"):
            await store.write([done], (), {}, [verdict()])
        assert [downlink.state for downlink in (await store.load()).downlinks] == [DownlinkState.WAITING]
        assert cursor.ledger.received == 0
    house.free = 1 << 40
    async with house.open() as spool:
        store = spool.downlinks
        await store.write([done], (), {}, [verdict()])
        assert [downlink.state for downlink in (await store.load()).downlinks] == [DownlinkState.REJECTED]


async def test_damaged_rows_are_counted_once_and_deleted(house: House) -> None:
    async with house.open() as spool:
        await spool.downlinks.write([stored(id) for id in range(1, 6)], (), {"plant": {"received": 5}})
    house.sql("UPDATE commands SET state = 'sent' WHERE id = 2")
    house.sql("UPDATE commands SET as_key = NULL WHERE id = 4")
    for damaged in (2, 0):
        async with house.open() as spool:
            loaded = await spool.downlinks.load()
        assert [downlink.id for downlink in loaded.downlinks] == [1, 3, 5]
        assert (loaded.damaged, loaded.counts["plant"]["received"]) == (damaged, 5)


@pytest.mark.parametrize("uplinks", [0, 50])
async def test_a_spool_from_before_there_were_downlinks_opens_as_it_is(house: House, uplinks: int) -> None:
    async with house.open() as spool:
        cursor = await spool.cursor("plant")
        await append_all(spool, range(uplinks))
    house.sql("DROP TABLE commands")
    house.sql("DROP TABLE ahead")
    house.sql("PRAGMA user_version = 1")
    async with house.open() as spool:
        store = spool.downlinks
        assert (await store.load()).downlinks == []
        await store.write([stored()], (), {})
        cursor = await spool.cursor("plant")
        assert cursor.ledger.waiting == uplinks
    async with house.open() as spool:
        assert [downlink.id for downlink in (await spool.downlinks.load()).downlinks] == [1]
    assert house.events == []


async def test_a_key_leaves_the_disk_with_the_end_of_its_downlink(house: House) -> None:
    downlink = stored()
    async with house.open() as spool:
        store = spool.downlinks
        await store.write([downlink], (), {})
        assert downlink.downlink is not None
        downlink.downlink, downlink.state = right(CorrelationID="1"), DownlinkState.SENT
        await store.write([downlink], (), {})
    content = house.path.read_bytes()
    assert AS_KEY.encode() not in content
