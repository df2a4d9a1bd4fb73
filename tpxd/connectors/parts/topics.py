"""Which topic or routing key goes with what: uplinks by FPort, reports about downlinks, downlinks by where they came.

Source: ThingPark X IoT Flow, "About connections", `uplinkTopicPattern`, `downlinkTopicPattern`, `topics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import trio

from tpxd.connector import Outgoing, Receipts
from tpxd.errors import PatternError, TooSlow, Unresolvable
from tpxd.lorawan.patterns import Pattern
from tpxd.lorawan.reports import ABOUT_DOWNLINKS, DOWNLINK_REJECTED

STATUS = ABOUT_DOWNLINKS | {DOWNLINK_REJECTED}
"""The report types about downlinks, which `downlinkStatusTopicPattern` is for."""


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
        """Whether downlinks are wanted."""

    @property
    def uplinkTopicPattern(self) -> Pattern:
        """Where uplinks go."""

    @property
    def downlinkTopicPattern(self) -> Pattern | None:
        """Where downlinks come from."""

    @property
    def downlinkStatusTopicPattern(self) -> Pattern | None:
        """Where reports about downlinks go, instead of `uplinkTopicPattern`."""

    @property
    def topics(self) -> Sequence[PortEntry]:
        """What differs by FPort."""


class UplinkTopics:
    """Makes the topic or routing key of each uplink."""

    def __init__(self, config: TopicConfig) -> None:
        self._pattern = config.uplinkTopicPattern
        self._status = config.downlinkStatusTopicPattern
        self._by_port = {str(entry.fPort): entry.uplinkTopicPattern for entry in config.topics}
        patterns = [self._pattern, self._status, *self._by_port.values()]
        self._takes_long = any(pattern.may_take_long for pattern in patterns if pattern is not None)

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
            item.place = topic
        except Unresolvable as error:
            raise PatternError(f"{error}, which {name} asks for", hint=error.hint) from error
        except TooSlow as error:
            raise PatternError(f"{name}: {error}", hint=error.hint) from error
        return topic

    async def address(self, batch: Sequence[Outgoing], receipts: Receipts) -> list[tuple[int, Outgoing, str]]:
        """Each uplink with its index and its topic; one that has no legal topic is rejected and left out."""
        addressed = []
        for index, item in enumerate(batch):
            try:
                addressed.append((index, item, self.render(item)))
            except PatternError as error:
                receipts.rejected(index, str(error), error.hint)
            if self._takes_long:
                await trio.lowlevel.checkpoint()
        return addressed


def downlink_patterns(config: TopicConfig) -> list[Pattern]:
    """What downlinks may come by; nothing where none are wanted."""
    if not config.downlinkEnabled:
        return []
    patterns = [config.downlinkTopicPattern, *(entry.downlinkTopicPattern for entry in config.topics)]
    return [pattern for pattern in patterns if pattern is not None]


class TopicSources:
    """What a `TopicConfig` says about downlinks; see `ConnectorConfig`."""

    @property
    def downlink_sources(self: TopicConfig) -> list[str]:
        """The topic filters or binding keys that fit all that downlinks may come by, each once."""
        return list(dict.fromkeys(pattern.subscription for pattern in downlink_patterns(self)))

    @property
    def comes_back(self: TopicConfig) -> bool:
        """See `ConnectorConfig.comes_back`."""
        sent = [self.uplinkTopicPattern, self.downlinkStatusTopicPattern]
        sent += [entry.uplinkTopicPattern for entry in self.topics]
        sources = downlink_patterns(self)
        return any(target.meets(source) for target in sent if target is not None for source in sources)


class DownlinkPorts:
    """Knows the FPort that a downlink without one is for: that of the entry of `topics` by whose topic it came.

    A topic that the connection's own pattern or several entries name says nothing.
    """

    def __init__(self, config: TopicConfig) -> None:
        own = config.downlinkTopicPattern
        entries = [(pattern, entry.fPort) for entry in config.topics if (pattern := entry.downlinkTopicPattern)]
        filters = [own.subscription if own else None, *(pattern.subscription for pattern, _ in entries)]
        self._by_pattern = [
            (pattern, port)
            for pattern, port in entries
            if filters.count(pattern.subscription) == 1 and 1 <= port <= 224
        ]

    def of(self, source: str) -> int | None:
        """The FPort, 1 to 224, of downlinks that came by this topic; None where it says nothing."""
        return next((port for pattern, port in self._by_pattern if pattern.fits(source)), None)
