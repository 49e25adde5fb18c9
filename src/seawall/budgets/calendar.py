"""The windows of budgets: calendar days and months, UTC."""

from datetime import UTC, datetime, timedelta

from seawall.budgets.shared_limit import Window

__all__ = ["day_window", "month_window"]


def day_window(now: float) -> Window:
    """The day that a Unix time is in."""
    starts = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return _window(f"{starts:%Y-%m-%d}", starts, starts + timedelta(days=1))


def month_window(now: float) -> Window:
    """The month that a Unix time is in."""
    starts = datetime.fromtimestamp(now, UTC).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    following = (starts + timedelta(days=31)).replace(day=1)
    return _window(f"{starts:%Y-%m}", starts, following)


def _window(name: str, starts: datetime, ends: datetime) -> Window:
    return Window(name, starts.timestamp(), ends.timestamp())
