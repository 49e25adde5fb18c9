"""Until when a lease may be believed. Decides only: time comes in as an argument."""

__all__ = ["latest_end"]

_CLOCKS_APART_SECONDS = 60.0


def latest_end(now: float, lease: float) -> float:
    """The latest time at which a lease that is held now can end.

    One that claims to last longer was written before the clock was set back, by a process that may
    be dead: it counts as over. Twice the lease leaves room for servers with another setting, and a
    minute for clocks that are apart.

    Args:
        now: Unix seconds.
        lease: How long a lease lasts from one renewal, in seconds.
    """
    return now + 2 * lease + _CLOCKS_APART_SECONDS
