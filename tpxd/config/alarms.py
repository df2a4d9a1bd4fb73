"""`[[alarms]]`: too few uplinks over a connection within hours of the week that the file names.

    [[alarms]]
    startTime = "2026-01-05T09:00:00+01:00"
    endTime = "2026-01-05T18:00:00+01:00"
    timezone = "Europe/Paris"
    uplinkRateMinPerHour = 10
    message = "Plant is too quiet"
    recurrence = [ { frequency = "weekly", byDays = ["monday", "friday"] } ]

With a recurrence only the time of day of `startTime` and `endTime` counts, in the clock of `timezone`, so that 09:00 is
09:00 in summer too; an end before its start lies on the next day. Without one the window is that one period.

Source: ThingPark X IoT Flow, "About connections", alarms.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta
from functools import cached_property
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, PlainValidator, WithJsonSchema, field_validator, model_validator

from tpxd.config.fields import Part

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError('is not a date with time, such as "2026-01-05T09:00:00+01:00"') from None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError('is not a date with time and offset, such as "2026-01-05T09:00:00+01:00"')
    return value


Moment = Annotated[datetime, PlainValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]


class Recurrence(Part):
    """The days on which the window opens."""

    frequency: Literal["weekly"] = Field(description="How often; weekly is all that ThingPark documents.")
    byDays: list[Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]] = Field(
        min_length=1, description="Days of the week."
    )


class Alarm(Part):
    """One alarm for a low rate of uplinks."""

    startTime: Moment = Field(description="When the window opens, a date with time and offset.")
    endTime: Moment = Field(description="When the window closes, a date with time and offset.")
    timezone: str | None = Field(None, description="An IANA time zone; default the offset of startTime, all year.")
    recurrence: list[Recurrence] = Field(
        default_factory=list, description="On which days the window opens; default only once."
    )
    uplinkRateMinPerHour: int = Field(ge=1, description="The fewest uplinks per hour of the whole connection.")
    message: str = Field("too few uplinks", description="The text of the event.")

    @field_validator("timezone")
    @classmethod
    def _check_zone(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                ZoneInfo(name)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError('is no time zone; write one such as "Europe/Paris"') from None
        return name

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if not self.recurrence and self.endTime <= self.startTime:
            raise ValueError("endTime is not after startTime, and without recurrence the window never opens")
        return self

    @cached_property
    def _days(self) -> frozenset[int]:
        return frozenset(DAYS.index(day) for recurrence in self.recurrence for day in recurrence.byDays)

    def opened_at(self, now: datetime) -> datetime | None:
        """When the window that holds `now` opened, None while it is closed."""
        if not self.recurrence:
            return self.startTime if self.startTime <= now < self.endTime else None
        zone = ZoneInfo(self.timezone) if self.timezone else self.startTime.tzinfo
        local, opens, closes = now.astimezone(zone), self._clock(self.startTime), self._clock(self.endTime)
        for day in (local.date(), local.date() - timedelta(days=1)):
            if day.weekday() not in self._days:
                continue
            start = datetime.combine(day, opens, zone)
            end = datetime.combine(day + timedelta(days=closes <= opens), closes, zone)
            if start.timestamp() <= now.timestamp() < end.timestamp():
                return start
        return None

    def _clock(self, moment: datetime) -> time:
        zone = ZoneInfo(self.timezone) if self.timezone else self.startTime.tzinfo
        return moment.astimezone(zone).time().replace(tzinfo=None)
