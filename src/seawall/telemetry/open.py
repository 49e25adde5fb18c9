"""Composition of telemetry from settings and environment; imported only if there is a receiver."""

import logging
import os
import socket
from collections.abc import Mapping
from importlib.metadata import version
from urllib.parse import unquote

from seawall.errors import ConfigError
from seawall.models import Model
from seawall.settings import ModelSettings, TelemetrySettings
from seawall.spans import Attribute, current_span
from seawall.telemetry.export import Exporter
from seawall.telemetry.recorder import Recorder
from seawall.telemetry.traced_models import AttemptTracingModel, ChatTracingModel, identify_model
from seawall.turn import TurnReport

__all__ = ["Telemetry", "open_telemetry"]


class Telemetry:
    """Tracing and metrics over OTLP; `recorder` is the tracer for the pipeline."""

    def __init__(
        self, settings: TelemetrySettings, exporter: Exporter, models: Mapping[str, ModelSettings]
    ) -> None:
        self._settings = settings
        self._exporter = exporter
        self._models = models
        self.recorder = Recorder(
            exporter.take,
            sample=settings.sample,
            follow=settings.follow,
            content=settings.content,
        )

    def start(self) -> None:
        """Export at intervals from now on; without it, only `flush` and `close` export."""
        self._exporter.start()

    def trace_attempts(self, name: str, model: Model) -> Model:
        """Wrap an adapter: every call is a span."""
        return AttemptTracingModel(name, model, identify_model(name, self._models.get(name)))

    def trace_chat(self, name: str, model: Model) -> Model:
        """Wrap the model that agents call: every call is a span and is measured."""
        return ChatTracingModel(
            model,
            identify_model(name, self._models.get(name)),
            self._exporter.distributions,
            content=self._settings.content,
        )

    def observe(self, report: TurnReport) -> None:
        """Measure a finished turn."""
        measured = self._exporter.distributions
        key = (("seawall.agent", report.agent), ("seawall.outcome", report.outcome))
        measured.turn_seconds.record(report.timings.get("total", 0.0) / 1e3, key)
        if "first_text" in report.timings:
            seconds = report.timings["first_text"] / 1e3
            measured.first_text_seconds.record(seconds, (("seawall.agent", report.agent),))

    async def flush(self, seconds: float) -> None:
        """Export everything that is queued, within `seconds`."""
        await self._exporter.flush(seconds)

    async def close(self) -> None:
        """Export everything that is queued, and stop."""
        await self._exporter.close()


def open_telemetry(
    settings: TelemetrySettings,
    models: Mapping[str, ModelSettings],
    environment: Mapping[str, str] = os.environ,
) -> Telemetry:
    """Open telemetry to the endpoint of settings or environment; log records get trace ids.

    Args:
        settings: The section `[telemetry]`.
        models: The sections `[models.NAME]`, by name.
        environment: With the usual OTEL_ variables.

    Raises:
        ConfigError: The endpoint is not an address, or a variable is malformed.
    """
    endpoint = settings.endpoint or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    protocol = environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    if not settings.endpoint and protocol not in ("", "http/protobuf"):
        raise ConfigError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL: is {protocol!r}, but only http/protobuf is supported; "
            "set telemetry.endpoint, or OTEL_SDK_DISABLED=true"
        )
    release = version("seawall")
    try:
        exporter = Exporter(
            settings,
            endpoint,
            headers=_parse_pairs(environment, "OTEL_EXPORTER_OTLP_HEADERS"),
            resource=_resource(settings, environment, release),
            version=release,
            ca_file=settings.ca_file or environment.get("OTEL_EXPORTER_OTLP_CERTIFICATE", ""),
        )
    except ValueError as error:
        raise ConfigError(f"telemetry.endpoint: {error}") from error
    for handler in logging.getLogger().handlers:
        if not any(isinstance(each, _TraceContextFilter) for each in handler.filters):
            handler.addFilter(_TraceContextFilter())
    return Telemetry(settings, exporter, models)


def _resource(
    settings: TelemetrySettings, environment: Mapping[str, str], release: str
) -> dict[str, Attribute]:
    """Attributes of this process; the environment overrides them.

    Names: https://opentelemetry.io/docs/specs/semconv/resource/.
    """
    resource: dict[str, Attribute] = {
        "service.name": "seawall",
        "service.version": release,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        "telemetry.sdk.name": "seawall",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": release,
    }
    if function := environment.get("AWS_LAMBDA_FUNCTION_NAME"):
        resource["cloud.provider"] = "aws"
        resource["cloud.platform"] = "aws_lambda"
        resource["cloud.region"] = environment.get("AWS_REGION", "")
        resource["faas.name"] = function
        resource["faas.version"] = environment.get("AWS_LAMBDA_FUNCTION_VERSION", "")
        stream = environment.get("AWS_LAMBDA_LOG_STREAM_NAME", "")
        resource["faas.instance"] = resource["service.instance.id"] = stream
    resource |= _parse_pairs(environment, "OTEL_RESOURCE_ATTRIBUTES")
    if name := settings.service or environment.get("OTEL_SERVICE_NAME"):
        resource["service.name"] = name
    return resource


def _parse_pairs(environment: Mapping[str, str], variable: str) -> dict[str, str]:
    """Parse `name=value,name=value`, percent-encoded; errors do not show values."""
    pairs: dict[str, str] = {}
    for part in filter(None, environment.get(variable, "").split(",")):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"{variable}: must be name=value, separated by commas")
        pairs[name.strip()] = unquote(value.strip())
    return pairs


class _TraceContextFilter(logging.Filter):
    """Sets trace_id and span_id on each record that is logged in a traced turn."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter; keeps every record."""
        span = current_span.get()
        if span is not None and (parent := span.traceparent):  # the console's alone has none
            _, record.trace_id, record.span_id, _ = parent.decode().split("-")
        return True
