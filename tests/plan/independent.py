"""Simulations of functions and of pods by another method: a list of events, in plain Python.

They share nothing with `seawall.plan` but the documented rules: own random numbers, a search
through all environments, and processors whose bursts are all advanced at every event.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

__all__ = ["Found", "functions", "pods"]

Times = Callable[[random.Random], float]


@dataclass
class Found:
    """What became of the requests."""

    requests: int = 0
    served: int = 0
    refused: int = 0
    cold: int = 0
    latencies: list[float] = field(default_factory=list)
    busy_seconds: float = 0.0

    def quantile(self, share: float) -> float:
        """Of the latencies of served requests."""
        ordered = sorted(self.latencies)
        return ordered[int(share * (len(ordered) - 1))]


def _arrivals(
    draw: random.Random, rate: float, horizon: float, crowd: int, at: float
) -> list[float]:
    times, now = [at] * crowd, 0.0
    while rate and (now := now + draw.expovariate(rate)) < horizon:
        times.append(now)
    return sorted(times)


def functions(
    seed: int,
    *,
    rate: float,
    horizon: float,
    service: Times,
    crowd: int = 0,
    at: float = 0.0,
    start: float = 0.0,
    limit: int = 10**9,
    burst: float = 1e9,
    refill: float = 1e9,
    idle: float = 600.0,
    retries: int = 0,
    backoff: float = 0.5,
) -> Found:
    """One request an environment; the last used is used again; a bucket of starts."""
    draw, serial, found = random.Random(seed), count(), Found()
    events = [
        (time, next(serial), "try", (time, 0)) for time in _arrivals(draw, rate, horizon, crowd, at)
    ]
    heapq.heapify(events)
    found.requests = len(events)
    waiting: list[float] = []  # when each idle environment became idle
    busy, tokens, filled = 0, burst, 0.0
    while events:
        now, _, kind, (first, tries) = heapq.heappop(events)
        if kind == "end":
            busy -= 1
            waiting.append(now)
            continue
        waiting = [since for since in waiting if since + idle >= now]
        tokens, filled = min(burst, tokens + (now - filled) * refill), now
        cold = not waiting
        if busy >= limit or (cold and tokens < 1.0):
            if tries < retries:
                wait = draw.uniform(0.0, min(20.0, backoff * 2.0**tries))
                heapq.heappush(events, (now + wait, next(serial), "try", (first, tries + 1)))
            else:
                found.refused += 1
            continue
        if cold:
            tokens -= 1.0
            found.cold += 1
        else:
            waiting.remove(max(waiting))
        busy += 1
        seconds = (start if cold else 0.0) + service(draw)
        found.served += 1
        found.busy_seconds += seconds
        found.latencies.append(now + seconds - first)
        heapq.heappush(events, (now + seconds, next(serial), "end", (first, 0)))
    return found


@dataclass
class _Pod:
    busy: int = 0
    queue: list[tuple[float, float, int]] = field(default_factory=list)  # entered, first, tries
    bursts: list[list[float]] = field(default_factory=list)  # [seconds left, first, is the last]

    def speed(self, cores: float) -> float:
        return min(1.0, cores / len(self.bursts)) if self.bursts else 1.0


def pods(  # noqa: C901, PLR0912 - one loop over all events is the point
    seed: int,
    *,
    rate: float,
    horizon: float,
    wait: Times,
    before: float,
    after: float,
    fleet: int,
    cores: float,
    slots: int,
    queue: int = 0,
    longest: float = 1e9,
    crowd: int = 0,
    at: float = 0.0,
    retries: int = 0,
    backoff: float = 0.5,
) -> Found:
    """Slots and a queue in each pod, whose bursts before and after a wait share its processors."""
    draw, serial, found = random.Random(seed), count(), Found()
    events: list[tuple[float, int, str, tuple[float, int, int]]] = [
        (time, next(serial), "try", (time, 0, 0))
        for time in _arrivals(draw, rate, horizon, crowd, at)
    ]
    heapq.heapify(events)
    found.requests = len(events)
    all_pods, now, turn = [_Pod() for _ in range(fleet)], 0.0, 0

    def again(first: float, tries: int) -> None:
        if tries >= retries:
            found.refused += 1
            return
        later = now + draw.uniform(0.0, min(20.0, backoff * 2.0**tries))
        heapq.heappush(events, (later, next(serial), "try", (first, tries + 1, 0)))

    while True:
        due, ending = 1e18, -1
        for number, pod in enumerate(all_pods):
            for left in pod.bursts:
                end = now + left[0] / pod.speed(cores)
                if end < due:
                    due, ending = end, number
        if not events and ending < 0:
            return found
        then = min(due, events[0][0] if events else 1e18)
        for pod in all_pods:
            step = (then - now) * pod.speed(cores)
            for left in pod.bursts:
                left[0] -= step
            found.busy_seconds += pod.busy * (then - now)
        now = then
        if ending >= 0 and due == then:
            pod = all_pods[ending]
            done = min(pod.bursts)
            pod.bursts.remove(done)
            if not done[2]:
                later = (now + wait(draw), next(serial), "wake", (done[1], 0, ending))
                heapq.heappush(events, later)
                continue
            pod.busy -= 1
            found.served += 1
            found.latencies.append(now - done[1])
            if pod.queue:
                _, first, _ = pod.queue.pop(0)
                pod.busy += 1
                pod.bursts.append([before, first, 0.0])
            continue
        _, _, kind, (first, tries, number) = heapq.heappop(events)
        if kind == "wake":
            all_pods[number].bursts.append([after, first, 1.0])
        elif kind == "shed":
            pod = all_pods[number]
            for entry in [each for each in pod.queue if each[0] + longest <= now + 1e-9]:
                pod.queue.remove(entry)
                again(entry[1], entry[2])
        else:
            turn = (turn + 1) % fleet
            order = all_pods[turn:] + all_pods[:turn]
            pod = min(order, key=lambda each: each.busy + len(each.queue))
            if pod.busy < slots:
                pod.busy += 1
                pod.bursts.append([before, first, 0.0])
            elif len(pod.queue) < queue:
                pod.queue.append((now, first, tries))
                place = all_pods.index(pod)
                heapq.heappush(events, (now + longest, next(serial), "shed", (0.0, 0, place)))
            else:
                again(first, tries)
