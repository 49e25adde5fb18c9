"""Recorded traffic: arrivals within the bounds of a trace, or an error that names the file."""

import gzip
import io

import numpy as np

from seawall.errors import ConfigError
from seawall.plan.inputs.exports import trace as traces
from seawall.plan.inputs.exports.reading import read_recording
from seawall.plan.inputs.exports.trace import check_times, span_of, span_words
from tests.fuzz.targets import ensure

__all__ = ["SEEDS", "one_input"]

traces.MOST_REQUESTS = 1_000_000  # counts, which a few bytes can raise: for the fuzzer's memory

_ALB = (
    b"http 2018-07-02T22:23:00.186641Z app/lb/1 192.168.131.39:2817 10.0.0.1:80 0.000 0.001 0.000 "
    b'200 200 34 366 "GET http://x/ HTTP/1.1" "curl" - - arn "Root=1" "-" "-" 0 '
    b'2018-07-02T22:22:48.364000Z "forward" "-" "-" "1:80" "200" "-" "-"\n'
)
SEEDS: list[bytes] = [
    b"",
    b"timestamp\n5\n3\n",
    b"sep=;\nts;latency_ms;tokens\n1764064800000;874;3\n1764064800000;1m2s;-\n",
    b"time,requests\n2025-11-25 10:00:00,3\n2025-11-25 10:01:00,4\n",
    b"bin(5m),count(*)\n2025-11-25 10:05:00.000,3\n",
    b"bin(" + b"1" * 60 + b"5m),count()\n2025-11-25 10:00:00,3",  # a period without end
    (
        b'{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":'
        b'[[1e99,"2"],[2e99,"3"]]}]}}'
    ),
    b"Timestamp,Name,Total Request Count\n1,Aggregated,0\n2,Aggregated,9\n",
    b"1764064800000000000,200,874000000,0,12,,Ym9keQ==,,0,GET,http://x/,\n" * 2,
    b'{"time":"2025-11-25T10:00:00.123456789Z","usage":{"prompt_tokens":4}}\n{"time":1}\n',
    b'[{"requestTimeEpoch":"1764064800250","responseLatency":"874"}]',
    b'{"results":[[{"field":"@timestamp","value":"2025-11-25 10:00:02"}]],"status":"Complete"}',
    b'{"events":[{"timestamp":1764064800000,"message":"REPORT RequestId: a Duration: 1.0 ms"}]}',
    b'{"Datapoints":[{"Timestamp":"2025-11-25T10:00:00Z","Sum":3},{"Timestamp":1,"Sum":2}]}',
    (
        b'{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":'
        b'[[1,"2"],[16,"3"]]}]}}'
    ),
    b"#Version: 1.0\n#Fields: date time x-edge-location time-taken\n2025-11-25\t10:00:02\tA\t0.5\n",
    b'1.2.3.4 - - [25/Nov/2025:10:00:01 +0000] "GET / HTTP/1.1" 200 5 "-" "curl" rt=0.250\n',
    (
        b"Nov 25 10:00:01 lb haproxy[1]: 10.0.1.2:33 [25/Nov/2025:10:00:00.250] in a/s 1/0/3/6/8 "
        b'200 2 - - ---- 1/1/1/1/0 0/0 "GET / HTTP/1.1"\n'
    ),
    _ALB,
    gzip.compress(_ALB),
    b"\xff\xfet\x00",
    b"timestamp\n0001-01-01\n9999-12-31T23:59:59\n",
]


def one_input(data: bytes) -> None:
    """Read the bytes as a recording.

    Raises:
        AssertionError: the trace is out of its bounds, or the error does not name the file.
        Exception: reading it failed in another way than by ConfigError.
    """
    try:
        trace = read_recording(io.BytesIO(data), "recorded")
        seconds = span_of(trace, "recorded")
    except ConfigError as error:
        ensure(str(error).startswith("recorded:"), f"no file in: {error}")
        return
    check_times(trace.times, "times")
    ensure(trace.times[-1] <= seconds, "requests after the end")
    ensure(span_words(trace, seconds), "no words for it")
    for values in (trace.durations, trace.input_tokens, trace.output_tokens):
        if values is not None:
            ensure(0 < len(values) <= len(trace.times), "values without requests")
            ensure(np.isfinite(values).all() and (values >= 0).all(), "a value that is no amount")
    if trace.input_tokens is not None and trace.output_tokens is not None:
        ensure(len(trace.input_tokens) == len(trace.output_tokens), "tokens of other requests")
