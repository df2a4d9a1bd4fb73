"""A spool in memory, and reports as the LRC sends them."""

from __future__ import annotations

from hashlib import sha256

import orjson

from tpxd.errors import SpoolUnavailable
from tpxd.spool import Appended, NewReport, ReportStore, SpoolStatistics

KEY = "7d1e9a40c3b85f2206e4d7913ab6f85c"
AS_ID = "TWA_100009421.77.AS"
TIME = "2025-03-04T09:15:22.481+01:00"
TIME_S = 1_741_076_122.481
TOKEN = "e4f32380a9c2b5cf19e6011b018f7f0b08ba825b7478970b3459cd15fc006a8b"
FIELDS = {
    "Time": "2025-03-04T09:15:21.902+01:00",
    "DevEUI": "70B3D5E75E00A1C4",
    "FPort": 5,
    "FCntUp": 4211,
    "payload_hex": "016700f1026855",
    "CustomerID": "100009421",
}
BODY = orjson.dumps({"DevEUI_uplink": FIELDS})
UNSIGNED = f"LrnDevEui=70B3D5E75E00A1C4&LrnFPort=5&LrnInfos={AS_ID}-1-884120"
SIGNED = f"{UNSIGNED}&AS_ID={AS_ID}&Time=2025-03-04T09%3A15%3A22.481%2B01%3A00"


def signed(
    *, customer: str = "100009421", f_port: int = 5, f_cnt_up: int = 4211, payload: str = "016700f1026855"
) -> str:
    """The query of a signed uplink, its Token computed here and not by what is tested."""
    hashed = f"{customer}70B3D5E75E00A1C4{f_port}{f_cnt_up}{payload}{UNSIGNED}&AS_ID={AS_ID}&Time={TIME}{KEY}"
    return f"{SIGNED}&Token={sha256(hashed.encode()).hexdigest()}"


class MemoryStore(ReportStore):
    """Keeps what it is given; the same body is a duplicate. `failing` makes it refuse."""

    def __init__(self) -> None:
        self.stored: list[NewReport] = []
        self.failing: SpoolUnavailable | None = None

    async def append(self, report: NewReport) -> Appended:
        if self.failing:
            raise self.failing
        for seq, earlier in enumerate(self.stored, 1):
            if earlier.body == report.body:
                return Appended(seq, True)
        self.stored.append(report)
        return Appended(len(self.stored), False)

    def statistics(self) -> SpoolStatistics:
        return SpoolStatistics(
            used_bytes=0,
            max_bytes=0,
            free_bytes=0,
            oldest_ms=None,
            newest_ms=None,
            stored_total=len(self.stored),
            duplicates_total=0,
            duplicates_since_ms=0,
            storing=self.failing is None,
            last_error=None if self.failing is None else self.failing.message,
        )
