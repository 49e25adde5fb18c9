"""Workloads: parsing, meaning, and errors."""

import math
from pathlib import Path

import numpy as np
import pytest

from seawall.errors import ConfigError
from seawall.plan import (
    Arrivals,
    Campaign,
    Clients,
    Lambda,
    Question,
    Servers,
    Service,
    Spike,
    Stage,
    Workload,
    constant,
    empirical,
    exponential,
    from_flags,
    from_trace,
    lognormal,
    read_workload,
    simulate,
    split_duration,
    uniform,
)
from seawall.plan.decision.windows import check_amount
from seawall.plan.inputs.distributions import mean_of
from seawall.plan.inputs.notation import (
    parse_amount,
    parse_distribution,
    parse_seconds,
    parse_spike,
)
from tests.parts import data_file


def test_parsing_of_quantities() -> None:
    assert parse_seconds("20s", "x") == 20.0
    assert parse_seconds("200ms", "x") == 0.2
    assert parse_seconds("1.5h", "x") == 5_400.0
    assert parse_seconds("7", "x") == 7.0
    written = ("1200000", "1_200_000", "1.2M", "5k", "1,200")
    assert [parse_amount(each, "x") for each in written] == [
        1_200_000.0, 1_200_000.0, 1_200_000.0, 5_000.0, 1_200.0,
    ]  # fmt: skip
    assert parse_distribution("4s..7s", "x") == uniform(4.0, 7.0)
    assert parse_distribution("4..7s", "x") == uniform(4.0, 7.0)
    assert parse_distribution("200..900ms", "x") == uniform(0.2, 0.9)
    assert parse_distribution("2s", "x") == constant(2.0)
    assert parse_distribution("exp 2s", "x") == exponential(2.0)
    assert parse_distribution("p50 2s p99 9s", "x") == lognormal(2.0, 9.0)
    assert parse_spike("5000@20s", "x") == (5_000, 20.0, 0.0)
    assert parse_spike("5k@1m+10s", "x") == (5_000, 60.0, 10.0)


