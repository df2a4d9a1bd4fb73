"""Which uplinks a connection takes, and what decodes their payloads: `[flow]`, as in ThingPark X IoT Flow.

Inside one matcher everything has to hold, across matchers one is enough. Texts are compared without regard to case.

    [flow]
    matchers = [
      { type = "thing", tags = ["ColdChain", "PlantNorth"] },
      { type = "key", key = "lora:70b3d5e75e00a1c4" },
      { type = "fPort", ports = [2, 3] },
      { type = "report", reports = ["DevEUI_location"] },
      { type = "jsonPath", path = "$.DevEUI_uplink.payload[?(@.temperature > 30)]" },
    ]
    driver = "auto"

Source: ThingPark X IoT Flow, "Setting up an IoT Flow instance".
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from tpxd.config.fields import Part
from tpxd.config.secret import forgives
from tpxd.errors import TooSlow
from tpxd.lorawan.json_path import JsonPath
from tpxd.lorawan.uplink import AnyReport

Text = Annotated[str, StringConstraints(min_length=1)]


class ThingMatcher(Part):
    """Devices that have all of these tags; they may have more."""

    type: Literal["thing"]
    tags: list[Text] = Field(min_length=1, description="Tags of the device, all of which it must have.")

    @cached_property
    def _wanted(self) -> frozenset[str]:
        return frozenset(tag.casefold() for tag in self.tags)

    def matches(self, uplink: AnyReport) -> bool:
        """Whether the uplink's device has all tags, by its `CustomerData.tags`."""
        customer_data = uplink.fields.get("CustomerData")
        tags = customer_data.get("tags") if isinstance(customer_data, dict) else None
        if not isinstance(tags, list):
            return False
        return self._wanted <= {tag.casefold() for tag in tags if isinstance(tag, str)}


class KeyMatcher(Part):
    """One device."""

    type: Literal["key"]
    key: str = Field(description='The device, as "lora:" and its DevEUI.')

    @field_validator("key")
    @classmethod
    def _check(cls, key: str) -> str:
        if not re.fullmatch(r"lora:[0-9a-f]{16}", key.casefold()):
            raise ValueError('is no key; write "lora:" and the 16 hex digits of the DevEUI')
        return key

    def matches(self, uplink: AnyReport) -> bool:
        """Whether the uplink is from this device."""
        return uplink.lane.casefold() == self.key.casefold().removeprefix("lora:")


class PortMatcher(Part):
    """Uplinks of some FPorts; other report types carry FPorts too."""

    type: Literal["fPort"]
    ports: list[Annotated[int, Field(ge=0, le=255)]] = Field(min_length=1, description="FPorts, 0 to 255.")

    def matches(self, uplink: AnyReport) -> bool:
        """Whether the report has one of these FPorts."""
        port = uplink.fields.get("FPort")
        if isinstance(port, str) and port.isascii() and port.isdigit():
            port = int(port)
        return port in self.ports


class ReportMatcher(Part):
    """Some report types."""

    type: Literal["report"]
    reports: list[Text] = Field(min_length=1, description='Root keys, such as "DevEUI_location".')

    def matches(self, uplink: AnyReport) -> bool:
        """Whether it is one of these report types."""
        return uplink.kind.casefold() in (report.casefold() for report in self.reports)


class JsonPathMatcher(Part):
    """Reports in which a JSONPath finds something that is not false, null or empty."""

    type: Literal["jsonPath"]
    path: Text = Field(description="A JSONPath over the whole report, root key included.")

    @field_validator("path")
    @classmethod
    def _check(cls, path: str, info: ValidationInfo) -> str:
        JsonPath(path, forgiving=forgives(info))
        return path

    @cached_property
    def _query(self) -> JsonPath:
        return JsonPath(self.path, forgiving=True)  # whether it is let pass was decided when its file was read

    def matches(self, uplink: AnyReport) -> bool:
        """Whether the path finds something; a filter that does not fit the report's types finds nothing.

        Raises:
            TooSlow: see `JsonPath.values`.
        """
        return any(map(_is_something, self._query.values(uplink)))


def _is_something(value: Any) -> bool:
    return value is not None and value is not False and value not in ("", [], {})


Matcher = Annotated[
    ThingMatcher | KeyMatcher | PortMatcher | ReportMatcher | JsonPathMatcher, Field(discriminator="type")
]


AUTO: Final = "auto"
_AUTO_OF_IOT_FLOW: Final = "actility:auto:1"


class Flow(Part):
    """`[flow]` of a connection file; without matchers everything goes through, decoded where there is a driver."""

    matchers: list[Matcher] = Field(
        default_factory=list, description="Which uplinks this connection takes; default all of them."
    )

    driver: Annotated[str, StringConstraints(max_length=200)] = Field(
        "",
        description="What decodes payloads: \"auto\" (by the uplink's DriverCfg), a driver's id, or a file in"
        " drivers_dir; default none.",
    )
    skipDecoding: bool = Field(False, description="true leaves payloads as they are, whatever driver says.")

    @field_validator("driver")
    @classmethod
    def _one_word_for_auto(cls, driver: str) -> str:
        return AUTO if driver.lower() in (AUTO, _AUTO_OF_IOT_FLOW) else driver

    @property
    def decodes(self) -> bool:
        """Whether a driver looks at payloads first."""
        return bool(self.driver) and not self.skipDecoding

    @property
    def reads_payloads(self) -> bool:
        """Whether what it takes depends on what a driver says."""
        return self.decodes and self.may_take_long

    @property
    def may_take_long(self) -> bool:
        """Whether asking it about many uplinks should let others go on now and then."""
        return any(isinstance(matcher, JsonPathMatcher) for matcher in self.matchers)

    def takes(self, uplink: AnyReport) -> bool:
        """Whether one of the matchers holds.

        Raises:
            TooSlow: that cannot be said in reasonable time.
        """
        return not self.matchers or any(matcher.matches(uplink) for matcher in self.matchers)

    def may_take(self, uplink: AnyReport) -> bool:
        """Whether one of the matchers holds, or cannot be asked before decoding, or in reasonable time."""
        if self.reads_payloads:
            return True
        try:
            return self.takes(uplink)
        except TooSlow:
            return True
