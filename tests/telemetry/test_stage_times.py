"""Times of stages, which reach their histogram with each sample."""

import re

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from seawall.admission.gate import AdmissionGate
from seawall.settings import AdmissionSettings
from seawall.telemetry.metrics import Metrics
from seawall.turn import TurnReport

BOUNDS = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0,
)  # fmt: skip
MILLISECONDS = st.floats(0, 90_000) | st.sampled_from([each * 1e3 for each in BOUNDS])


def stage_lines(text: bytes) -> list[str]:
    return re.findall(
        r"^seawall_stage_seconds_(?:bucket|count|sum).*$", text.decode(), re.MULTILINE
    )


@given(st.lists(st.lists(MILLISECONDS, max_size=8), max_size=3))
async def test_they_are_counted_as_if_each_were_observed(samples: list[list[float]]) -> None:
    registry = CollectorRegistry()
    expected = Histogram(
        "seawall_stage_seconds", "Each by itself.", ["stage"], buckets=BOUNDS, registry=registry
    )
    metrics, gate = Metrics(), AdmissionGate(AdmissionSettings())
    for turns in samples:
        for milliseconds in turns:
            timings = {"commit": milliseconds, "total": 2 * milliseconds}
            report = TurnReport("turn", session="session", outcome="completed", timings=timings)
            metrics.observe(report)
            for stage, each in timings.items():
                expected.labels(stage).observe(each / 1e3)
        metrics.sample(gate, 0)
    found, wanted = stage_lines(metrics.scrape()[1]), stage_lines(generate_latest(registry))
    assert [_rounded(line) for line in found] == [_rounded(line) for line in wanted]


def _rounded(line: str) -> tuple[str, float]:
    name, _, value = line.rpartition(" ")
    return name, round(float(value), 6)
