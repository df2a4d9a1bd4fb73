"""A memory that forgets with the test."""

from __future__ import annotations

import trio

from tpxd.errors import SpoolUnavailable


class Notebook:
    """A `connector.Memory`."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def recall(self, key: str) -> str | None:
        """What was kept under the key."""
        return self.kept.get(key)

    async def remember(self, key: str, value: str) -> None:
        """Keep it as long as the test lasts."""
        await trio.lowlevel.checkpoint()
        self.kept[key] = value


class Forgetful(Notebook):
    """A memory that cannot keep anything until it `works`."""

    works = False

    async def remember(self, key: str, value: str) -> None:
        """Keep it, or not."""
        if not self.works:
            raise SpoolUnavailable("the disk is full")
        await super().remember(key, value)
