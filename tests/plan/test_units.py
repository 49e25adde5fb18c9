"""Units of recorded durations: those of the tool that wrote them, or an error."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.errors import ConfigError
from seawall.plan.inputs.exports.reading import read_trace
from seawall.plan.inputs.exports.trace import Trace
from seawall.plan.inputs.exports.units import parse_durations, split_unit

JMETER = (
    "timeStamp,elapsed,label,responseCode,responseMessage,threadName,dataType,success,"
    "failureMessage,bytes,sentBytes,grpThreads,allThreads,URL,Latency,IdleTime,Connect\n"
    "1764064801000,874,ask,200,OK,t 1-1,text,true,,512,128,1,1,http://x/,401,0,3\n"
    "1764064800500,1200,ask,200,OK,t 1-2,text,true,,512,128,1,1,http://x/,500,0,2\n"
    "1764064802000,3,ask,503,No,t 1-1,text,false,,12,128,1,1,http://x/,2,0,1\n"
)
HAPROXY = (
    "Nov 25 10:00:01 lb haproxy[14389]: 10.0.1.2:33317 [25/Nov/2025:10:00:00.250] http-in "
    'static/srv1 10/0/30/69/874 200 2750 - - ---- 1/1/1/1/0 0/0 "GET /index.html HTTP/1.1"\n'
    "Nov 25 10:00:02 lb haproxy[14389]: Server static/srv2 is UP\n"
    "Nov 25 10:00:03 lb haproxy[14389]: 10.0.1.2:33318 [25/Nov/2025:10:00:01.250] http-in~ "
    'static/<NOSRV> -1/-1/-1/-1/+5000 -1 0 - - CC-- 1/1/1/1/0 0/0 "GET / HTTP/1.1"\n'
)


def k6_point(metric: str, value: float, second: int) -> str:
    data = {"time": f"2025-11-25T10:00:{second:02}.500000000Z", "value": value, "tags": {}}
    return json.dumps({"metric": metric, "type": "Point", "data": data})


# What is in the file; arrivals from the first on; durations in seconds.
TOOLS = {
    "JMeter": (JMETER, [0.0, 0.5, 1.5], [0.874, 1.2]),
    "JMeter, few columns": (
        "timeStamp,elapsed\n1764064800000,874\n1764064801000,1200\n",
        [0.0, 1.0],
        [0.874, 1.2],
    ),
    "JMeter, with dates and semicolons": (
        ("timeStamp;elapsed;label;success\n2025/11/25 10:00:00.500;874;a;true\n"
        "2025/11/25 10:00:01.000;20;a;true\n"),
        [0.0, 0.5],
        [0.874, 0.020],
    ),
    "k6 CSV": (
        ("metric_name,timestamp,metric_value,check,error\n"
        "http_reqs,1764064802,1.000000,,\nhttp_req_duration,1764064802,874.250000,,\n"
        "http_req_duration,1764064801,500.000000,,\nvus,1764064801,3.0,,\n"),
        [0.0, 0.62575],
        [0.87425, 0.5],
    ),
    "k6 JSON": (
        json.dumps({"type": "Metric", "metric": "http_req_duration", "data": {}})
        + "\n"
        + "\n".join([k6_point("http_req_duration", 500.0, 1), k6_point("vus", 3.0, 1)])
        + "\n"
        + k6_point("http_req_duration", 874.0, 2),
        [0.0, 0.626],
        [0.5, 0.874],
    ),
    "hey": (
        ("response-time,DNS+dialup,DNS,Request-write,Response-delay,Response-read,status-code,"
        "offset\n0.8740,0.0,0.0,0.0,0.8,0.0,200,1.5000\n2.0000,0.0,0.0,0.0,2.0,0.0,200,0.5000\n"),
        [0.0, 1.0],
        [0.874, 2.0],
    ),
    "ab": (
        ("starttime\tseconds\tctime\tdtime\tttime\twait\n"
        "Tue Nov 25 10:00:00 2025\t1764064800\t0\t874\t874\t873\n"
        "Tue Nov 25 10:00:01 2025\t1764064801\t1\t19\t20\t18\n"),
        [0.0, 1.0],
        [0.874, 0.020],
    ),
    "vegeta CSV": (
        ("1764064800000000000,200,874000000,0,12,,Ym9keQ==,,0,GET,http://x/,\n"
        "1764064800500000000,200,20000000,0,12,,Ym9keQ==,,1,GET,http://x/,\n"),
        [0.0, 0.5],
        [0.874, 0.020],
    ),
    "vegeta JSON": (
        ('{"attack":"","seq":0,"code":200,"timestamp":"2025-11-25T10:00:00.25Z",'
        '"latency":874000000,"bytes_in":12}\n{"attack":"","seq":1,"code":200,'
        '"timestamp":"2025-11-25T10:00:00.75Z","latency":20000000,"bytes_in":12}\n'),
        [0.0, 0.5],
        [0.874, 0.020],
    ),
    "nginx": (
        "msec,request_time,status\n1764064800.874,0.874,200\n1764064803.000,2.000,200\n",
        [0.0, 1.0],
        [0.874, 2.0],
    ),
    "nginx JSON": (
        ('{"time_iso8601":"2025-11-25T10:00:00.874+00:00","request_time":"0.874"}\n'
        '{"time_iso8601":"2025-11-25T10:00:03+00:00","request_time":"2.000"}\n'),
        [0.0, 1.0],
        [0.874, 2.0],
    ),
    "nginx, whole seconds": ("msec,request_time\n100,2\n103,3\n", [0.0, 2.0], [2.0, 3.0]),
    "HAProxy": (HAPROXY, [0.0, 1.0], [0.874]),
    "HAProxy CSV": ("timestamp,Tr,Ta\n1764064800,3,874\n1764064801,3,20\n", [0, 1], [0.874, 0.02]),
    "Application Insights": (
        ("timestamp [UTC],name,success,resultCode,duration,performanceBucket\n"
        '"2025-11-25T10:00:00.0000000Z",GET,True,200,874.5,500ms-1sec\n'
        '"2025-11-25T10:00:01.0000000Z",GET,True,200,20,<250ms\n'),
        [0.0, 1.0],
        [0.8745, 0.020],
    ),
    "a unit in the name": ("ts,latency (us)\n1,874000\n2,20000\n", [0.0, 1.0], [0.874, 0.02]),
    "a unit in camel case": ("ts,responseTimeMs\n1,874\n2,20\n", [0.0, 1.0], [0.874, 0.02]),
    "a unit beside the value": ("ts,latency\n1,874ms\n2,1m2.5s\n", [0.0, 1.0], [0.874, 62.5]),
    "a clock": ("ts,duration\n1,00:00:00.874\n2,00:01:02.5\n", [0.0, 1.0], [0.874, 62.5]),
    "seconds with decimals": ("ts,duration\n1,0.874\n2,12.5\n", [0.0, 1.0], [0.874, 12.5]),
    "named seconds": ("ts,duration_s\n1,874\n2,20\n", [0.0, 1.0], [874.0, 20.0]),
    "times in ns": ("ts,took_s\n1764064800000000000,1\n1764064800500000000,2\n", [0, 0.5], None),
    "times in ms by name": ("start_ms,duration_s\n0,1\n874,2\n", [0.0, 0.874], [1.0, 2.0]),
}  # fmt: skip


def read(folder: Path, text: str) -> Trace:
    path = folder / "recorded"
    path.write_text(text)
    return read_trace(path)


@pytest.mark.parametrize("tool", TOOLS)
def test_durations_are_in_seconds_whatever_the_tool_writes(tool: str, tmp_path: Path) -> None:
    text, arrivals, durations = TOOLS[tool]
    trace = read(tmp_path, text)
    assert trace.times.tolist() == pytest.approx(arrivals, abs=1e-6)
    found = None if trace.durations is None else trace.durations.tolist()
    assert found == (None if durations is None else pytest.approx(durations))


def test_locusts_history_is_counts(tmp_path: Path) -> None:
    text = (
        '"Timestamp","User Count","Type","Name","Requests/s","Failures/s","50%",'
        '"Total Request Count","Total Failure Count"\n'
        "1764064800,1,,Aggregated,0.0,0.0,N/A,0,0\n"
        "1764064800,1,GET,/x,0.0,0.0,N/A,0,0\n"
        "1764064801,5,,Aggregated,4.0,0.0,12,4,0\n"
        "1764064803,5,,Aggregated,5.0,0.0,12,14,0\n"
    )
    trace = read(tmp_path, text)
    counts, _ = np.histogram(trace.times, bins=[0.0, 1.0, 3.0])
    assert counts.tolist() == [4, 10]
    assert (trace.durations, trace.horizon) == (None, 3.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("timestamp,elapsed\n1,874\n2,20\n", ":2: elapsed: the unit is ambiguous (median 447,"),
        ("timestamp,latency\n1,3\n2,5\n", ":2: latency: the unit is ambiguous"),
        ("timestamp,duration\n1,874.31\n2,99.5\n", ":2: duration: the unit is ambiguous"),
        ("timestamp,duration\n1,0.5\n2,0.5\n3,1000.5\n", ":2: duration: the unit is ambiguous"),
        ("timestamp,duration\n1,soon\n", ":2: duration: 'soon' is not a number"),
        ("timestamp,duration\n1,5m3\n", ":2: duration: '5m3' is not a number"),
        ("timestamp,duration_ms\n1,-3\n", ":2: duration_ms: -3 is not a positive number"),
        ("timeStamp,elapsed\n1764064800000,x\n", ":2: elapsed: 'x' is not a number"),
        ("Type,Name,Request Count\nGET,/x,3\n", ":1: no column of times"),
        ("Type,Name,Request Count,Failure Count\nGET,/x,3,0\n", ": Locust's statistics of the"),
        ("Running 30s test @ http://x/\n  2 threads\n", ": what wrk prints has no times"),
        ('{"time":"2025-11-25T10:00:00Z"}\nhello\n', ":2: not JSON"),
    ],
)
def test_ambiguous_units_are_rejected(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text)
    assert str(raised.value).startswith(f"{tmp_path / 'recorded'}{words}")


@given(
    seconds=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5),
    unit=st.sampled_from([("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0)]),
    base=st.sampled_from(["duration", "latency", "response_time"]),
)
def test_named_units(seconds: list[float], unit: tuple[str, float], base: str) -> None:
    name, scale = unit
    assert split_unit(f"{base}_{name}")[1] == scale
    assert split_unit(f"{base} [{name}]")[1] == scale
    named = parse_durations([repr(each / scale) for each in seconds], scale, str, base)
    beside = parse_durations([f"{each / scale!r}{name}" for each in seconds], None, str, base)
    assert named.tolist() == pytest.approx(seconds)
    assert beside.tolist() == pytest.approx(seconds)
