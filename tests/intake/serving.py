"""The data plane on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tpxd.config.settings import IntakeSettings, LrcSettings
from tpxd.intake.server import Intake, serve_intake
from tpxd.spool import ReportStore

ENOUGH_S = 10.0


@asynccontextmanager
async def serving(store: ReportStore, **settings: object) -> AsyncIterator[tuple[Intake, str]]:
    """An intake at a free port, and the `host:port` it has."""
    typed = IntakeSettings.model_validate({"listen": "127.0.0.1:0", **settings})
    intake = Intake(typed, LrcSettings(), store)
    with trio.fail_after(ENOUGH_S):
        async with trio.open_nursery() as nursery:
            (address,) = await nursery.start(serve_intake, intake)
            yield intake, address
            nursery.cancel_scope.cancel()
