"""Settings of telemetry: the section `[telemetry]`."""

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["TelemetrySettings"]


class TelemetrySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where traces and metrics are exported to, and how many of them.

    Attributes:
        endpoint: An OTLP/HTTP receiver, without `/v1/traces`; if empty, that of
            OTEL_EXPORTER_OTLP_ENDPOINT, and without one nothing is exported. Its headers, which
            may be secret, are read from OTEL_EXPORTER_OTLP_HEADERS only.
        service: If empty, OTEL_SERVICE_NAME, or "seawall".
        sample: Share of turns that are traced, of those whose caller has not decided it.
        follow: Whether the caller's trace is continued and its decision kept; otherwise each turn
            begins a trace of its own.
        content: Whether prompts, answers, and arguments and results of tools are exported.
        queued: Spans that may be queued; more are dropped, and counted.
        export_seconds: Between two exports of spans.
        metrics_seconds: Between two exports of metrics.
    """

    endpoint: str = ""
    service: str = ""
    sample: Annotated[float, Meta(ge=0, le=1)] = 1.0
    follow: bool = True
    content: bool = False
    queued: Annotated[int, Meta(ge=64, le=1 << 20)] = 16_384
    export_seconds: Annotated[float, Meta(ge=0.01, le=600)] = 2.0
    metrics_seconds: Annotated[float, Meta(ge=0.01, le=3_600)] = 30.0
