"""What the control plane needs to know of the daemon, and what it may ask it to do."""

from __future__ import annotations

from typing import Any, Protocol

Document = dict[str, Any]
"""Plain JSON values."""


class ControlState(Protocol):
    """The daemon as the control plane sees it. What is not `async` is called between two awaits."""

    def connections(self) -> dict[str, Document]:
        """The health documents of all connections by id."""

    def connection(self, id: str) -> Document | None:
        """One connection's health document, None when there is none of that id."""

    def intake_health(self) -> Document:
        """What intake accepted and refused; `healthy`, and `reason` when it is not, besides its own keys."""

    def lrc_health(self) -> Document:
        """How downlinks reach the LRC; `healthy` and `reason` as above."""

    def spool_health(self) -> Document:
        """How full the spool is; `healthy` and `reason` as above."""

    def kept_queues(self) -> dict[str, Document]:
        """The queues whose file is gone, by id: how many uplinks are `waiting`, and `until` when they are kept."""

    def problems(self) -> list[str]:
        """What is wrong with files that are no connection's, such as one whose name is no id."""

    def live(self) -> tuple[bool, str | None]:
        """Whether the parts that must never stand still moved, and if not, which did not."""

    def ready(self) -> tuple[bool, str | None]:
        """Whether uplinks are taken, and if not, why."""

    def reconnect(self, id: str | None) -> bool:
        """Try one connection, or all, again now; False when there is none of that id."""

    def reload(self) -> None:
        """Read the files again soon."""

    async def send_downlink(self, body: bytes) -> tuple[int, Document]:
        """Take a DevEUI_downlink; returns when it is on disk.

        Returns:
            202 and the downlink, 400 or 503 and a `message` that says why not.
        """

    def downlink(self, id: int) -> Document | None:
        """What became of a downlink so far, None when it is not known."""

    async def trace(self, dev_eui: str, limit: int) -> list[Document]:
        """The newest reports and downlinks of a device (16 hex digits in upper case), oldest of them first.

        Raises:
            SpoolUnavailable: the disk cannot be read.
        """

    def events(self, count: int, connection: str | None) -> list[Document]:
        """The newest events, oldest of them first; of one connection, or of all."""
