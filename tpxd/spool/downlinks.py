"""A downlink as it is kept: in memory, and as a row that is rewritten whole when something about it changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import orjson

from tpxd.lorawan.downlinks import Downlink
from tpxd.spool.rows import Field, checked, with_crc


class DownlinkState(StrEnum):
    """Where a downlink is in its life; the last three are final."""

    WAITING = "waiting"
    SENDING = "sending"
    SENT = "sent"
    REJECTED = "rejected"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        """Nothing further is done for it."""
        return self not in (DownlinkState.WAITING, DownlinkState.SENDING)


@dataclass(slots=True, eq=False)
class StoredDownlink:
    """One downlink and what became of it. Not frozen: the event loop changes it, and saves it each time.

    Attributes:
        id: ascending in the order of acceptance.
        connection: where it came from; "" for the control plane.
        mark: fingerprint of topic and body, by which a redelivery is recognised; "" where there is none.
        dev_eui, f_port, correlation_id: of a wrong downlink, as far as they could be read.
        downlink: None where it was wrong from the start; of a final one, without its AS_KEY.
        state: SENDING from before the first byte goes to the LRC until its answer is known.
        acknowledged: whoever sent it was told that it is kept.
        changed_ms: when `state` was entered.
        tries: how often it was begun to be sent.
        doubts: how often it was written, and no answer came: so often the LRC may have taken it unnoticed.
        cause: the LRC's text, or why it ended; of a waiting one, why it still waits.
        status: the LRC's status code, or one of ours, None before there was any.
        verdict: the DevEUI_downlink_Rejected that still has to go out.
        transmitted: what DevEUI_downlink_Sent said about it.
        version: grows with each change.
    """

    id: int
    connection: str
    received_ms: int
    mark: str
    dev_eui: str
    f_port: int | None
    correlation_id: str
    downlink: Downlink | None
    state: DownlinkState = DownlinkState.WAITING
    acknowledged: bool = False
    changed_ms: int = 0
    tries: int = 0
    doubts: int = 0
    cause: str = ""
    status: int | None = None
    verdict: bytes | None = None
    transmitted: dict[str, Any] | None = None
    version: int = 0

    def to_row(self) -> tuple[Field, ...]:
        """The row as it is stored; the AS_KEY stands in a column of its own, which nothing that shows reads."""
        downlink, key = self.downlink, None
        if downlink is not None and downlink.as_key is not None:
            key, downlink = downlink.as_key, replace(downlink, as_key=None)
        details = {
            "mark": self.mark,
            "devEui": self.dev_eui,
            "fPort": self.f_port,
            "correlationId": self.correlation_id,
            "downlink": downlink,
            "changedMs": self.changed_ms,
            "tries": self.tries,
            "doubts": self.doubts,
            "cause": self.cause,
            "status": self.status,
            "verdict": None if self.verdict is None else self.verdict.decode(),
            "transmitted": self.transmitted,
        }
        head = (self.id, self.version, self.connection, self.received_ms, str(self.state), int(self.acknowledged))
        return with_crc("commands", (*head, orjson.dumps(details), key))


def downlink_from_row(row: tuple[Any, ...]) -> StoredDownlink | None:
    """The downlink of a stored row, None when its checksum does not hold."""
    fields = checked("commands", row)
    if fields is None:
        return None
    id, version, connection, received_ms, state, acknowledged, text, key = row[:-1]
    details = orjson.loads(text)
    downlink = details["downlink"]
    return StoredDownlink(
        id,
        connection.decode(),
        received_ms,
        details["mark"],
        details["devEui"],
        details["fPort"],
        details["correlationId"],
        None if downlink is None else Downlink(**downlink | {"as_key": None if key is None else key.decode()}),
        DownlinkState(state.decode()),
        bool(acknowledged),
        details["changedMs"],
        details["tries"],
        details["doubts"],
        details["cause"],
        details["status"],
        None if details["verdict"] is None else details["verdict"].encode(),
        details["transmitted"],
        version,
    )


@dataclass(frozen=True, slots=True)
class LoadedDownlinks:
    """What was found at the start: downlinks by ascending id, counters by connection, and how many rows are damaged."""

    downlinks: list[StoredDownlink]
    counts: dict[str, dict[str, int]]
    damaged: int
