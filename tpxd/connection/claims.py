"""Which reports some connection takes, for those who count what nobody wants."""

from __future__ import annotations

from collections.abc import Mapping

from tpxd.config.flow import Flow
from tpxd.connection.chains import Chains
from tpxd.lorawan.uplink import AnyReport


class Claims:
    """The flows at work; without any connection nothing is claimed."""

    def __init__(self) -> None:
        self._flows: tuple[Flow, ...] = ()
        self._takes_all = False

    def set(self, flows: Mapping[str, Flow], chains: Chains) -> None:
        """What the files at work say, by connection. One without matchers takes everything, unless others name it."""
        self._flows = tuple(flow for id, flow in flows.items() if flow.matchers or not chains.names(id))
        self._takes_all = any(not flow.matchers for flow in self._flows)

    def claimed(self, report: AnyReport) -> bool:
        """Whether some flow takes the report, or cannot be asked in reasonable time."""
        return self._takes_all or any(flow.may_take(report) for flow in self._flows)
