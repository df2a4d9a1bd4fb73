"""What passes the crash barrier, and what ends there."""

from __future__ import annotations

import pytest
import trio

from tpxd.errors import behind_barrier


async def test_an_answer_passes() -> None:
    async def work() -> int:
        await trio.lowlevel.checkpoint()
        return 7

    assert await behind_barrier(work, "work") == 7


async def test_a_bug_ends_here_and_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError("oops")

    error = await behind_barrier(work, "connection %s", "plant")
    assert isinstance(error, ZeroDivisionError)
    assert "connection plant: crashed" in caplog.text
    assert "Traceback" in caplog.text


async def test_cancellation_passes() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await behind_barrier(trio.sleep_forever, "work")
    assert scope.cancelled_caught


async def test_cancellation_passes_beside_a_bug_which_then_goes_on() -> None:
    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError("while being cancelled")

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await trio.sleep_forever()

    scope = trio.CancelScope()
    with pytest.RaisesGroup(ZeroDivisionError, allow_unwrapped=True, flatten_subgroups=True), scope:
        scope.cancel()
        await behind_barrier(work, "work")
    assert scope.cancel_called
