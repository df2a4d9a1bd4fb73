"""Whose each device is, as its reports said: what goes back about a downlink names the customer too. Pure."""

from __future__ import annotations

from typing import Any, Final

MOST_DEVICES: Final = 50_000
"""Some 8 MB; beyond it those go that were noted first, and are noted again with their next report."""

MOST_CHARACTERS: Final = 64


class Customers:
    """See the module."""

    def __init__(self) -> None:
        self._by_device: dict[str, str | int] = {}

    def note(self, dev_eui: str, customer: Any) -> None:
        """A report of this device brought this CustomerID, or none."""
        if customer is None or self._by_device.get(dev_eui) == customer:
            return
        if isinstance(customer, str) and not 0 < len(customer) <= MOST_CHARACTERS:
            return
        self._by_device.pop(dev_eui, None)
        self._by_device[dev_eui] = customer
        if len(self._by_device) > MOST_DEVICES:
            del self._by_device[next(iter(self._by_device))]

    def of(self, dev_eui: str) -> str | int | None:
        """The CustomerID of a device, None where no report brought one."""
        return self._by_device.get(dev_eui)
