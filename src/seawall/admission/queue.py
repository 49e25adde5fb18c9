"""Who runs, who waits, who is refused: decisions only, without sockets, tasks or clocks."""

from collections import OrderedDict
from typing import Literal

from msgspec import Struct

__all__ = ["AdmissionLimits", "AdmissionQueue", "Decision", "Refusal"]


class AdmissionLimits(Struct, frozen=True):
    """Bounds of one process.

    in_flight: turns at once. queued: turns that may wait for a place.
    wait_seconds: the longest that a turn may wait.
    """

    in_flight: int = 6_000
    queued: int = 2_000
    wait_seconds: float = 10.0


class Refusal(Struct, frozen=True):
    """There is no room. `retry_after` is the expected wait for a place, in seconds, at least 1."""

    retry_after: float


Decision = Literal["run", "wait"] | Refusal


class AdmissionQueue:
    """First come, first served, among those who can still make it.

    A turn that could not start before its deadline, judged by how long turns have been holding
    their places lately, is refused at once instead of being made to wait for nothing.
    """

    def __init__(self, limits: AdmissionLimits) -> None:
        self._limits = limits
        self._in_flight = 0
        self._waiting: OrderedDict[int, float] = OrderedDict()  # ticket -> latest start
        self._tickets = 0
        self._held_seconds = 0.0  # moving average of how long a turn holds its place

    @property
    def in_flight(self) -> int:
        """Turns that hold a place."""
        return self._in_flight

    @property
    def queued(self) -> int:
        """Turns that wait for one."""
        return len(self._waiting)

    def expected_wait(self) -> float:
        """Seconds until the next arrival would get a place; 0 while one is free.

        Places become free at the rate in_flight / held (Little's law), and everybody in the
        queue is ahead.
        """
        if self._in_flight < self._limits.in_flight:
            return 0.0
        return (len(self._waiting) + 1) * self._held_seconds / self._limits.in_flight

    def would_refuse(self) -> Refusal | None:
        """The refusal that an arrival without a deadline would get now; costs nothing."""
        if self._in_flight < self._limits.in_flight:
            return None
        wait = self.expected_wait()
        if len(self._waiting) >= self._limits.queued or wait > self._limits.wait_seconds:
            return Refusal(max(1.0, wait))
        return None

    def enter(self, *, at: float, deadline: float) -> tuple[Decision, int]:
        """Decide on an arrival; the number is its ticket when it has to wait.

        at, deadline: seconds on one monotonic clock.
        """
        if self._in_flight < self._limits.in_flight:
            self._in_flight += 1
            return "run", 0
        if refusal := self.would_refuse():
            return refusal, 0
        wait = self.expected_wait()
        if at + wait >= deadline:
            return Refusal(max(1.0, wait)), 0
        self._tickets += 1
        self._waiting[self._tickets] = min(deadline, at + self._limits.wait_seconds)
        return "wait", self._tickets

    def observe(self, held: float) -> None:
        """A turn held its place for `held` seconds; keeps the moving average."""
        weight = 0.05 if self._held_seconds else 1.0
        self._held_seconds += (held - self._held_seconds) * weight

    def release(self, *, at: float) -> int | None:
        """A place is free: the ticket that takes it over, or None when nobody can use it.

        Tickets whose latest start has passed are left to their own time-out.
        """
        for ticket, latest in self._waiting.items():
            if latest > at:
                del self._waiting[ticket]
                return ticket
        self._in_flight -= 1
        return None

    def give_up(self, ticket: int) -> None:
        """A waiting turn went away, or its time is over."""
        self._waiting.pop(ticket, None)
