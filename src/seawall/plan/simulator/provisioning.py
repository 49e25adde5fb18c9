"""Provisioned concurrency over time: by schedule or by target tracking.

Source: https://docs.aws.amazon.com/lambda/latest/dg/provisioned-concurrency.html: Application
Auto Scaling changes it by schedule, or tracks its utilisation. Allocation takes a minute or two at
up to 6,000 environments a minute, and none of them can be used before all are there
(https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html).
"""

import heapq
import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.inputs.platforms import Lambda
from seawall.plan.simulator.kernels.environments import arrays as kernel

__all__ = ["Provisioning"]

_ALLOCATION_SECONDS = 60.0  # of few environments: "a minute or two"


class Provisioning:
    """Changes of the provisioned concurrency: call `run_next` at `next_time`.

    Args:
        platform: With the changes.
        horizon: Seconds simulated.
        start: Seconds of an initialisation, with the processor of the function's memory alone:
            unlike on demand it gets no other.
    """

    def __init__(self, platform: Lambda, horizon: float, start: float = 0.0) -> None:
        self._platform = platform
        self._start = start
        self._horizon = horizon
        self._events: list[tuple[float, str, int]] = []
        self._levels: list[tuple[float, int]] = [(0.0, platform.provisioned)]
        self._wanted = platform.provisioned
        self._above = self._below = 0
        for each in platform.schedule:
            at = each.at
            while at < horizon:
                heapq.heappush(self._events, (at, "schedule", each.capacity))
                if not each.every:
                    break
                at += each.every
        if platform.tracking:
            heapq.heappush(self._events, (60.0, "track", 0))

    @property
    def next_time(self) -> float:
        """The time of the next event, in seconds; infinite: none."""
        return self._events[0][0] if self._events else math.inf

    def stop(self) -> None:
        """Cancel all events."""
        self._events.clear()

    def run_next(self, count: NDArray[np.int64]) -> None:
        """Handle the next event. count: the tally of the compiled loop."""
        now, kind, capacity = heapq.heappop(self._events)
        if kind == "schedule":
            self._request(now, capacity)
        elif kind == "allocated":
            count[kernel.PROVISIONED] = capacity
            self._levels.append((now, capacity))
        else:
            self._track(now, int(count[kernel.PROVISIONED_BUSY]))

    def _request(self, now: float, capacity: int) -> None:
        """Request a capacity: fewer at once; more when all of them are allocated."""
        current = self._levels[-1][1]
        self._wanted = capacity
        self._events = [each for each in self._events if each[1] != "allocated"]
        heapq.heapify(self._events)
        if capacity <= current:
            heapq.heappush(self._events, (now, "allocated", capacity))
            return
        at = now + _ALLOCATION_SECONDS + self._start
        at += (capacity - current) / self._platform.start_rate
        heapq.heappush(self._events, (at, "allocated", capacity))

    def _track(self, now: float, busy: int) -> None:
        """Track the target once a minute. Utilisation is at most 1, so 10 become 15 at most.

        While the alarm lasts it acts every minute: the cool-down is 0 by default for Lambda.
        """
        tracking = self._platform.tracking
        if tracking is None:
            return
        allocated = max(1, self._levels[-1][1])
        use = busy / allocated
        self._above = self._above + 1 if use > tracking.utilization else 0
        self._below = self._below + 1 if use < 0.9 * tracking.utilization else 0
        fitting = math.ceil(busy / tracking.utilization)
        fitting = max(tracking.minimum, min(tracking.maximum, fitting))
        if self._above >= tracking.out_minutes and fitting > self._wanted:
            self._request(now, fitting)
        elif self._below >= tracking.in_minutes and fitting < self._wanted:
            self._request(now, fitting)
            self._below = 0
        if now + 60.0 < self._horizon:
            heapq.heappush(self._events, (now + 60.0, "track", 0))

    def levels(self, width: float, bins: int) -> NDArray[np.float64]:
        """Provisioned environments at the end of each bin of `width` seconds."""
        ends = (np.arange(bins) + 1.0) * width
        times = np.array([at for at, _ in self._levels])
        values = np.array([float(each) for _, each in self._levels])
        found: NDArray[np.float64] = values[np.searchsorted(times, ends, side="left") - 1]
        return found

    def seconds(self) -> float:
        """Environment-seconds provisioned, until the horizon."""
        times = [at for at, _ in self._levels] + [self._horizon]
        return sum(
            each * max(0.0, min(after, self._horizon) - at)
            for (at, each), after in zip(self._levels, times[1:], strict=True)
        )
