"""The OTLP encoding, decoded by OpenTelemetry's own generated classes."""

import math
import time
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from seawall.settings import TelemetrySettings
from seawall.spans import Attribute
from seawall.telemetry.export import Exporter
from seawall.telemetry.histograms import Distribution
from seawall.telemetry.otlp import encode_metrics, encode_spans
from seawall.telemetry.recorder import RecordedSpan, Recorder
from tests.telemetry.receiver import attributes, receiving

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
VALUES: st.SearchStrategy[Attribute] = st.one_of(
    TEXTS,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(TEXTS, max_size=5),
)


def recorded(*names: str) -> tuple[list[RecordedSpan], Recorder]:
    ended: list[RecordedSpan] = []
    recorder = Recorder(ended.append, sample=1.0, follow=True, content=False)
    root = recorder.begin(b"")
    for name in names:
        root.child(name, "client").end()
    root.end()
    return ended, recorder


@given(TEXTS, st.dictionaries(TEXTS, VALUES, max_size=8), st.none() | TEXTS)
def test_attributes_round_trip(name: str, put: dict[str, Attribute], error: str | None) -> None:
    ended: list[RecordedSpan] = []
    span = Recorder(ended.append, sample=1.0, follow=True, content=False).begin(b"").child(name)
    for key, value in put.items():
        span.put(key, value)
    span.end(error)
    request = ExportTraceServiceRequest.FromString(encode_spans(ended, {"service.name": "s"}, "1"))
    (resource,) = request.resource_spans
    assert attributes(resource.resource.attributes) == {"service.name": "s"}
    (scope,) = resource.scope_spans
    assert (scope.scope.name, scope.scope.version) == ("seawall", "1")
    (read,) = scope.spans
    assert read.name == name
    assert (read.trace_id, read.span_id) == (ended[0].trace, ended[0].id)
    assert read.parent_span_id == ended[0].parent
    assert (read.start_time_unix_nano, read.end_time_unix_nano) == (ended[0].began, ended[0].ended)
    expected = put if error is None else put | {"error.type": error}
    assert attributes(read.attributes) == expected
    failed = error is not None and error != "cancelled"
    assert (read.status.code == Status.STATUS_CODE_ERROR) is failed


def test_lone_surrogates_are_replaced() -> None:
    ended, _ = recorded("half \ud83d")
    request = ExportTraceServiceRequest.FromString(encode_spans(ended, {}, "1"))
    assert request.resource_spans[0].scope_spans[0].spans[0].name == "half ?"


def test_a_long_text_is_truncated() -> None:
    ended: list[RecordedSpan] = []
    span = Recorder(ended.append, sample=1.0, follow=True, content=True).begin(b"")
    span.put("long", "x" * 10_000_000)
    span.end()
    assert len(encode_spans(ended, {}, "1")) < 100_000


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=50))
def test_a_histogram_counts_each_value_once(values: list[float]) -> None:
    bounds = (0.01, 1.0, 100.0)
    distribution = Distribution("d", "about", "s", bounds)
    for value in values:
        distribution.record(value, (("k", "v"),))
    sent = encode_metrics([distribution], {}, "1", time.time_ns())
    (resource,) = ExportMetricsServiceRequest.FromString(sent).resource_metrics
    (metric,) = resource.scope_metrics[0].metrics
    histogram = metric.histogram
    assert (metric.name, metric.description, metric.unit) == ("d", "about", "s")
    cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    assert histogram.aggregation_temporality == cumulative
    (point,) = histogram.data_points
    assert attributes(point.attributes) == {"k": "v"}
    assert tuple(point.explicit_bounds) == bounds
    edges = (-math.inf, *bounds, math.inf)  # each bucket has its upper bound, not its lower
    assert list(point.bucket_counts) == [
        sum(low < value <= high for value in values) for low, high in pairwise(edges)
    ]
    assert point.count == len(values)
    assert math.isclose(point.sum, sum(values), rel_tol=1e-9)


def test_the_number_of_series_is_bounded() -> None:
    distribution = Distribution("d", "", "s", (1.0,))
    for number in range(5_000):
        distribution.record(0.5, (("name", str(number)),))
    assert len(distribution.points) <= 201
    assert sum(counted.buckets[0] for counted in distribution.points.values()) == 5_000


async def test_spans_beyond_the_queue_are_dropped_and_counted() -> None:
    with receiving() as receiver:
        settings = TelemetrySettings(queued=64)
        exporter = Exporter(settings, receiver.url, headers={}, resource={}, version="1")
        ended, _ = recorded(*["span"] * 99)
        for span in ended:
            exporter.take(span)
        assert exporter.dropped == 36
        await exporter.close()
        assert len(receiver.spans) == 64


async def test_a_batch_refused_permanently_is_not_retried() -> None:
    with receiving() as receiver:
        receiver.statuses[:] = [400]
        exporter = Exporter(TelemetrySettings(), receiver.url, headers={}, resource={}, version="1")
        for span in recorded("one")[0]:
            exporter.take(span)
        await exporter.flush(5.0)
        assert exporter.dropped == 2
        for span in recorded("two")[0]:
            exporter.take(span)
        await exporter.close()
        assert {span.name for span in receiver.spans} == {"turn", "two"}
