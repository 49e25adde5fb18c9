"""The autoscaler against Kubernetes' documentation and its controller's own test tables.

From kubernetes/pkg/controller/podautoscaler, v1.33: replica_calculator_test.go (levels in
thousandths of a core, here in cores, each pod requesting one), horizontal_test.go.
"""

import math
from typing import Any

import pytest

from seawall.plan.inputs.platforms import (
    DEFAULT_DOWN,
    DEFAULT_UP,
    HpaSettings,
    KedaSettings,
    Policy,
    Rules,
)
from seawall.plan.simulator.autoscalers import (
    Events,
    Hpa,
    Keda,
    PodMetrics,
    desired_replicas,
    limited,
    stabilised,
)


@pytest.mark.parametrize(
    ("current", "metric", "target", "expected"),
    # https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details
    [(1, 200.0, 100.0, 2), (4, 50.0, 100.0, 2), (3, 105.0, 100.0, 3), (3, 95.0, 100.0, 3)],
)
def test_the_cases_of_the_documentation(
    current: int, metric: float, target: float, expected: int
) -> None:
    seen = PodMetrics(usage=metric * current, measured=current)
    assert desired_replicas(current, seen, target, percent=False) == expected


@pytest.mark.parametrize(
    ("name", "current", "seen", "target", "expected"),
    [
        ("ScaleUp", 3, PodMetrics(1.5, 3), 30, 5),
        ("ScaleUpUnreadyLessScale", 3, PodMetrics(1.2, 2, unready=1), 30, 4),
        ("ScaleUpUnreadyNoScale", 3, PodMetrics(0.4, 1, unready=2), 30, 3),
        ("ScaleUpIgnoresFailedPods", 2, PodMetrics(1.2, 2), 30, 4),
        ("ScaleDown", 5, PodMetrics(1.4, 5), 50, 3),
        ("ScaleDownIncludeUnreadyPods", 5, PodMetrics(0.9, 3, unready=2), 50, 2),
        ("ScaleDownExcludeUnscheduledPods", 5, PodMetrics(0.1, 1, unready=4), 50, 1),
        ("Tolerance", 3, PodMetrics(3.06, 3), 100, 3),
        ("SuperfluousMetrics", 4, PodMetrics(23.5, 4), 100, 24),
        ("MissingMetrics", 4, PodMetrics(0.495, 2, missing=2), 100, 3),
        ("MissingMetricsNoChangeEq", 2, PodMetrics(1.0, 1, missing=1), 100, 2),
        ("MissingMetricsNoChangeGt", 2, PodMetrics(1.9, 1, missing=1), 100, 2),
        ("MissingMetricsNoChangeLt", 2, PodMetrics(0.6, 1, missing=1), 100, 2),
        ("MissingMetricsUnreadyChange", 3, PodMetrics(0.45, 1, unready=1, missing=1), 50, 3),
        ("MissingMetricsUnreadyScaleUp", 3, PodMetrics(2.0, 1, unready=1, missing=1), 50, 4),
        ("MissingMetricsUnreadyScaleDown", 4, PodMetrics(0.2, 2, unready=1, missing=1), 50, 3),
        ("DuringRollingUpdateWithMaxSurge", 2, PodMetrics(0.2, 2, missing=1), 50, 2),
        # Pods that have just started ("hot") count as unready; failed and deleted ones do not.
        ("ScaleUpHotCpuLessScale", 3, PodMetrics(1.2, 2, unready=1), 30, 4),
        ("ScaleHotCpuNoScale", 3, PodMetrics(0.4, 1, unready=2), 30, 3),
        ("ScaleUpIgnoresDeletionPods", 2, PodMetrics(1.2, 2), 30, 4),
        ("ScaleDownIgnoreHotCpuPods", 5, PodMetrics(0.9, 3, unready=2), 50, 2),
        ("ScaleDownIgnoresFailedPods", 5, PodMetrics(1.4, 5), 50, 3),
        ("ScaleDownIgnoresDeletionPods", 5, PodMetrics(1.4, 5), 50, 3),
        ("MissingMetricsHotCpuNoChange", 3, PodMetrics(0.45, 1, unready=1, missing=1), 50, 3),
        ("MissingMetricsHotCpuScaleUp", 3, PodMetrics(2.0, 1, unready=1, missing=1), 50, 4),
        ("ComputedToleranceAlgImplementation", 10, PodMetrics(5.0, 10), 56, 9),
        ("ComputedToleranceAlgImplementation, close", 10, PodMetrics(5.0, 10), 55, 10),
    ],
)
def test_replica_calculator_by_utilisation(
    name: str, current: int, seen: PodMetrics, target: float, expected: int
) -> None:
    assert desired_replicas(current, seen, target, percent=True) == expected, name


