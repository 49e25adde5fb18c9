"""Export of spans and metrics over OTLP/HTTP, on the event loop that serves turns.

The queue is bounded; spans that cannot be exported are dropped, counted, and reported in the log
once a minute. Retryable statuses: https://opentelemetry.io/docs/specs/otlp/#otlphttp.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

from seawall.resilience import full_jitter
from seawall.settings import TelemetrySettings
from seawall.spans import Attribute
from seawall.telemetry.histograms import Distributions
from seawall.telemetry.otlp import encode_metrics, encode_spans
from seawall.telemetry.recorder import RecordedSpan
from seawall.transport.connection import TransportError
from seawall.transport.http_client import Endpoint, HttpClient

__all__ = ["Exporter"]

_log = logging.getLogger("seawall.telemetry")
_BATCH = 512
_SPANS_PER_CHUNK = 64  # spans encoded between two yields to the event loop
_MAX_ATTEMPTS = 3
_SECONDS = 10.0
_MAX_ANSWER_BYTES = 65_536
_RETRYABLE_STATUSES = frozenset({429, 502, 503, 504})
_WARNING_INTERVAL_SECONDS = 60.0


class Exporter:
    """Exports spans in batches, and metrics at an interval.

    Attributes:
        distributions: The metrics; callers record into them.
        dropped: Spans that could not be exported.
    """

    def __init__(
        self,
        settings: TelemetrySettings,
        endpoint: str,
        *,
        headers: Mapping[str, str],
        resource: Mapping[str, Attribute],
        version: str,
        ca_file: str = "",
    ) -> None:
        """Create an exporter; nothing is sent before `start` or `flush`.

        Args:
            settings: Intervals and the bound of the queue.
            endpoint: URL of the receiver, without `/v1/traces`.
            headers: Sent with every request; may be secret.
            resource: Attributes of this process.
            version: Of Seawall.
            ca_file: Authorities that are trusted; empty for those of the system.

        Raises:
            ValueError: The endpoint is not an HTTP URL.
            ConfigError: The file of authorities cannot be used.
        """
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
        context = None
        if ca_file:
            from seawall.transport.tls import tls_context  # noqa: PLC0415 - only if configured

            context = tls_context(ca_file, key="telemetry.ca_file")
        self._client = HttpClient(max_connections=2, ssl_context=context)
        self._waiting: deque[RecordedSpan] = deque()
        self._delivering = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._warned_at = -_WARNING_INTERVAL_SECONDS
        self.distributions = Distributions()
        self.dropped = 0

    def take(self, span: RecordedSpan) -> None:
        """Queue a span that has ended; drop it if the queue is full."""
        if len(self._waiting) >= self._settings.queued:
            self.dropped += 1
        else:
            self._waiting.append(span)

    def start(self) -> None:
        """Export at intervals, until `close`."""
        settings = self._settings
        self._tasks = [
            asyncio.create_task(self._repeat(settings.export_seconds, self._deliver_spans)),
            asyncio.create_task(self._repeat(settings.metrics_seconds, self._deliver_metrics)),
        ]

    async def flush(self, seconds: float) -> None:
        """Export everything that is queued, within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._deliver_spans()
                await self._deliver_metrics()
        except TimeoutError:
            self._warn("export timed out")

    async def close(self, seconds: float = 3.0) -> None:
        """Export everything that is queued, and stop."""
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
            except Exception:  # noqa: BLE001 - telemetry must not fail the server
                _log.exception("telemetry export failed")

    async def _deliver_spans(self) -> None:
        async with self._delivering:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                body = b""
                for start in range(0, len(batch), _SPANS_PER_CHUNK):
                    # Concatenated messages of one type are one merged message.
                    piece = batch[start : start + _SPANS_PER_CHUNK]
                    body += encode_spans(piece, self._resource, self._version)
                    await asyncio.sleep(0)
                if not await self._post(self._traces, body):
                    self.dropped += len(batch)
                    self._warn("the receiver did not accept them")
                    return  # the rest stays queued

    async def _deliver_metrics(self) -> None:
        measured = self.distributions.all()
        if measured:
            body = encode_metrics(measured, self._resource, self._version, time.time_ns())
            await self._post(self._metrics, body)

    async def _post(self, endpoint: Endpoint, body: bytes) -> bool:
        """Send with retries and jitter; whether the receiver accepted it."""
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
