"""What can be configured of telemetry."""

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["TelemetrySettings"]


class TelemetrySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where traces and metrics go, and how many of them.

    endpoint: of an OTLP/HTTP receiver, without `/v1/traces`; empty for that of the environment
    (OTEL_EXPORTER_OTLP_ENDPOINT), and for nothing at all where there is none. Its headers, which
    may be secret, come from the environment only (OTEL_EXPORTER_OTLP_HEADERS).
    service: empty for OTEL_SERVICE_NAME, or "seawall".
    sample: the share of turns that are traced, of those whose caller has not decided it.
    follow: whether the caller's trace is continued and its decision kept; else each turn begins
    a trace of its own.
    content: whether prompts, answers, and what tools are given and return are exported.
    queued: spans that wait to be sent at most; more are dropped, and counted.
    export_seconds, metrics_seconds: between two deliveries of spans, and of metrics.
    """

    endpoint: str = ""
    service: str = ""
    sample: Annotated[float, Meta(ge=0, le=1)] = 1.0
    follow: bool = True
    content: bool = False
    queued: Annotated[int, Meta(ge=64, le=1 << 20)] = 16_384
    export_seconds: Annotated[float, Meta(ge=0.01, le=600)] = 2.0
    metrics_seconds: Annotated[float, Meta(ge=0.01, le=3_600)] = 30.0