@pytest.mark.parametrize(
    ("name", "current", "levels", "target", "expected"),
    [
        ("ScaleUpCM", 3, (20, 10, 30), 15, 4),
        ("ScaleUpCMUnreadyHotCpuNoLessScale", 3, (50, 10, 30), 15, 6),
        ("ScaleUpCMUnreadyHotCpuScaleWouldScaleDown", 3, (50, 15, 30), 15, 7),
        ("ScaleDownCM", 5, (12,) * 5, 20, 3),
        ("ToleranceCM", 3, (20, 21, 21), 20, 3),
    ],
)
def test_replica_calculator_by_another_metric(
    name: str, current: int, levels: tuple[float, ...], target: float, expected: int
) -> None:
    seen = PodMetrics(sum(levels), len(levels))
    assert desired_replicas(current, seen, target, percent=False) == expected, name


@pytest.mark.parametrize(
    ("name", "pods", "level", "target", "expected"),
    [
        ("ScaleUpCMObject", (3, 3), 20_000, 15_000, 4),
        ("ScaleUpCMObjectIgnoresUnreadyPods", (3, 1), 50_000, 10_000, 5),
        ("ScaleUpCMExternal", (1, 1), 8_600, 4_400, 2),
        ("ScaleUpCMExternalIgnoresUnreadyPods", (3, 1), 8_600, 4_400, 2),
        ("ScaleUpCMExternalNoLabels", (1, 1), 8_600, 4_400, 2),
        ("ScaleDownCMObject", (5, 5), 12_000, 20_000, 3),
        ("ScaleDownCMExternal", (5, 5), 8_600, 14_334, 3),
        ("ToleranceCMObject", (3, 3), 20_666, 20_000, 3),
        ("ToleranceCMExternal", (3, 3), 8_600, 8_888, 3),
    ],
)
def test_replica_calculator_by_one_value_for_all(
    name: str, pods: tuple[int, int], level: float, target: float, expected: int
) -> None:
    """A target of kind Value: the ratio of the value to it, times the ready ones of the pods."""
    current, ready = pods
    seen = PodMetrics(usage=level * ready, measured=ready)
    assert desired_replicas(current, seen, target, percent=False) == expected, name


@pytest.mark.parametrize(
    ("name", "current", "level", "target", "expected"),
    [
        ("ScaleUpCMPerPodObject", 3, 20_000, 5_000, 4),
        ("ScaleUpPerPodCMExternal", 3, 8_600, 2_150, 4),
        ("ScaleDownPerPodCMObject", 5, 6_000, 2_000, 3),
        ("ScaleDownPerPodCMExternal", 5, 8_600, 2_867, 3),
        ("TolerancePerPodCMObject", 4, 20_166, 5_000, 4),
        ("TolerancePerPodCMExternal", 3, 8_600, 2_900, 3),
    ],
)
def test_replica_calculator_by_a_value_for_each_pod(
    name: str, current: int, level: float, target: float, expected: int
) -> None:
    """A target of kind AverageValue, as KEDA's."""
    keda = Keda(KedaSettings(minimum=1, maximum=50, target=target))
    assert keda.step(0.0, current, level) == expected, name


@pytest.mark.parametrize(
    ("name", "bounds", "levels", "target", "expected"),
    [
        ("ScaleUp", (2, 6), (0.3, 0.5, 0.7), 30, 5),
        ("ScaleDown", (2, 6), (0.1, 0.3, 0.5, 0.25, 0.25), 50, 3),
        ("MinReplicas", (2, 5), (0.01, 0.095, 0.01), 90, 2),
        ("MaxReplicas", (3, 5), (8.0, 9.5, 1.0), 90, 5),
        ("Tolerance", (1, 5), (1.01, 1.03, 1.02), 100, 3),
    ],
)
def test_a_whole_evaluation(
    name: str,
    bounds: tuple[int, int],
    levels: tuple[float, ...],
    target: float,
    expected: int,
) -> None:
    """From horizontal_test.go: calculation, stabilisation, policies and bounds together."""
    hpa = Hpa(HpaSettings(minimum=bounds[0], maximum=bounds[1], target=target))
    assert hpa.step(0.0, len(levels), PodMetrics(sum(levels), len(levels))) == expected, name


