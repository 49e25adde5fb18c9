"""What happens now: one sample a second of each worker, kept for some minutes."""

import os
import resource
import time
from collections import deque
from math import log
from typing import TYPE_CHECKING

from msgspec import Struct

from seawall.console.recording import TurnRecorder

if TYPE_CHECKING:
    from seawall.composition import Engine
    from seawall.telemetry.metrics import UpstreamState

__all__ = ["KEPT_SECONDS", "QuotaSample", "Sample", "Sampler", "UpstreamSample", "bucket"]

KEPT_SECONDS = 300
_MAX_UPSTREAMS = 32
_MAX_QUOTAS = 32
_PAGE = os.sysconf("SC_PAGE_SIZE")
_STEP = log(1.1)
_FAILED = ("failed", "late", "refused", "throttled", "unreachable", "broken")


class UpstreamSample(Struct, frozen=True, array_like=True):
    """A model endpoint or a source of tools, at one moment.

    Attributes:
        name: As configured.
        kind: "model" or "tools".
        state: Of its breaker.
        in_flight: Calls in flight.
        limit: Calls that may be in flight.
        calls: Ended in this second.
        failed: Those of them that failed.
    """

    name: str
    kind: str
    state: str
    in_flight: int
    limit: int
    calls: int
    failed: int


class QuotaSample(Struct, frozen=True, array_like=True):
    """A quota at one moment; refused and throttled calls are those of this second."""

    name: str
    in_flight: int
    waiting: int
    refused: int
    throttled: int


class Sample(Struct, frozen=True, kw_only=True):
    """One second of one worker.

    Attributes:
        at: Unix seconds at its end, whole.
        in_flight: Turns that have a slot.
        limit: Turns that may have one.
        queued: Turns that wait for one.
        begun: Turns that arrived and were not refused at once.
        completed: Turns that succeeded.
        failed: Turns that did not, refused ones among them.
        refused: Turns that admission refused.
        first_text: Turns that ended, by the bucket of their time to the first text; see `bucket`.
        cpu: Processor time of the process, as a share of one processor.
        memory: Bytes of resident memory.
        lag: Of the event loop, in seconds.
        upstreams: At most 32.
        quotas: At most 32.
    """

    at: int
    in_flight: int
    limit: int
    queued: int
    begun: int
    completed: int
    failed: int
    refused: int
    first_text: dict[int, int]
    cpu: float
    memory: int
    lag: float
    upstreams: tuple[UpstreamSample, ...] = ()
    quotas: tuple[QuotaSample, ...] = ()


def bucket(seconds: float) -> int:
    """The bucket of a time: that of bucket n is from 1.1^n to 1.1^(n+1) milliseconds."""
    return max(0, int(log(max(seconds * 1e3, 1.0)) / _STEP))


class Sampler:
    """Samples of one process."""

    def __init__(self, recorder: TurnRecorder) -> None:
        """Begin without samples.

        Args:
            recorder: Counts the turns.
        """
        self._recorder = recorder
        self._samples: deque[Sample] = deque(maxlen=KEPT_SECONDS)
        self._at = 0
        self._clock = time.monotonic()
        self._cpu = time.process_time()
        self._began = recorder.began
        self._ended = list(recorder.ended)
        self._refused = 0
        self._calls: dict[tuple[str, str], tuple[int, int]] = {}

    def after(self, second: int) -> list[Sample]:
        """The samples since a second, oldest first."""
        found: list[Sample] = []
        for sample in reversed(self._samples):
            if sample.at <= second:
                break
            found.append(sample)
        found.reverse()
        return found

    def sample(self, engine: "Engine") -> None:
        """Take the sample of this second, unless it was taken."""
        at = int(time.time())
        if at == self._at:
            return
        self._at = at
        while self._samples and self._samples[-1].at >= at:  # the clock was set back
            self._samples.pop()
        now, cpu = time.monotonic(), time.process_time()
        passed = max(1e-3, now - self._clock)
        used, self._clock, self._cpu = (cpu - self._cpu) / passed, now, cpu
        recorder, gate = self._recorder, engine.gate
        first_text: dict[int, int] = {}
        for seconds in recorder.take_first_texts():
            number = bucket(seconds)
            first_text[number] = first_text.get(number, 0) + 1
        refused = sum(gate.refused.values())
        self._samples.append(
            Sample(
                at=at,
                in_flight=gate.in_flight,
                limit=gate.limit,
                queued=gate.queued,
                begun=recorder.began - self._began,
                completed=recorder.ended[0] - self._ended[0],
                failed=recorder.ended[1] - self._ended[1],
                refused=refused - self._refused,
                first_text=first_text,
                cpu=round(used, 4),
                memory=_resident(),
                lag=round(gate.lag, 4),
                upstreams=self._upstreams(engine),
                quotas=self._quotas(engine),
            )
        )
        self._began, self._ended, self._refused = recorder.began, list(recorder.ended), refused

    def _upstreams(self, engine: "Engine") -> tuple[UpstreamSample, ...]:
        found: list[tuple[str, str, UpstreamState]] = [
            ("model", name, each) for name, each in engine.upstreams.items()
        ]
        if engine.catalog is not None:
            found += [("tools", name, each) for name, each in engine.catalog.upstreams.items()]
        return tuple(
            UpstreamSample(
                name,
                kind,
                each.state(),
                each.in_flight,
                each.limit,
                *self._since(
                    (kind, name),
                    sum(each.attempts.values()),
                    sum(each.attempts.get(outcome, 0) for outcome in _FAILED),
                ),
            )
            for kind, name, each in found[:_MAX_UPSTREAMS]
        )

    def _quotas(self, engine: "Engine") -> tuple[QuotaSample, ...]:
        return tuple(
            QuotaSample(
                name,
                each.in_flight,
                each.waiting,
                *self._since(("quota", name), each.refused, each.throttled),
            )
            for name, each in list(engine.metering.quotas.items())[:_MAX_QUOTAS]
        )

    def _since(self, key: tuple[str, str], first: int, second: int) -> tuple[int, int]:
        """The growth of two counts since they were last sampled."""
        before = self._calls.get(key, (0, 0))
        self._calls[key] = first, second
        return first - before[0], second - before[1]


def _resident() -> int:
    """Bytes of resident memory; the greatest so far where the kernel does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - every second
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
