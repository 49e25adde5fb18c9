"""What a provider's responses say of a quota, beside what this process knows of it."""

import logging
import math
from collections.abc import Callable, Mapping

from seawall.budgets.shared_bucket import SharedBucket

__all__ = ["ProviderView"]

_log = logging.getLogger("seawall.models")
_FRESH_SECONDS = 2.0
_LOG_SECONDS = 600.0
_MARGIN = 20  # part of the capacity by which a provider's figure may differ from ours


class ProviderView:
    """Corrects the local picture of a quota, which others may use as well."""

    def __init__(self, name: str, bucket: SharedBucket, clock: Callable[[], float]) -> None:
        """Begin without a response.

        Args:
            name: Name of the quota in the configuration.
            bucket: What is left, as far as this process knows.
            clock: Unix time in seconds.
        """
        self._name = name
        self._bucket = bucket
        self._clock = clock
        self._observed = False
        self._corrected_at = self._returned_at = 0.0
        self._returned = dict.fromkeys(bucket.refills, 0)
        self._other_limits: dict[str, int] = {}
        self._logged_at: dict[str, float] = {}

    def observe(self, limits: Mapping[str, int], remaining: Mapping[str, int]) -> None:
        """Take the limits and remainders in a response into account.

        Args:
            limits: The provider's limits a minute, by measure; another than that of the
                configuration is logged.
            remaining: What can still be used, by measure; only less than expected is news: others
                use the account as well, or calls were estimated too low.
        """
        self._observed, now = True, self._clock()
        for measure, limit in limits.items():
            self._compare(measure, limit)
        bucket = self._bucket
        stale = now - bucket.read_at > _FRESH_SECONDS
        if bucket.degraded or stale or 0 <= now - self._corrected_at < _FRESH_SECONDS:
            return
        for measure, amount in remaining.items():
            refill = bucket.refills.get(measure)
            if refill is None:
                continue
            fresh = 0 <= now - self._returned_at < _FRESH_SECONDS
            returned = self._returned[measure] if fresh else 0
            excess = bucket.left(measure) - returned - amount
            if excess > refill.capacity // _MARGIN:
                self._corrected_at = now
                # The other processes see the same.
                bucket.give({measure: -(excess // bucket.processes)}, bucket.number)

    def note_returned(self, amounts: Mapping[str, int]) -> None:
        """Note what was returned, of which a response that is on its way does not know."""
        if not self._observed:
            return
        now = self._clock()
        if not 0 <= now - self._returned_at < _FRESH_SECONDS:
            self._returned = dict.fromkeys(self._returned, 0)
            self._returned_at = now
        for measure, amount in amounts.items():
            self._returned[measure] += max(0, amount)

    def _compare(self, measure: str, limit: int) -> None:
        refill, now = self._bucket.refills.get(measure), self._clock()
        if refill is None or limit in (refill.per_minute, self._other_limits.get(measure)):
            return
        if 0 <= now - self._logged_at.get(measure, -math.inf) < _LOG_SECONDS:
            return  # the models of a quota may have limits of their own
        self._other_limits[measure], self._logged_at[measure] = limit, now
        _log.warning(
            "quota %s: %s_per_minute is %s, the provider says %s",
            *(self._name, measure, f"{refill.per_minute:,}", f"{limit:,}"),
        )