@pytest.mark.parametrize(
    ("parse", "text", "words"),
    [
        (parse_seconds, "-3s", "duration: '-3s' is negative"),
        (parse_seconds, "nan", "duration: 'nan' is not a time"),
        (parse_seconds, "3 weeks", "duration: '3 weeks' is not a time"),
        (parse_amount, "many", "duration: 'many' is not a number"),
        (parse_amount, "1e999", "duration: '1e999' is not a number"),
        (parse_distribution, "7s..4s", "duration: the minimum, 7, exceeds the maximum, 4"),
        (parse_distribution, "p50 9s p99 2s", "duration: a median of 9"),
        (parse_spike, "5000", "duration: '5000' is not a spike"),
        (parse_spike, "2.5@1s", "duration: '2.5' is not a whole number"),
    ],
)
def test_errors_name_the_field(parse: object, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(text, "duration")  # type: ignore[operator]
    assert str(raised.value).startswith(words)


NAN = float("nan")
NONSENSE = [
    (lambda: Arrivals(rate=-1.0), "arrivals.rate: -1 is negative"),
    (lambda: Arrivals(rate=NAN), "arrivals.rate: nan is not a number"),
    (lambda: Arrivals(horizon=0.0), "arrivals.horizon: must be more than 0 seconds"),
    (lambda: Arrivals(daily_shape=(1.0, 2.0)), "arrivals.daily_shape: 2 weights; expected 24"),
    (lambda: Arrivals(daily_shape=(0.0,) * 24), "arrivals.daily_shape: all weights are 0"),
    (lambda: Arrivals(growth=-2.0), "arrivals.growth: -2 leaves no requests"),
    (lambda: Arrivals(spikes=(Spike(-5, 1.0),)), "arrivals.spikes.0.size: -5 is negative"),
    (lambda: Arrivals(horizon=9.0, spikes=(Spike(5, 10.0),)), "arrivals.spikes.0.at: after the"),
    (lambda: Arrivals(campaigns=(Campaign(0.0, 1.0, NAN),)), "arrivals.campaigns.0.factor: nan"),
    (lambda: Arrivals(trace=np.empty(0)), "arrivals.trace: the trace is empty"),
    (lambda: Arrivals(trace=np.array([1.0, 3.0, 2.0])), "arrivals.trace: request 3 arrived before"),
    (lambda: Arrivals(trace=np.array([0.0, NAN])), "arrivals.trace: the time of request 2 is not"),
]


@pytest.mark.parametrize(("make", "words"), NONSENSE)
def test_errors_of_arrivals(make: object, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Workload(arrivals=make())  # type: ignore[operator]
    assert str(raised.value).startswith(words)


def test_errors_of_services_clients_and_bins() -> None:
    with pytest.raises(ConfigError, match=r"service\.stages: no stages"):
        Workload(service=Service(stages=()))
    with pytest.raises(ConfigError, match=r"service\.stages\.one\.cpu_ms: -1 is negative"):
        Workload(service=Service(stages=(Stage("one", constant(1.0), cpu_ms=-1.0),)))
    with pytest.raises(ConfigError, match=r"clients\.patience"):
        Workload(clients=Clients(patience=0.0))
    with pytest.raises(ConfigError, match=r"bin_seconds: nan"):
        simulate(Workload(), Servers(slots=1), bin_seconds=NAN)
    with pytest.raises(ConfigError, match=r"lambda\.idle_seconds: nan"):
        Lambda(idle_seconds=NAN)


def test_flags_of_the_article() -> None:
    workload = from_flags(daily="1200000", spikes=["5000@20s"], duration="4s..7s", start="1s")
    assert workload.arrivals.rate == pytest.approx(1_200_000 / 86_400)
    assert workload.expected_requests == pytest.approx(1_205_000)
    assert workload.service.mean_seconds == pytest.approx(5.5)
    assert [mean_of(stage.seconds) for stage in workload.service.stages] == [
        pytest.approx(each) for each in (0.1, 0.2, 0.5, 4.5, 0.2)
    ]
    assert workload.sources["arrivals.rate"].startswith("given")
    assert workload.sources["service.first_token"].startswith("assumed")
    short = split_duration(constant(0.4))
    assert sum(mean_of(stage.seconds) for stage in short) == pytest.approx(0.4)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "workload.toml"
    path.write_text("""
        [arrivals]
        daily = "1.2M"
        horizon = "2h"
        spikes = ["5000@20s", "100@1m+10s"]
        daily_shape = [1, 1, 1, 1, 1, 1, 2, 4, 6, 8, 8, 8, 9, 8, 8, 7, 7, 8, 9, 9, 8, 6, 4, 2]
        [service]
        start = "1s"
        connections = 2
        [[service.stages]]
        name = "model"
        seconds = "4s..7s"
        cpu_ms = 2.5
        model = true
        [clients]
        retries = 1
    """)
    workload = read_workload(path)
    assert workload.arrivals.horizon == 7_200.0
    assert workload.arrivals.spikes[1] == Spike(100, 60.0, 10.0)
    assert workload.service.stages == (Stage("model", uniform(4.0, 7.0), 2.5, model=True),)
    assert (workload.service.connections, workload.clients.retries) == (2, 1)
    assert workload.sources["service.start"] == "given"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[arrivals]\nrate = -1", "arrivals.rate: -1 is negative"),
        ("[arrivals]\nrate = 'x'", "arrivals.rate: 'x' is not a number such as"),
        ("[arrivals]\nrat = 1", "arrivals.rat: unknown; known: horizon, rate"),
        ("[arrival]\nrate = 1", "arrival: unknown; known: arrivals, service, clients"),
        ("[arrivals]\nspikes = 3", "arrivals.spikes: is not a list"),
        ("[arrivals]\ntrace = 'none.csv'", "none.csv: cannot be read"),
        ("[service]\nstart = '1 eon'", "service.start: '1 eon' is not a time"),
        ("[[service.stages]]\nname = 'a'", "service.stages.0: a stage is a table"),
        ("arrivals = 3", "arrivals: is not a table"),
        ("=", "Invalid"),
    ],
)
def test_errors_in_files_name_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "workload.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_workload(path)
    assert str(raised.value).startswith(str(path))
    assert words in str(raised.value)


