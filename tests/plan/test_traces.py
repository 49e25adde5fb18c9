"""Recordings of tools and clouds: their times, in any unit and order, or an error that says why."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.cli.main import main
from seawall.errors import ConfigError
from seawall.plan import from_flags, from_trace, read_workload
from seawall.plan.inputs.exports.reading import read_trace
from seawall.plan.inputs.exports.trace import Trace
from tests.parts import data_file
from tests.properties import examples

START = 1_764_064_800  # 2025-11-25T10:00:00Z
CLOCKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def read(folder: Path, text: str) -> Trace:
    path = folder / "recorded"
    path.write_text(text)
    return read_trace(path)


@examples(30, 1_000)
@given(
    microseconds=st.lists(st.integers(0, 86_400 * 10**6), min_size=2, max_size=30, unique=True),
    order=st.randoms(),
    named=st.booleans(),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
)
def test_times_are_the_same_in_every_unit_of_a_clock_and_in_any_order(
    microseconds: list[int], order: Any, named: bool, delimiter: str, tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("clock")
    wanted = (np.sort(np.array(microseconds)) - min(microseconds)) / 1e6
    order.shuffle(microseconds)
    for unit, many in CLOCKS.items():
        # From whole numbers: a float has no room for the nanoseconds since 1970.
        ticks = [START * 10**6 + each for each in microseconds]
        if unit in ("s", "ms"):
            cells = [f"{each // (10**6 // many)}.{each % (10**6 // many):0{7 - len(str(many))}}"
                     for each in ticks]  # fmt: skip
        else:
            cells = [str(each * many // 10**6) for each in ticks]
        head = f"arrival_{unit}" if named else "timestamp"
        trace = read(folder, "\n".join(delimiter.join(("x", each)) for each in [head, *cells]))
        assert trace.times.tolist() == pytest.approx(wanted.tolist(), abs=2e-6)
        assert trace.start == pytest.approx(START + min(microseconds) / 1e6, abs=2e-6)


@examples(40, 1_000)
@given(seconds=st.lists(st.floats(0, 1e6), min_size=2, max_size=9, unique=True))
def test_relative_times_are_seconds_unless_the_column_says_otherwise(
    seconds: list[float], tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("relative")
    wanted = np.sort(np.array(seconds)) - min(seconds)
    for name, scale in (("timestamp", 1.0), ("start_ms", 1e3), ("time_us", 1e6)):
        text = "\n".join([name, *(repr(each * scale + 0.25 * scale) for each in seconds)])
        trace = read(folder, text)
        assert trace.start is None
        assert trace.times.tolist() == pytest.approx(wanted.tolist(), abs=1e-6, rel=1e-9)


ZONES = """time,tokens
2025-11-25T10:00:00Z,1
2025-11-25T11:00:01+01:00,1
"2025-11-25 10:00:02 UTC",1
25/Nov/2025:05:00:03 -0500,1
2025/11/25 10:00:04.0000000,1
2025-11-25T10:00:05.123456789Z,1
"""


def test_time_zones(tmp_path: Path) -> None:
    trace = read(tmp_path, ZONES)
    assert trace.times.tolist() == pytest.approx([0.0, 1.0, 2.0, 3.0, 4.0, 5.123456789])
    assert trace.start == START


def objects(*rows: dict[str, Any]) -> str:
    return "\n".join(json.dumps(each) for each in rows)


# What `locust --csv` 2.46 wrote for three users in five seconds, the columns between left out.
LOCUST = """Timestamp,User Count,Type,Name,Requests/s,Failures/s,50%,100%,Total Request Count
1795962283,0,,Aggregated,0.000000,0.000000,N/A,N/A,0
1795962284,1,,Aggregated,0.000000,0.000000,8,13,4
1795962285,2,,Aggregated,0.000000,0.000000,6,22,11
1795962286,3,,Aggregated,2.000000,0.000000,6,22,21
1795962287,3,,Aggregated,3.500000,0.000000,7,22,31
"""
BURST = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5.0,a,4,ChatGPT,472,18,490,Conversation log\n45,b,10,ChatGPT,1087,230,1317,API log\n"
    "118,c,2,GPT-4,417,276,693,API log\n"
)
CLOUDFRONT = (
    "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip time-taken\n"
    "2025-11-25\t10:00:02\tDFW3\t10\t1.1.1.1\t0.500\n2025-11-25\t10:00:01\tDFW3\t9\t1.1.1.1\t1.0\n"
)
NGINX = (
    '1.2.3.4 - - [25/Nov/2025:10:00:01 +0000] "GET /?rt=9.999 HTTP/1.1" 200 5 "-" "curl 1.234"{}\n'
    '1.2.3.4 - - [25/Nov/2025:10:00:03 +0000] "GET / HTTP/1.1" 200 5 "-" "curl"{}\n'
)
INSIGHTS = {
    "status": "Complete",
    "results": [
        [{"field": key, "value": value} for key, value in row.items()]
        for row in (
            {"@timestamp": "2025-11-25 10:00:02.000", "@type": "REPORT", "@duration": "500.0"},
            {"@timestamp": "2025-11-25 10:00:01.900", "@type": "END"},
            {"@timestamp": "2025-11-25 10:00:01.000", "@type": "REPORT", "@duration": "1000"},
        )
    ],
}
EVENTS = (
    (START * 1_000 + 1_000, "START RequestId: 8f5 Version: $LATEST\n"),
    (
        START * 1_000 + 2_000,
        "REPORT RequestId: 8f5\tDuration: 1000.00 ms\tBilled Duration: 1000 ms",
    ),
    (START * 1_000 + 2_000, "END RequestId: 8f5\n"),
    (START * 1_000 + 3_000, "REPORT RequestId: 8f6\tDuration: 500.00 ms\tBilled Duration: 500 ms"),
)
API_GATEWAY = (
    {"requestTime": "25/Nov/2025:10:00:00 +0000", "requestTimeEpoch": "1764064800250", "status": 1,
     "responseLatency": "874"},
    {"requestTime": "25/Nov/2025:10:00:01 +0000", "requestTimeEpoch": "1764064801250", "status": 1,
     "responseLatency": "20"},
)  # fmt: skip
LITELLM = (
    {"created_at": 1764064800, "usage": {"prompt_tokens": 10, "completion_tokens": 20}},
    {"created_at": 1764064803, "usage": {"prompt_tokens": 30, "completion_tokens": 40}},
)
# What is in the file; arrivals; durations in seconds; input and output tokens.
RECORDINGS: dict[str, tuple[str, list[float], list[float] | None, list[float] | None]] = {
    "BurstGPT": (BURST, [0, 40, 113], [4, 10, 2], [472, 1087, 417]),
    "CloudFront": (CLOUDFRONT, [0, 1.5], [0.5, 1.0], None),
    "CloudFront, version 2": (
        objects(
            {"date": "2025-11-25", "time": "10:00:01", "x-edge-location": "A", "time-taken": "1.0"},
            {"date": "2025-11-25", "time": "10:00:02", "x-edge-location": "A", "time-taken": "0.5"},
        ),
        [0, 1.5],
        [1.0, 0.5],
        None,
    ),
    "nginx, combined": (NGINX.format("", ""), [0, 2], None, None),
    "nginx, rt=": (NGINX.format(" rt=0.250 uct=0.001", " rt=1.000"), [0, 1.25], [0.25, 1], None),
    "nginx, last": (NGINX.format(' "-" 0.250', ' "-" 1.000'), [0, 1.25], [0.25, 1.0], None),
    "Insights": (json.dumps(INSIGHTS), [0, 1.5], [0.5, 1.0], None),
    "Insights, CSV": (
        ("@timestamp,@type,@duration\n2025-11-25 10:00:02.000,REPORT,500\n"
        "2025-11-25 10:00:01.000,REPORT,1000.0\n2025-11-25 10:00:00.000,START,\n"),
        [0, 1.5],
        [0.5, 1.0],
        None,
    ),
    "a function's log": (
        json.dumps({"events": [{"timestamp": at, "message": text} for at, text in EVENTS]}),
        [0, 1.5],
        [1.0, 0.5],
        None,
    ),
    "a function's log, Insights": (
        json.dumps([{"@timestamp": str(at), "@message": text} for at, text in EVENTS]),
        [0, 1.5],
        [1.0, 0.5],
        None,
    ),
    "another log, Insights": (
        '@timestamp,@message\n2025-11-25 10:00:00.000,"GET, 200"\n2025-11-25 10:00:01.500,GET\n',
        [0, 1.5],
        None,
        None,
    ),
    "API Gateway": (objects(*API_GATEWAY), [0, 1], [0.874, 0.02], None),
    "API Gateway, an array": (json.dumps(API_GATEWAY, indent=1), [0, 1], [0.874, 0.02], None),
    "API Gateway, without latency": (
        objects(*({key: each[key] for key in ("requestTimeEpoch", "requestTime")}
                  for each in API_GATEWAY)),
        [0, 1], None, None,
    ),
    "API Gateway, dates": (
        objects(*({"requestTime": each["requestTime"]} for each in API_GATEWAY)), [0, 1], None, None
    ),
    "an array, with usage": (json.dumps(LITELLM), [0, 3], None, [10, 30]),
    "created_at": (
        "id;created_at;prompt_tokens\n1;2025-11-25T10:00:03Z;5\n2;2025-11-25T10:00:00Z;6\n",
        [0, 3],
        None,
        [6, 5],
    ),
    "commas in quotes": (
        'name,"what, when",timestamp\n"a, b","c",1764064800\n"d ""e"", f",g,1764064801.5\n',
        [0, 1.5],
        None,
        None,
    ),
    "two files in one": ("timestamp\n1764064800\ntimestamp\n1764064801\n", [0, 1], None, None),
    "no header, a repeated row": ("17640648.5\n17640648.5\n17640650\n", [0, 0, 1.5], None, None),
    "for spreadsheets": ("sep=;\ntime;duration_s\n10;1\n12;2\n", [0, 2], [1, 2], None),
    "requests without a duration": ("ts,latency_ms\n0,874\n1,-\n2,\n", [0, 1, 2], [0.874], None),
}  # fmt: skip


@pytest.mark.parametrize("tool", RECORDINGS)
@pytest.mark.parametrize("form", ["as it is", "gzip, BOM and CRLF"])
def test_recordings_of(tool: str, form: str, tmp_path: Path) -> None:
    text, arrivals, durations, tokens = RECORDINGS[tool]
    path = tmp_path / "recorded"
    content = text.encode()
    if form != "as it is":
        content = gzip.compress(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"))
    path.write_bytes(content)
    trace = read_trace(path)
    assert trace.times.tolist() == pytest.approx(arrivals, abs=1e-6)
    for found, wanted in ((trace.durations, durations), (trace.input_tokens, tokens)):
        assert (None if found is None else found.tolist()) == (
            None if wanted is None else pytest.approx(wanted)
        )


def counts(times: Sequence[float], width: float) -> list[int]:
    bins = np.arange(0.0, float(np.max(times)) + width + 1e-9, width)
    return [int(each) for each in np.histogram(np.asarray(times), bins=bins)[0]]


@pytest.mark.parametrize(
    ("text", "width", "wanted", "horizon"),
    [
        (LOCUST, 1.0, [4, 7, 10, 10], 4.0),
        ("bin(5m),count(*)\n2025-11-25 10:05:00.000,3\n2025-11-25 10:00:00.000,2\n", 300, [2, 3],
         600),
        ("bin(1m),count()\n2025-11-25 10:00:00.000,7\n", 60, [7], 60),
        ("Time,requests\n2025-11-25 10:00:00,3\n2025-11-25 10:01:00,4\n", 60, [3, 4], 120),
    ],
)  # fmt: skip
def test_counts_per_period(
    text: str, width: float, wanted: list[int], horizon: float, tmp_path: Path
) -> None:
    trace = read(tmp_path, text)
    assert counts(trace.times.tolist(), width) == wanted
    assert trace.horizon == horizon
    assert trace.start is not None


def test_a_clock_of_whole_seconds_makes_no_crowd_of_every_second(tmp_path: Path) -> None:
    """Twenty requests a second are not twenty at once, and each stays in its second."""
    rows = [str(START + at // 20) for at in range(400)]
    times = read(tmp_path, "\n".join(["timestamp", *rows])).times
    assert counts((times - times[0]).tolist(), 20.0) == [400]
    assert len(np.unique(times)) == 400
    assert np.diff(times).max() < 1.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"metrics":{"http_reqs":{}},"root_group":{}}', ": k6's summary has no times; give"),
        ('{"latencies":{},"throughput":1}', ": vegeta's report has no times; give vegeta encode"),
        ('[{"name":"/","num_requests":3,"response_times":{},"start_time":5}]', ": Locust's stat"),
        ("Method,Name,Error,Occurrences\n", ": Locust's failures; give its ..._stats_history"),
        ("Label,# Samples,Average,Median\nx,3,4,5\n", ": JMeter's report of the whole test"),
        ('<?xml version="1.0"?>\n<testResults version="1.2">\n', ": XML; JMeter writes CSV with"),
        ("Requests      [total, rate, throughput]  1, 1.00, 1.00\n", ": a report of vegeta has no"),
        ("#Software: Microsoft Internet Information Services\n#Fields: date time s-ip\n",
         ":2: not a log of CloudFront"),
        ('{"status":"Running","results":[]}', ": status: 'Running': partial data"),
        ('{"status":"Complete","results":[["x"]]}', ": results.0: not a list of fields"),
        ('{"events":[{"timestamp":1}],"nextToken":"x"}', ": nextToken: partial data; export all"),
        ('{"events":[3]}', ": events.0: not an object"),
        ('{"time":1}\n\n[1]\n', ":3: not a JSON object"),
        ('[{"time":1},2]', ": 1: not a JSON object"),
        ("bin(1m),what\n2025-11-25 10:00:00.000,7\n", ":1: columns of counts: none; one is needed"),
        ("time,requests,hits\n1,2,3\n", ":1: columns of counts: requests, hits; one is needed"),
        ("time\n1/2/2025 10:00\n", ":2: '1/2/2025 10:00' is not a time; accepted: 2026-01-31T10"),
        ("time,tokens\n1e400,2\n", ":2: '1e400' is not a time"),
        (NGINX.format("", "") + "reboot\n", ":3: not an entry of an access log: 'reboot"),
    ],
)  # fmt: skip
def test_what_has_no_arrivals_is_refused_by_name(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text)
    assert str(raised.value).removeprefix(str(tmp_path / "recorded")).startswith(words)


@examples(40, 1_000)
@given(
    gaps=st.lists(st.floats(0.001, 900.0), min_size=2, max_size=40),
    ratio=st.floats(0.3, 20.0),
)
def test_daily_scales_a_trace_and_keeps_its_shape(
    gaps: list[float], ratio: float, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("scaled") / "trace.csv"
    at = np.concatenate([[0.0], np.cumsum(gaps)])
    path.write_text("\n".join(["arrival", *map(repr, at.tolist())]))
    recorded = from_trace(path)
    daily = ratio * len(at) * 86_400 / recorded.arrivals.horizon
    scaled = from_flags(trace=path, daily=repr(daily))
    assert scaled.arrivals.horizon == recorded.arrivals.horizon
    assert scaled.arrivals.rate == 0.0
    times = scaled.arrivals.trace
    assert times is not None
    assert abs(len(times) - ratio * len(at)) <= 0.5 + 1e-6
    for moment in at:  # as many before each request as there were, scaled
        share = ratio * int((at < moment).sum())
        assert abs(int((times < moment).sum()) - share) <= 0.5 + 1e-6


def test_the_real_trace_scaled_to_a_million_a_day() -> None:
    azure = data_file("azure_llm_conv_2023.csv")
    workload = from_flags(trace=azure, daily="1M")
    assert workload.expected_requests == pytest.approx(1e6 * 3_501.7 / 86_400, rel=1e-3)
    before, after = read_trace(azure).times, workload.arrivals.trace
    assert after is not None
    minutes = np.arange(0.0, 3_540.0, 60.0)
    was, now = (np.histogram(each, bins=minutes)[0] / len(each) for each in (before, after))
    assert np.abs(was - now).max() < 2e-4
    assert workload.sources["arrivals.trace"].startswith(
        "given: azure_llm_conv_2023.csv, arrivals: 19,366 requests in 58.4 minutes, "
        "2023-11-16 18:15:46 to 2023-11-16 19:14:08 UTC; 477,8"
    )
    assert workload.sources["arrivals.trace"].endswith("; scaled to 1,000,000 a day with its shape")
    trace = read_trace(azure)
    assert trace.input_tokens is not None
    assert trace.output_tokens is not None
    assert (trace.input_tokens.sum(), trace.output_tokens.sum()) == (22_361_870, 4_088_665)


def test_the_span_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.csv"
    rows = [f"{START + 30 * at}.5" for at in range(21)]
    path.write_text("\n".join(["timestamp", *rows]))
    flags = ["--duration", "1s", "--platforms", "lambda"]
    assert main(["plan", "--trace", str(path), *flags]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "trace: trace.csv, arrivals: 21 requests in 10.5 minutes, 2025-11-25 10:00:00 to "
        "2025-11-25 10:10:00 UTC; 2,880 a day"
    ) in printed


def test_a_file_scales_its_trace(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("time\n0\n30\n")
    written = tmp_path / "plan.toml"
    written.write_text('[arrivals]\ntrace = "trace.csv"\ndaily = 28_800\n')
    workload = read_workload(written)
    assert workload.arrivals.horizon == 60.0
    assert workload.expected_requests == 20
    again = from_flags(base=workload, daily="2880")
    assert again.expected_requests == 2
    assert again.sources["arrivals.trace"].count("scaled to") == 1
    with pytest.raises(ConfigError, match=r"daily: 5 a day leaves no request in the 60 s of the"):
        from_flags(base=workload, daily="5")
    with pytest.raises(ConfigError, match=r"arrivals\.horizon: 10 s, before the last request"):
        from_flags(base=workload, horizon="10s")


def test_a_day_is_not_extrapolated_from_seconds(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("time\n0\n0.001\n")
    with pytest.raises(ConfigError, match=r"trace: 2 requests in 0\.002 s: too short"):
        from_flags(trace=path)
    assert from_flags(trace=path, daily="86.4B").expected_requests > 0
