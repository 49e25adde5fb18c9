"""Exports of Prometheus, CloudWatch and access logs as arrivals; errors name their location."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from seawall.errors import ConfigError
from seawall.plan import Lambda, from_flags, from_trace, read_workload, simulate
from seawall.plan.inputs.distributions import mean_of
from seawall.plan.inputs.exports.metrics import (
    read_metric_data,
    read_metric_statistics,
    read_prometheus,
)
from seawall.plan.inputs.exports.trace import spread
from tests.properties import examples

START = 1_764_064_800  # 2025-11-25T10:00:00Z
COUNTS = st.lists(st.integers(0, 50), min_size=2, max_size=40).filter(any)


def matrix(*series: tuple[dict[str, str], Sequence[tuple[int, str]]]) -> dict[str, Any]:
    """As Prometheus answers."""
    result = [{"metric": metric, "values": [list(v) for v in values]} for metric, values in series]
    return {"status": "success", "data": {"resultType": "matrix", "result": result}}


def per_period(times: NDArray[np.float64], periods: int, width: float) -> list[int]:
    counts, _ = np.histogram(times, bins=np.arange(periods + 1) * width)
    return [int(count) for count in counts]


@examples(40, 1_000)
@given(counts=COUNTS, period=st.sampled_from([1, 15, 60, 300]), seed=st.integers(0, 9))
def test_spread_times_have_the_same_counts(counts: list[int], period: int, seed: int) -> None:
    starts = np.arange(len(counts), dtype=np.float64) * period
    widths = np.full(len(counts), float(period))
    times = spread(np.array(counts, dtype=float), starts, widths, "x", seed=seed)
    assert per_period(times, len(counts), period) == counts
    assert (np.diff(times) >= 0).all()
    again = spread(np.array(counts, dtype=float), starts, widths, "x", seed=seed)
    assert times.tolist() == again.tolist()


@examples(40, 1_000)
@given(rates=st.lists(st.floats(0, 30), min_size=1, max_size=60))
def test_fractions_of_requests_are_carried_over(rates: list[float]) -> None:
    width = np.ones(len(rates))
    times = spread(np.array(rates), np.arange(len(rates), dtype=np.float64), width, "x")
    assert abs(len(times) - sum(rates)) <= 0.5 + 1e-6


@examples(40, 1_000)
@given(counts=COUNTS, resets=st.sets(st.integers(1, 39)))
def test_a_counter_with_restarts(counts: list[int], resets: set[int]) -> None:
    """A counter restarts at 0; growth beyond the old value hides the restart."""
    value, samples = 7, [(START, "7")]
    for at, count in enumerate(counts):
        value = count if at in resets and count < value else value + count
        samples.append((START + 15 * (at + 1), str(value)))
    document = matrix(({"__name__": "http_requests_total"}, samples))
    trace = read_prometheus(document, "x")
    assert per_period(trace.times, len(counts), 15.0) == counts
    assert trace.horizon == 15.0 * len(counts)


@examples(40, 1_000)
@given(one=COUNTS, other=COUNTS)
def test_rates_of_several_series_are_added(one: list[int], other: list[int]) -> None:
    size = min(len(one), len(other))
    series = [
        ({"pod": str(at)}, [(START + 60 * i, str(count / 60)) for i, count in enumerate(counts)])
        for at, counts in enumerate((one[:size], other[:size]))
    ]
    if not any(one[:size]) and not any(other[:size]):
        return
    trace = read_prometheus(matrix(*series), "x")
    assert abs(len(trace.times) - sum(one[:size]) - sum(other[:size])) <= 1
    assert trace.horizon == 60.0 * size


@examples(40, 1_000)
@given(counts=COUNTS, order=st.randoms())
def test_cloudwatch_in_any_order_and_without_the_empty_periods(
    counts: list[int], order: Any
) -> None:
    points = [
        {"Timestamp": f"2025-11-25T{10 + at // 60}:{at % 60:02}:00+00:00", "Sum": float(count),
         "Unit": "Count"}
        for at, count in enumerate(counts) if count or at in (0, 1)
    ]  # fmt: skip
    order.shuffle(points)
    statistics = read_metric_statistics({"Label": "RequestCount", "Datapoints": points}, "x")
    data = read_metric_data({"MetricDataResults": [{
        "Id": "m1", "Label": "RequestCount", "StatusCode": "Complete",
        "Timestamps": [point["Timestamp"] for point in points],
        "Values": [point["Sum"] for point in points],
    }]}, "x")  # fmt: skip
    assert per_period(statistics.times, len(counts), 60.0) == counts
    assert statistics.times.tolist() == data.times.tolist()
    assert statistics.source == "CloudWatch's counts per 60 s"


# The entries of AWS's documentation for HTTP and HTTP/2, and one without a target: a 503.
ENTRIES = (
    ('http 2018-07-02T22:23:00.186641Z app/my-loadbalancer/50dc6c495c0c9188 192.168.131.39:2817'
    ' 10.0.0.1:80 0.000 0.001 0.000 200 200 34 366 "GET http://www.example.com:80/ HTTP/1.1"'
    ' "curl/7.46.0" - - arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/my-targets'
    '/73e2d6bc24d8a067 "Root=1-58337262-36d228ad5d99923122bbe354" "-" "-" 0'
    ' 2018-07-02T22:22:48.364000Z "forward" "-" "-" "10.0.0.1:80" "200" "-" "-"'),
    ('h2 2018-07-02T22:22:54.250000Z app/my-loadbalancer/50dc6c495c0c9188 10.0.1.252:48160'
    ' 10.0.0.66:9000 0.000 2.002 0.000 200 200 5 257 "GET https://10.0.2.105:773/ HTTP/2.0"'
    ' "say \\x22hi\\x22 0 2018-07-02" ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2 arn:aws:elasticload'
    'balancing:us-east-2:123456789012:targetgroup/my-targets/73e2d6bc24d8a067'
    ' "Root=1-58337327-72bd00b0343d75b906739c42" "-" "-" 1 2018-07-02T22:22:52.250000Z'
    ' "redirect" "https://example.com:80/" "-" "10.0.0.66:9000" "200" "-" "-"'),
    ('https 2018-07-02T22:22:50.000000Z app/my-loadbalancer/50dc6c495c0c9188 10.0.1.252:48160'
    ' - -1 -1 -1 503 - 5 257 "GET https://10.0.2.105:773/ HTTP/1.1" "-" - - -'
    ' "Root=1-58337327-72bd00b0343d75b906739c42" "-" "-" 0 2018-07-02T22:22:49.864000Z'
    ' "forward" "-" "-" "-" "-" "-" "-"'),
    # As it was before request_creation_time was added.
    ('http 2018-07-02T22:23:01.364000Z app/my-loadbalancer/50dc6c495c0c9188 192.168.131.39:2817'
    ' 10.0.0.1:80 0.250 0.500 0.250 200 200 34 366 "GET http://www.example.com:80/ HTTP/1.1"'
    ' "curl/7.46.0" - - arn:aws:elasticloadbalancing "Root=1-58337262" "-" "-" 0'),
)  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
def test_an_access_log(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "balancer"
    text = "\n".join(ENTRIES) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    workload = from_trace(path)
    assert workload.arrivals.trace is not None
    assert workload.arrivals.trace.tolist() == pytest.approx([0.0, 1.5, 3.886, 12.0])
    # The whole requests took 11.82, 2.0 and 1.0 s: from their arrival to their end.
    model = next(stage for stage in workload.service.stages if stage.model)
    others = sum(mean_of(each.seconds) for each in workload.service.stages if not each.model)
    assert others == pytest.approx(0.25 * 2.002)
    assert model.seconds.values == pytest.approx(
        (1.0 - others, 2.002 - others, 11.822641 - others), abs=1e-6
    )
    assert workload.sources["arrivals.trace"] == (
        "given: balancer, the load balancer's access log: 4 requests in 16 s, 2018-07-02 22:22:48 "
        "to 2018-07-02 22:23:00 UTC; 21,600 a day"
    )


def test_durations_of_whole_requests_are_kept(tmp_path: Path) -> None:
    """The simulated mean of whole requests is the measured one."""
    path = tmp_path / "log"
    seconds = np.random.default_rng(4).uniform(2.0, 9.0, 3_000)
    lines = [
        f"https 2026-01-01T{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}.0Z app/x/1 1.1.1.1:1"
        f' 2.2.2.2:2 0.000 {each:.3f} 0.000 200 200 1 1 "GET https://x/ HTTP/1.1" "-" - - - "-" "-"'
        for at, each in enumerate(seconds)
    ]
    path.write_text("\n".join(lines))
    result = simulate(from_trace(path), Lambda(account_limit=10_000))
    assert result.requests == 3_000
    assert result.usage.billed_seconds / 3_000 == pytest.approx(seconds.mean(), rel=0.03)


def test_exports_are_accepted_as_traces(tmp_path: Path) -> None:
    path = tmp_path / "requests.json"
    series = [(START + 15 * at, str(100 * at)) for at in range(9)]
    path.write_text(json.dumps(matrix(({"__name__": "http_requests_total"}, series))))
    for workload in (from_trace(path), from_flags(trace=path)):
        assert workload.expected_requests == 800
        assert workload.arrivals.horizon == 120.0
    written = tmp_path / "plan.toml"
    written.write_text('[arrivals]\ntrace = "requests.json"\n')
    assert read_workload(written).expected_requests == 800


RATE = {"job": "api"}
SAMPLES = [(START, "1"), (START + 15, "2")]
POINT = {"Timestamp": "2025-11-25T10:00:00Z", "Sum": 3.0, "Unit": "Count"}
RESULT = {"Id": "m1", "Timestamps": ["2025-11-25T10:00:00Z"], "Values": [3.0]}
WRONG = [
    ({"status": "error", "error": "bad query"}, ": status: 'error': bad query"),
    ({"status": "success", "data": {"resultType": "vector", "result": []}},
     ": data.resultType: 'vector'; a range query gives 'matrix'"),
    (matrix(), ": data.result: the trace is empty"),
    (matrix((RATE, [])), ": data.result.0.values: the trace is empty"),
    (matrix((RATE, SAMPLES[:1])), ": data.result.0.values: one sample; at least two are needed"),
    (matrix((RATE, [*SAMPLES, (START + 30, "NaN")])), ": data.result.0.values.2.1: 'NaN' is not a"),
    (matrix((RATE, [*SAMPLES, (START + 30, "-1")])), ": data.result.0.values.2.1: -1 is negative"),
    (matrix((RATE, [*SAMPLES, (START, "1")])), ": data.result.0.values.2.0: earlier than the"),
    (matrix((RATE, [(START, "0"), (START + 9, "0")])), ": data.result: no requests in it"),
    (matrix(({"__name__": "up"}, SAMPLES)), ": data.result.0.metric.__name__: 'up' is neither"),
    (matrix(({"__name__": "s_bucket", "le": "1"}, SAMPLES)), ": data.result.0.metric.le: not a"),
    (matrix((RATE, [(START, "1e9"), (START + 15, "1e9")])), ": data.result: 30,000,000,000 requ"),
    ({"Datapoints": []}, ": Datapoints: the trace is empty"),
    ({"Datapoints": [POINT]}, ": Datapoints: one data point; the period needs at least two"),
    ({"Datapoints": [POINT, POINT]}, ": Datapoints: the time 1764064800 occurs twice"),
    ({"Datapoints": [{"Timestamp": "x", "Average": 1}]}, ": Datapoints.0.Sum: missing; export"),
    ({"Datapoints": [POINT | {"Unit": "Seconds"}]}, ": Datapoints.0.Unit: 'Seconds' is not"),
    ({"Datapoints": [POINT | {"Timestamp": "soon"}]}, ": Datapoints.0.Timestamp: 'soon' is not a"),
    ({"Datapoints": [POINT | {"Sum": float("nan")}]}, ": Datapoints.0.Sum: nan is not a number"),
    ({"Datapoints": [POINT | {"Sum": -2}]}, ": Datapoints.0.Sum: -2 is negative"),
    ({"MetricDataResults": []}, ": MetricDataResults: the trace is empty"),
    ({"MetricDataResults": [RESULT, RESULT]}, ": MetricDataResults: 2 metrics (m1, m1); export"),
    ({"MetricDataResults": [RESULT | {"Values": []}]}, ": MetricDataResults.0.Values: 0 of them"),
    ({"MetricDataResults": [RESULT | {"StatusCode": "PartialData"}]},
     ": MetricDataResults.0.StatusCode: 'PartialData': partial data"),
    ({"rows": []}, ": unknown JSON; known: Prometheus's range query (data)"),
    ([1, 2], ": unknown JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "words"), WRONG)
def test_errors_in_json_name_file_and_field(tmp_path: Path, document: Any, words: str) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError) as raised:
        from_trace(path)
    assert str(raised.value).startswith(f"{path}{words}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"status": \n "success",,}', ":2: not JSON"),
        ("[" * 100_000, ": not a known export"),
        ('{"data": ' + "1" * 5_000 + "}", ": not JSON: Exceeds the limit"),
        (ENTRIES[0] + "\nhello\n", ":2: type: not an entry of an access log"),
        (ENTRIES[0].replace("0.001", "soon"), ":1: target_processing_time: 'soon' is not a"),
        (ENTRIES[0].replace("0.001", "nan"), ":1: target_processing_time: nan is not a time"),
        (ENTRIES[0].replace("22:22:48", "23:22:48"), ":1: request_creation_time: not a time"),
        (
            ENTRIES[0].replace("07-02T22:23", "17-02T22:23"),
            ":1: time: '2018-17-02T22:23:00.186641Z'",
        ),
        (" ".join(ENTRIES[0].split(" ")[:6]), ":1: 6 fields; an entry has more"),
        ("\n1\n2\n", ":1: no column of times"),
    ],
)
def test_errors_in_text_name_file_line_and_field(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "export"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        from_trace(path)
    assert str(raised.value).startswith(f"{path}{words}")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(ENTRIES[0].encode())[:-9])
    with pytest.raises(ConfigError, match=r"log\.gz: gzip: Compressed file ended"):
        from_trace(path)
    for content, words in {
        "time\n1\n".encode("utf-16"): "is text in UTF-16; convert it: iconv",
        "time\n1\n".encode("utf-16-le"): "is not text in UTF-8: it has NUL bytes",
        b"time\n\xe9\n": "is not text in UTF-8",
        b"PK\x03\x04...": "is a zip archive or an Excel workbook",
        b"PAR1...": "is Parquet",
    }.items():
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=words):
            from_trace(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        from_trace(tmp_path / "none")