def rules(pods: int, pods_period: float, percent: int, period: float, window: float) -> Rules:
    policies = []
    if pods:
        policies.append(Policy("pods", pods, pods_period))
    if percent:
        policies.append(Policy("percent", percent, period))
    return Rules(tuple(policies), window)


def spread(changes: tuple[int, ...], period: float) -> list[tuple[float, int]]:
    """As generateEventsUniformDistribution: in the middle of equal parts of the period, now 0."""
    part = period / len(changes)
    return [(-float(int(period - part * (at + 1) + part / 2)), c) for at, c in enumerate(changes)]


SCALING = [
    # current, desired, minimum, maximum, up rules, down rules, ups, downs, expected
    (5, 7, 3, 8, None, None, (), (), 7),
    (3, 1, 2, 8, None, None, (), (), 2),
    (1, 0, 0, 10, None, None, (), (), 0),
    (100, 1000, 100, 150, None, None, (), (), 150),
    (3, 1000, 1, 2000, (0, 0, 1, 60, 0), None, (), (), 4),
    (1000, 3, 3, 2000, None, (20, 60, 0, 0, 0), (), (), 980),
    (10, 50, 1, 1000, None, None, (), (), 20),
    (10, 500, 1, 1000, (100, 60, 100, 60, 0), None, (), (), 110),
    (10, 500, 1, 1000, (2, 60, 100, 60, 0), None, (), (), 20),
    (10, 50, 1, 1000, (100, 60, 0, 0, 0), None, (), (), 50),
    (10, 50, 1, 1000, (10000, 60, 0, 0, 0), None, (), (), 50),
    (10, 50, 1, 1000, (30, 60, 0, 0, 0), None, (), (), 40),
    (10, 50, 1, 1000, (0, 0, 200, 60, 0), None, (), (), 30),
    (100, 2, 1, 1000, None, (20, 60, 1, 60, 300), (), (), 80),
    (100, 2, 1, 1000, None, (2, 60, 1, 60, 300), (), (), 98),
    (10, 0, 1, 1000, None, (100, 60, 0, 0, 300), (), (), 1),
    (10, 2, 5, 1000, None, (0, 0, 100, 60, 300), (), (), 5),
    (10, 2, 1, 1000, None, (5, 60, 0, 0, 300), (), (), 5),
    (10, 5, 1, 1000, None, (0, 0, 50, 60, 300), (), (), 5),
    (100, 500, 1, 200, (300, 60, 0, 0, 0), None, (1, 5, 9), (), 200),
    (100, 500, 1, 200, (0, 0, 10000, 60, 0), None, (1, 5, 9), (), 200),
    (100, 500, 1, 1000, (5, 120, 0, 0, 0), None, (1, 5, 9), (), 100),
    (100, 500, 1, 1000, (150, 120, 0, 0, 0), None, (1, 5, 9), (), 235),
    (100, 500, 1, 1000, (0, 0, 200, 120, 0), None, (1, 5, 9), (), 255),
    (6, 24, 1, 1000, (0, 0, 300, 300, 0), None, (4,), (2,), 16),
    (10, 5, 1, 1000, None, None, (), (1, 5, 9), 5),
    (100, 0, 1, 1000, None, (115, 120, 0, 0, 300), (), (1, 5, 9), 1),
    (100, 0, 5, 1000, None, (130, 120, 0, 0, 300), (), (1, 5, 9), 5),
    (100, 2, 5, 1000, None, (0, 0, 100, 120, 300), (), (1, 5, 9), 5),
    (100, 2, 1, 1000, None, (5, 120, 0, 0, 300), (), (1, 5, 9), 100),
    (100, 0, 1, 1000, None, (0, 0, 50, 120, 300), (), (2, 4, 6), 56),
    (10, 1, 1, 1000, None, (0, 0, 50, 180, 0), (2,), (4,), 6),
]


@pytest.mark.parametrize("case", SCALING)
def test_scaling_with_rules(case: tuple[Any, ...]) -> None:
    current, desired, least, most, up, down, ups, downs, expected = case
    both = (rules(*up) if up else DEFAULT_UP, rules(*down) if down else DEFAULT_DOWN)
    events = (spread(ups, 120) if ups else [], spread(downs, 120) if downs else [])
    assert limited(current, desired, (least, most), both, events, now=0.0) == expected


