"""Delivery over OTLP/HTTP, on the event loop that serves turns, and never at their expense.

What waits is bounded; what cannot be delivered is dropped, counted, and told in the log once a
minute. https://opentelemetry.io/docs/specs/otlp/#otlphttp says what is worth another try.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

from seawall.resilience.retries import full_jitter
from seawall.spans import Attribute
from seawall.telemetry.histograms import Distributions
from seawall.telemetry.otlp import encode_metrics, encode_spans
from seawall.telemetry.recorder import RecordedSpan
from seawall.telemetry.settings import TelemetrySettings
from seawall.transport.errors import TransportError
from seawall.transport.http_client import Endpoint, HttpClient

__all__ = ["Exporter"]

_log = logging.getLogger("seawall.telemetry")
_BATCH = 512
_SPANS_PER_CHUNK = 64  # spans that are encoded before others have their turn on the loop
_MAX_ATTEMPTS = 3
_SECONDS = 10.0
_MAX_ANSWER_BYTES = 65_536
_RETRYABLE_STATUSES = frozenset({429, 502, 503, 504})
_WARNING_INTERVAL_SECONDS = 60.0


class Exporter:
    """Takes spans at any time and delivers them in batches; metrics at their own pace.

    endpoint: without `/v1/traces`. headers: also secret ones. resource: what all of it is from.
    dropped: spans that nobody has been given.
    """

    def __init__(
        self,
        settings: TelemetrySettings,
        endpoint: str,
        *,
        headers: Mapping[str, str],
        resource: Mapping[str, Attribute],
        version: str,
    ) -> None:
        root = endpoint.rstrip("/")
        self._traces = Endpoint.parse(root + "/v1/traces")
        self._metrics = Endpoint.parse(root + "/v1/metrics")
        self._headers = [
            (b"content-type", b"application/x-protobuf"),
            *((name.lower().encode(), value.encode()) for name, value in headers.items()),
        ]
        self._settings = settings
        self._resource = resource
        self._version = version
        self._client = HttpClient(max_connections=2)
        self._waiting: deque[RecordedSpan] = deque()
        self._delivering = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._warned_at = -_WARNING_INTERVAL_SECONDS
        self.distributions = Distributions()
        self.dropped = 0

    def take(self, span: RecordedSpan) -> None:
        """A span has ended."""
        if len(self._waiting) >= self._settings.queued:
            self.dropped += 1
        else:
            self._waiting.append(span)

    def start(self) -> None:
        """Deliver from time to time, until `close`."""
        settings = self._settings
        self._tasks = [
            asyncio.create_task(self._repeat(settings.export_seconds, self._deliver_spans)),
            asyncio.create_task(self._repeat(settings.metrics_seconds, self._deliver_metrics)),
        ]

    async def flush(self, seconds: float) -> None:
        """Deliver what waits, as far as `seconds` allow."""
        try:
            async with asyncio.timeout(seconds):
                await self._deliver_spans()
                await self._deliver_metrics()
        except TimeoutError:
            self._warn("nobody took them in time")

    async def close(self, seconds: float = 3.0) -> None:
        """Deliver what waits, and stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self.flush(seconds)
        await self._client.close()

    async def _repeat(self, seconds: float, deliver: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await deliver()
            except Exception:  # noqa: BLE001 - telemetry must not end what it watches
                _log.exception("telemetry could not be delivered")

    async def _deliver_spans(self) -> None:
        async with self._delivering:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                body = b""
                for start in range(0, len(batch), _SPANS_PER_CHUNK):
                    # Messages of one kind, one after the other, are their sum.
                    piece = batch[start : start + _SPANS_PER_CHUNK]
                    body += encode_spans(piece, self._resource, self._version)
                    await asyncio.sleep(0)
                if not await self._post(self._traces, body):
                    self.dropped += len(batch)
                    self._warn("the receiver did not take them")
                    return  # the rest has its chance when it works again, or is dropped by room

    async def _deliver_metrics(self) -> None:
        measured = self.distributions.all()
        if measured:
            body = encode_metrics(measured, self._resource, self._version, time.time_ns())
            await self._post(self._metrics, body)

    async def _post(self, endpoint: Endpoint, body: bytes) -> bool:
        """Whether it was taken."""
        clock = asyncio.get_running_loop().time
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            try:
                answer = await self._client.request(
                    "POST",
                    endpoint,
                    headers=self._headers,
                    body=body,
                    deadline=clock() + _SECONDS,
                    limit=_MAX_ANSWER_BYTES,
                )
                if answer.status == 200:
                    return True
                if answer.status not in _RETRYABLE_STATUSES:
                    self._warn(f"the receiver answered with status {answer.status}")
                    return False
            except TransportError as error:
                self._warn(str(error) or type(error).__name__)
            if attempt < _MAX_ATTEMPTS:
                pause = full_jitter(attempt, base=0.5, cap=4.0, chance=random.random())  # noqa: S311
                await asyncio.sleep(pause)
        return False

    def _warn(self, why: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._warned_at >= _WARNING_INTERVAL_SECONDS:
            self._warned_at = now
            _log.warning("traces or metrics: %s (%d spans dropped so far)", why, self.dropped)
