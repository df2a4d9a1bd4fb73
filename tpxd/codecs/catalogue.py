"""The drivers that may be used now, found as a connection file or an uplink names them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from tpxd.codecs.drivers import Driver, names_in
from tpxd.config.flow import AUTO
from tpxd.lorawan.uplink import Uplink


class Catalogue:
    """Drivers by all their names, which are compared without regard to case; of two with one name the first counts."""

    def __init__(self, drivers: Iterable[Driver] = ()) -> None:
        self._named: dict[str, Driver] = {}
        self.set(drivers)

    def __len__(self) -> int:
        return len({id(driver) for driver in self._named.values()})

    def set(self, drivers: Iterable[Driver]) -> None:
        """From now on these."""
        named: dict[str, Driver] = {}
        for driver in drivers:
            for name in driver.names:
                named.setdefault(name, driver)
        self._named = named

    def named(self, name: str) -> Driver | None:
        """The driver of this name: a path in the directory, an id, or a protocol's id."""
        return self._named.get(name.lower())

    def of(self, wanted: str, uplink: Uplink) -> Driver | None:
        """The driver of an uplink, as `[flow] driver` wants it: that one, or the one that the uplink names."""
        if wanted != AUTO:
            return self.named(wanted)
        return next((driver for name in names_in(uplink.fields) if (driver := self._named.get(name))), None)