def test_the_least_of_the_policies() -> None:
    """TestCalculateScaleUpLimitWithScalingRules, TestCalculateScaleDownLimitWithBehaviors."""
    bounds: tuple[int, int] = (0, 1_000)
    nothing: tuple[Events, Events] = ([], [])
    both = Rules((Policy("pods", 2, 60), Policy("percent", 50, 60)), 300, "min")
    assert limited(1, 1_000, bounds, (both, both), nothing, now=0.0) == 2
    assert limited(5, 0, bounds, (both, both), nothing, now=0.0) == 3
    off = Rules(both.policies, 300, "disabled")
    assert limited(5, 9, bounds, (off, off), nothing, now=0.0) == 5
    assert limited(5, 1, bounds, (off, off), nothing, now=0.0) == 5


@pytest.mark.parametrize(
    ("name", "earlier", "desired", "expected"),
    [
        ("empty log", [], 5, 5),
        ("stabilize", [(-120, 4), (-60, 5)], 3, 5),
        ("no stabilize", [(-120, 1), (-60, 2)], 3, 3),
        ("old recommendations", [(-600, 10), (-540, 9)], 3, 3),
        ("stabilize, old", [(-600, 10), (-60, 4), (-120, 5), (-540, 9)], 3, 5),
        ("TestStabilizeDownscale", [(-600, 10), (-60, 4)], 2, 4),
    ],
)
def test_stabilisation(
    name: str, earlier: list[tuple[float, int]], desired: int, expected: int
) -> None:
    assert stabilised(10, desired, earlier, 0.0, (0.0, 300.0)) == expected, name


def test_upscale_cap() -> None:
    """TestUpscaleCap and ...GreaterThanMaxReplicas: 200 % of the request at a target of 10 %."""
    fast = Rules((Policy("percent", 700, 60),))
    seen = PodMetrics(usage=6.0, measured=3)
    assert Hpa(HpaSettings(minimum=1, target=10, up=fast)).step(0.0, 3, seen) == 24
    assert Hpa(HpaSettings(minimum=1, maximum=20, target=10, up=fast)).step(0.0, 3, seen) == 20


def test_a_day_of_default_behaviour() -> None:
    """Doubling each 15 s, but four from one; down only after five minutes of less."""
    hpa = Hpa(HpaSettings(minimum=1, maximum=64, target=50))
    pods, path = 1, []
    for sync in range(6):
        pods = hpa.step(sync * 15.0, pods, PodMetrics(usage=float(pods), measured=pods))
        path.append(pods)
    assert path == [2, 4, 8, 16, 32, 64]
    down = [
        hpa.step(90.0 + sync * 15.0, 64, PodMetrics(usage=3.2, measured=64)) for sync in range(25)
    ]
    first = next(at for at, each in enumerate(down) if each < 64)
    assert 90.0 + first * 15.0 == pytest.approx(75.0 + 300.0, abs=15.0)
    assert down[first] == math.ceil(3.2 / 0.5)


def test_keda_starts_the_minimum_and_ends_what_was_never_active() -> None:
    """RequestScale of KEDA's executor."""
    none = Keda(KedaSettings(minimum=0, cooldown=300.0))
    assert none.poll(30.0, 3, 0.0) == 0  # never active: at the first poll
    assert none.poll(60.0, 0, 5.0) == 1
    assert none.poll(90.0, 4, 5.0) == 4
    assert none.poll(389.0, 4, 0.0) == 4
    assert none.poll(390.0, 4, 0.0) == 0
    three = Keda(KedaSettings(minimum=3))
    assert three.poll(30.0, 0, 5.0) == 3
    assert three.poll(30.0, 0, 0.0) == 3
    assert three.poll(900.0, 5, 0.0) == 5


def test_a_number_out_of_bounds_is_corrected_at_once() -> None:
    """TestScaleUpRCImmediately, TestScaleDownRCImmediately."""
    seen = PodMetrics(usage=0.0, measured=1)
    assert Hpa(HpaSettings(minimum=2, maximum=6)).step(0.0, 1, seen) == 2
    assert Hpa(HpaSettings(minimum=2, maximum=5)).step(0.0, 6, seen) == 5
    assert Hpa(HpaSettings(minimum=2, maximum=5)).step(0.0, 0, seen) == 0
