"""Metrics under the names of version 0.1."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from seawall.telemetry.metrics import _WithOldNames


def test_metrics_that_0_1_left_in_a_folder_are_not_exported_twice() -> None:
    registry = CollectorRegistry()
    Gauge("seawall_turns_in_flight", "Now.", registry=registry).set(3)
    Counter("seawall_turns_refused", "So far.", ["reason"], registry=registry).labels("full").inc(4)
    Gauge("seawall_in_flight", "In a file of 0.1.", registry=registry).set(7)
    Counter("seawall_refused", "As above.", ["reason"], registry=registry).labels("full").inc(9)
    lines = generate_latest(_WithOldNames(registry)).decode().splitlines()
    samples = [line for line in lines if not line.startswith("#") and "_created" not in line]
    assert sorted(samples) == [
        "seawall_in_flight 3.0",
        'seawall_refused_total{reason="full"} 4.0',
        "seawall_turns_in_flight 3.0",
        'seawall_turns_refused_total{reason="full"} 4.0',
    ]
