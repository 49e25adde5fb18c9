"""SimFaaS's published example and its experiments on AWS Lambda.

The example stands beside the figures that simfaas 0.2.2 printed.

Recorded 2026-11-25 with `bench/plan/run.py`'s environment: numpy.random.seed(1..5), then
ServerlessSimulator(arrival_rate=0.9, warm_service_rate=1/1.991, cold_service_rate=1/2.244,
expiration_threshold=600, max_time=1e6).generate_trace(); print_trace_results().
"""

from collections.abc import Callable
from statistics import fmean

import pytest

from seawall.plan import Result, exponential, simulate
from seawall.plan.simulator.replications import interval
from tests.plan.models import measured, unlimited, work
from tests.properties import number_of_examples

COLD = (1249 / 899228, 1229 / 898902, 1174 / 897979, 1237 / 900853, 1193 / 899258)
SERVERS = (7.7034, 7.7040, 7.7006, 7.6988, 7.6723)
RUNNING = (1.7881, 1.7901, 1.7911, 1.7953, 1.7913)
IDLE = (5.9152, 5.9139, 5.9095, 5.9035, 5.8810)


# The last column: the example in its README and in Mahmoudi & Khazaei 2021, table 1.
EXAMPLE: tuple[tuple[tuple[float, ...], Callable[[Result], float], float], ...] = (
    (COLD, lambda r: r.cold_share, 0.0014),
    (SERVERS, lambda r: r.mean_capacity, 7.6612),
    (RUNNING, lambda r: r.mean_busy, 1.7879),
    (IDLE, lambda r: r.mean_capacity - r.mean_busy, 5.8733),
)


SECONDS = number_of_examples(400_000, 1_000_000)  # of a run


def test_the_published_example() -> None:
    workload = work(0.9, exponential(1.991), SECONDS, cold=exponential(2.244))
    platform = unlimited(idle_seconds=600.0, reuse="newest")
    for theirs, ours, published in EXAMPLE:
        found, recorded = measured(workload, platform, ours, 8), interval(theirs)
        apart = abs(found.mean - recorded.mean)
        assert apart <= found.half + recorded.half, (found, recorded)
        assert found.mean == pytest.approx(published, rel=0.05)


# Measured on AWS Lambda in 2020: experiment, requests a second, seconds of a warm and of a cold
# request, mean number of instances, of idle ones, probability of a cold start and its standard
# error. From the artifacts of Mahmoudi & Khazaei, «SimFaaS: A Performance Simulator for Serverless
# Computing Platforms» (CLOSER 2021, arXiv 2102.08904), section 5:
# github.com/pacslab/simfaas, examples/exp.csv.
AWS = (
    (13, 0.0018631, 1.9550, 2.5634, 0.6742, 0.6726, 0.343, 0.032),
    (14, 0.0024577, 1.9542, 2.4628, 0.8135, 0.8095, 0.2108, 0.037),
    (15, 0.0028816, 1.9524, 2.5361, 0.7795, 0.7731, 0.1454, 0.024),
    (16, 0.0034535, 1.9598, 2.4301, 0.9076, 0.9028, 0.1101, 0.023),
    (17, 0.004248, 1.9583, 2.3978, 0.9459, 0.9356, 0.07948, 0.012),
    (19, 0.0057248, 1.9517, 2.3586, 1.032, 1.0191, 0.03828, 0.0062),
    (18, 0.0078509, 1.9696, 2.4220, 1.129, 1.1068, 0.03382, 0.0052),
    (12, 0.016384, 1.9594, 2.3409, 1.27, 1.2444, 0.01955, 0.0021),
    (10, 0.05012, 1.9671, 2.1923, 2.114, 2.0191, 0.008542, 0.00094),
    (11, 0.099871, 1.9726, 2.3101, 2.764, 2.5616, 0.005949, 0.00068),
    (0, 0.10038, 1.9759, 2.2441, 2.889, 2.6871, 0.005658, 0.00042),
    (5, 0.19808, 1.9861, 2.3020, 3.719, 3.3122, 0.003724, 0.00028),
    (1, 0.30179, 1.9917, 2.2708, 4.422, 3.8014, 0.002939, 0.0002),
    (6, 0.39749, 1.9978, 2.1805, 5.045, 4.2565, 0.002085, 0.00014),
    (2, 0.49967, 2.0067, 2.1524, 5.694, 4.7180, 0.001913, 9.7e-05),
    (7, 0.59561, 2.0024, 2.2087, 6.419, 5.2836, 0.001756, 6.9e-05),
    (3, 0.69727, 2.0127, 2.1835, 6.928, 5.5258, 0.001751, 0.00011),
    (8, 0.79794, 2.0155, 2.1828, 7.564, 5.9929, 0.00156, 6.2e-05),
    (4, 0.90246, 2.0160, 2.1634, 7.87, 6.0849, 0.001513, 6.6e-05),
    (9, 1.0005, 2.0217, 2.1725, 8.397, 6.4067, 0.001307, 8.1e-05),
)  # fmt: skip
# What simfaas found there for the first of them, one run of 1e6 s each, with the mean times of
# the eight: examples/04-Experiment-Comparison.ipynb.
THEIRS = {
    0: 0.007297, 5: 0.004051, 1: 0.002807, 6: 0.002325, 2: 0.001967, 7: 0.001776, 3: 0.001620,
    4: 0.001291,
}  # fmt: skip


def test_the_measurements_on_aws_lambda() -> None:
    """Their section 5: a simulation with only arrival rate and mean times predicts what AWS did.

    Ours is as near as AWS's own spread allows: every probability of a cold start within four of
    its standard errors, every mean number of instances within a tenth.
    """
    off: dict[str, list[float]] = {"instances": [], "idle": [], "cold": []}
    for number, rate, warm, cold, instances, idle, share, error in AWS:
        workload = work(rate, exponential(warm), max(SECONDS, 2e4 / rate), cold=exponential(cold))
        platform = unlimited(idle_seconds=600.0, reuse="newest")
        runs = [simulate(workload, platform, seed=seed) for seed in (1, 2, 3)]
        found = interval([run.cold_share for run in runs])
        assert abs(found.mean - share) <= 4.0 * error + found.half, (number, found, share)
        capacity = fmean(run.mean_capacity for run in runs)
        empty = capacity - fmean(run.mean_busy for run in runs)
        assert capacity == pytest.approx(instances, rel=0.1), number
        off["instances"].append(abs(capacity / instances - 1.0))
        off["idle"].append(abs(empty / idle - 1.0))
        off["cold"].append(abs(found.mean / share - 1.0))
    assert fmean(off["instances"]) < 0.04, off
    assert fmean(off["idle"]) < 0.05, off
    assert fmean(off["cold"]) < 0.15, off


def test_the_predictions_of_simfaas() -> None:
    rows = {row[0]: row for row in AWS if row[0] in THEIRS}
    warm = exponential(fmean(row[2] for row in rows.values()))
    cold = exponential(fmean(row[3] for row in rows.values()))
    ratios = []
    for number, share in THEIRS.items():
        workload = work(rows[number][1], warm, SECONDS, cold=cold)
        found = measured(
            workload, unlimited(idle_seconds=600.0, reuse="newest"), lambda r: r.cold_share, 3
        )
        # Theirs is one run: some 700 to 1,200 cold starts, which come in clusters.
        assert found.mean == pytest.approx(share, rel=0.15), number
        ratios.append(found.mean / share)
    assert fmean(ratios) == pytest.approx(1.0, abs=0.03)
