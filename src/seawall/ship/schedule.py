"""Time of an announced crowd, and the capacity schedules around it."""

import datetime as dt
import re
from collections.abc import Sequence

from msgspec import Struct

from seawall.errors import ConfigError
from seawall.plan.decision.answer import CapacityChange

__all__ = ["CROWD_UNUSED", "CapacitySchedule", "CrowdTime", "capacity_schedule", "parse_crowd"]

CROWD_UNUSED = "--crowd has no effect: here the plan schedules nothing for a crowd."
"""Note for a plan that schedules nothing for the crowd that was given."""

_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FORM = re.compile(
    r"(?:(?P<day>[A-Z]{3}|\d{4}-\d{2}-\d{2})\s+)?(?P<hour>\d{1,2}):(?P<minute>\d{2})"
)
_MINUTE = 60


class CrowdTime(Struct, frozen=True):
    """When a crowd arrives: every day, on a day of each week, or on one date.

    Attributes:
        minute: Of the day.
        timezone: IANA name.
        weekday: 0 for Sunday; None if it is not weekly.
        date: None if it is not on a date.
    """

    minute: int
    timezone: str
    weekday: int | None = None
    date: dt.date | None = None

    def shifted(self, seconds: float) -> "CrowdTime":
        """Shift to later, rounded down to whole minutes so that capacity is there early."""
        minutes = self.minute + int(seconds // _MINUTE)
        days, minute = divmod(minutes, 24 * 60)
        weekday = None if self.weekday is None else (self.weekday + days) % 7
        date = None if self.date is None else self.date + dt.timedelta(days=days)
        return CrowdTime(minute, self.timezone, weekday, date)

    def cron(self) -> str:
        """Format with five fields, for KEDA."""
        hour, minute = divmod(self.minute, 60)
        day = "*" if self.weekday is None else _DAYS[self.weekday]
        date = f"{self.date.day} {self.date.month}" if self.date is not None else "* *"
        return f"{minute} {hour} {date} {day}"

    def aws_cron(self) -> str:
        """Format with six fields, for AWS's schedulers."""
        hour, minute = divmod(self.minute, 60)
        if self.date is not None:
            return f"cron({minute} {hour} {self.date.day} {self.date.month} ? {self.date.year})"
        day = f"? * {_DAYS[self.weekday]}" if self.weekday is not None else "* * ?"
        return f"cron({minute} {hour} {day} *)"


class CapacitySchedule(Struct, frozen=True):
    """Capacity: `count` from `begins` to `ends`, and `otherwise` at other times."""

    begins: CrowdTime
    ends: CrowdTime
    count: int
    otherwise: int


def parse_crowd(text: str, timezone: str) -> CrowdTime:
    """Parse `20:00`, `FRI 20:00` or `2027-11-26 20:00`.

    Raises:
        ConfigError: It is none of these.
    """
    found = _FORM.fullmatch(text.strip().upper())
    hour, minute = (int(found["hour"]), int(found["minute"])) if found else (99, 99)
    if found is None or hour > 23 or minute > 59:
        raise ConfigError(f'--crowd: "{text}" is not like 20:00, FRI 20:00 or 2027-11-26 20:00')
    day = found["day"] or ""
    if not day:
        return CrowdTime(hour * 60 + minute, timezone)
    if day in _DAYS:
        return CrowdTime(hour * 60 + minute, timezone, weekday=_DAYS.index(day))
    try:
        date = dt.date.fromisoformat(day)
    except ValueError as error:
        raise ConfigError(f'--crowd: "{day}" is neither a day such as FRI nor a date') from error
    return CrowdTime(hour * 60 + minute, timezone, date=date)


def capacity_schedule(
    crowd: CrowdTime, schedule: Sequence[CapacityChange], otherwise: int
) -> CapacitySchedule | None:
    """Reduce a plan's schedule to one period with its greatest count; None if it is empty.

    A plan changes capacity before and after the crowd; in between the greatest is enough.
    """
    if not schedule:
        return None
    most = max(moment.count for moment in schedule)
    begins = min(moment.at for moment in schedule if moment.count == most)
    after = [moment.at for moment in schedule if moment.at > begins and moment.count < most]
    ends = min(after, default=begins + 3_600.0)
    # Late rather than early.
    return CapacitySchedule(crowd.shifted(begins), crowd.shifted(ends + _MINUTE), most, otherwise)
