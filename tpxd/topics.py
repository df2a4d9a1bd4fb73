"""Which topic or routing key goes with what: uplinks by FPort, reports about commands, commands by where they came.

Source: ThingPark X IoT Flow, "About connections", `uplinkTopicPattern`, `downlinkTopicPattern`, `topics`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from tpxd.connector import Outgoing, Receipts
from tpxd.errors import PatternError, Unresolvable
from tpxd.lorawan.patterns import Pattern
from tpxd.lorawan.reports import DOWNLINK_REJECTED, DOWNLINK_SENT

STATUS = frozenset({DOWNLINK_REJECTED, DOWNLINK_SENT})
"""The report types about commands, which `downlinkStatusTopicPattern` is for."""


class PortEntry(Protocol):
    """One of `topics`."""

    @property
    def fPort(self) -> int:
        """The FPort that it is for."""

    @property
    def uplinkTopicPattern(self) -> Pattern | None:
        """Instead of the connection's own."""

    @property
    def downlinkTopicPattern(self) -> Pattern | None:
        """Besides the connection's own."""


class TopicConfig(Protocol):
    """The part of a `[configuration]` that says where messages go to and come from."""

    @property
    def downlinkEnabled(self) -> bool:
        """Whether commands are wanted."""

    @property
    def uplinkTopicPattern(self) -> Pattern:
        """Where uplinks go."""

    @property
    def downlinkTopicPattern(self) -> Pattern | None:
        """Where commands come from."""

    @property
    def downlinkStatusTopicPattern(self) -> Pattern | None:
        """Where reports about commands go, instead of `uplinkTopicPattern`."""

    @property
    def topics(self) -> Sequence[PortEntry]:
        """What differs by FPort."""


class UplinkTopics:
    """Makes the topic or routing key of each uplink."""

    def __init__(self, config: TopicConfig) -> None:
        self._pattern = config.uplinkTopicPattern
        self._status = config.downlinkStatusTopicPattern
        self._by_port = {str(entry.fPort): entry.uplinkTopicPattern for entry in config.topics}

    def render(self, item: Outgoing) -> str:
        """The topic; notes in the item how many characters were replaced.

        Raises:
            PatternError: there is none for this uplink; says why and names the pattern.
        """
        pattern, name = self._pattern, "uplinkTopicPattern"
        if self._status is not None and item.uplink.kind in STATUS:
            pattern, name = self._status, "downlinkStatusTopicPattern"
        elif self._by_port:
            pattern = self._by_port.get(str(item.uplink.fields.get("FPort"))) or pattern
        try:
            topic, item.replaced = pattern.render(item.uplink)
        except Unresolvable as error:
            raise PatternError(f"{error}, which {name} asks for") from error
        return topic

    def address(self, batch: Sequence[Outgoing], receipts: Receipts) -> Iterator[tuple[int, Outgoing, str]]:
        """Each uplink with its index and its topic; one that has no legal topic is rejected and left out."""
        for index, item in enumerate(batch):
            try:
                topic = self.render(item)
            except PatternError as error:
                receipts.rejected(index, str(error))
                continue
            yield index, item, topic


def command_filters(config: TopicConfig, wildcard: str) -> list[str]:
    """The topic filters or binding keys that fit all that commands may come by, each once; none where none are wanted.

    Args:
        wildcard: stands for one level.
    """
    if not config.downlinkEnabled:
        return []
    patterns = [config.downlinkTopicPattern, *(entry.downlinkTopicPattern for entry in config.topics)]
    return list(dict.fromkeys(pattern.subscription(wildcard) for pattern in patterns if pattern is not None))


def comes_back(config: TopicConfig, wildcard: str) -> bool:
    """Whether what goes out may come in again as if it were a command; `wildcard` as in `command_filters`."""
    sent = [config.uplinkTopicPattern, config.downlinkStatusTopicPattern]
    sent += [entry.uplinkTopicPattern for entry in config.topics]
    targets = [pattern.subscription(wildcard) for pattern in sent if pattern is not None]
    separator = "/" if wildcard == "+" else "."
    return any(
        _meet(target.split(separator), source.split(separator), wildcard)
        for target in targets
        for source in command_filters(config, wildcard)
    )


def _meet(some: Sequence[str], others: Sequence[str], wildcard: str) -> bool:
    """Whether some topic fits both filters, level by level."""
    pairs = zip(some, others, strict=False)
    return len(some) == len(others) and all(one == other or wildcard in (one, other) for one, other in pairs)


class CommandPorts:
    """Knows the FPort that a command without one is for: that of the entry of `topics` by whose topic it came.

    A topic that the connection's own pattern or several entries name says nothing.
    """

    def __init__(self, config: TopicConfig, wildcard: str) -> None:
        self._wildcard = wildcard
        own = config.downlinkTopicPattern
        entries = [
            (entry.downlinkTopicPattern.subscription(wildcard), entry)
            for entry in config.topics
            if entry.downlinkTopicPattern is not None
        ]
        filters = [own.subscription(wildcard) if own else None, *(text for text, _ in entries)]
        self._by_pattern = [
            (entry.downlinkTopicPattern, entry.fPort)
            for text, entry in entries
            if entry.downlinkTopicPattern is not None and filters.count(text) == 1 and 1 <= entry.fPort <= 224
        ]

    def of(self, source: str) -> int | None:
        """The FPort, 1 to 224, of commands that came by this topic; None where it says nothing."""
        return next((port for pattern, port in self._by_pattern if pattern.fits(source, self._wildcard)), None)