def test_traces(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        "id,Timestamp,duration_ms\n1,2026-11-25T10:00:00Z,1500\n"
        "2,2026-11-25T10:00:02.5Z,500\n3,2026-11-25T10:01:00+00:00,1000\n"
    )
    workload = from_trace(path)
    assert workload.arrivals.trace is not None
    assert workload.arrivals.trace.tolist() == [0.0, 2.5, 60.0]
    assert workload.service.mean_seconds == pytest.approx(1.0)  # of whole requests
    path.write_text("0.5\n0.75\n9\n")
    bare = from_trace(path)
    assert bare.arrivals.trace is not None
    assert bare.arrivals.trace.tolist() == [0.0, 0.25, 8.5]
    path.write_text("time\n1764064800000\n1764064801500\n")
    milliseconds = from_trace(path)
    assert milliseconds.arrivals.trace is not None
    assert milliseconds.arrivals.trace.tolist() == [0.0, 1.5]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ": the trace is empty"),
        ("timestamp\n", ": the trace is empty"),
        ("who,what\n1,2\n", ":1: no column of times"),
        ("timestamp\n5\n", ": one request at one time: there is no rate in it; at least two"),
        ("timestamp\n5\n5\n", ": 2 requests at one time: there is no rate in it"),
        ("timestamp\n5\n2026-11-25T10:00:00Z\n", ":3: '2026-11-25T10:00:00Z' is not a time"),
        ("timestamp\n2026-11-25T10:00:00Z\n5\n", ":3: '5' is not a time; accepted: 2026-"),
        ("timestamp\n1764064800\n1764064800000\n", ":3: timestamp: 1764064800000 is in another"),
        ("time_s\n1764064800000\n", ":2: time_s: 1764064800000 is not a time in the unit"),
        ("timestamp\n5\nsoon\n", ":3: 'soon' is not a time"),
        ("timestamp\n5\nnan\n", ":3: 'nan' is not a time"),
        ("timestamp,tokens\n5,3\n6,-2\n", ":3: tokens: -2 is not a positive number"),
        ("timestamp,tokens\n5,3\n6,few\n", ":3: tokens: 'few' is not a number"),
    ],
)
def test_errors_of_traces_name_file_line_and_column(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        from_trace(path)
    assert str(raised.value).startswith(f"{path}{words}")


def test_the_azure_trace() -> None:
    workload = from_trace(data_file("azure_llm_conv_2023.csv"))
    assert workload.arrivals.trace is not None
    assert len(workload.arrivals.trace) == 19_366
    assert workload.arrivals.horizon == pytest.approx(3_501.7, abs=1.0)
    result = simulate(workload, Lambda())
    assert result.requests == 19_366
    assert result.served > 19_000
    assert result.seconds["arrived"].sum() == 19_366


def test_shapes_campaigns_and_growth() -> None:
    """Counts by hour are Poisson: within five deviations of what the shape says."""
    shape = tuple(float(1 + hour % 12) for hour in range(24))
    workload = Workload(
        arrivals=Arrivals(
            horizon=14 * 86_400.0, rate=0.5, daily_shape=shape, weekly_shape=(1, 1, 1, 1, 1, 2, 0),
            campaigns=(Campaign(3_600.0, 1_800.0, 10.0),), growth=1.0,
        ),
        service=Service(stages=(Stage("work", constant(0.1)),)),
    )  # fmt: skip
    result = simulate(workload, Servers(slots=100_000), bin_seconds=60.0)
    by_hour = result.seconds["arrived"][: 14 * 24 * 60].reshape(-1, 60).sum(axis=1)
    assert by_hour[6 * 24 : 7 * 24].sum() == 0  # the seventh day of the week
    for hour in (0, 1, 11, 5 * 24 + 11, 13 * 24 - 2):
        day = (1, 1, 1, 1, 1, 2, 0)[hour // 24 % 7] / (7 / 7)
        expected = 1_800 * shape[hour % 24] / 6.5 * day * 2.0 ** ((hour + 0.5) / 24 / 30)
        expected *= 5.5 if hour == 1 else 1.0
        assert abs(by_hour[hour] - expected) < 5 * math.sqrt(expected), hour
    assert result.requests == pytest.approx(workload.expected_requests, rel=0.01)


def test_distributions() -> None:
    for each, p50, p99 in (
        (uniform(2.0, 4.0), 3.0, 3.98),
        (exponential(2.0, least=1.0), 1.0 + 2.0 * math.log(2), 1.0 + 2.0 * math.log(100)),
        (lognormal(1.0, 10.0), 1.0, 10.0),
        (empirical([1.0, 2.0, 3.0, 4.0, 5.0]), 3.0, 4.96),
    ):
        workload = Workload(
            arrivals=Arrivals(horizon=1.0, spikes=(Spike(200_000, 0.0),)),
            service=Service(stages=(Stage("work", each),)),
        )
        result = simulate(workload, Servers(slots=200_000))
        assert result.latency.mean == pytest.approx(mean_of(each), rel=0.02)
        assert result.latency.quantile(0.5) == pytest.approx(p50, rel=0.02)
        assert result.latency.quantile(0.99) == pytest.approx(p99, rel=0.04)
        assert result.latency.share_within(p50) == pytest.approx(0.5, abs=0.02)


def test_a_trace_has_the_bounds_of_daily_too(tmp_path: Path) -> None:
    """Two requests in 48 years are no traffic, and no question."""
    path = tmp_path / "far.csv"
    path.write_text("timestamp,latency_ms\n1000000000,200\n1764064800,300\n", encoding="utf-8")
    question = Question(workload=from_trace(path))
    with pytest.raises(
        ConfigError, match=r"\(--trace\): 0\.000113079 requests a day; 0, or at least"
    ):
        check_amount(question)
