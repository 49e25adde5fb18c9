"""The lab's predictions from a calibration, against known results."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from seawall.errors import ConfigError
from seawall.lab.calibration import (
    FORMAT,
    Burst,
    Calibration,
    LabFigures,
    load_calibration,
    save_calibration,
)
from seawall.lab.compare import cpu_time_ratio, largest_crowd
from seawall.lab.fleet.spec import parse_fleet
from seawall.lab.machine import Machine, this_machine
from seawall.lab.predict import fit_line, predict, stretches, unpredicted_options
from seawall.lab.sim_model.reply import SimTimes
from seawall.lab.surge.scenario import Crowd, Instant, Open, Poisson
from seawall.plan.inputs.calibration import read_calibration

TIMES = SimTimes(first_token=(0.5, 0.5), duration=(3.0, 3.0))
CALIBRATION = Calibration(
    format=FORMAT,
    machine="a machine",
    date="2026-11-25",
    start_seconds=[0.3, 0.3, 0.3],
    cpu_ms=4.0,
    memory_mb=30.0,
    memory_kb_in_flight=35.0,
    connections=2,
    lab=LabFigures(
        processors=2,
        pods=2,
        start_parts={"interpreter": 0.05},
        start_cpu_seconds=0.3,
        connect_ms=0.1,
        warm_seconds=0.01,
        pod_bursts=[Burst(100, 0.1, 0.2, 0.2), Burst(200, 0.1, 0.3, 0.3)],
        cold_bursts=[Burst(1, 0.3, 0.3, 0.3), Burst(11, 0.5, 1.0, 1.8)],
        cpu_ms_by_crowd={100: 4.0},
        around_cpu_ms=0.3,
        environment_bytes=30 << 20,
        cold_cpu_ms={1: 300.0, 100: 400.0},
        others=0.0,
    ),
)


def at_once(turns: int) -> Open:
    return Open([Crowd(shapes=[Instant(turns)])])


def test_a_line_fits_two_points() -> None:
    assert fit_line([(100, 0.2), (200, 0.3)]) == pytest.approx((0.1, 0.001))
    assert fit_line([(100, 0.3), (200, 0.2)])[1] == 0.0, "more turns never take less"


def test_turns_at_once_share_the_processor_of_a_pod() -> None:
    """Processor sharing: n jobs at once, each with work c, all end at n*c."""
    predicted = predict(CALIBRATION, parse_fleet(["pods=2"], TIMES), at_once(400))
    expected = 500 + 100 + 400 * 1.0  # the model's, the base, a millisecond each
    assert predicted.first_text.p50 == pytest.approx(expected, rel=0.03)
    assert predicted.first_text.p99 == pytest.approx(expected, rel=0.03)
    assert predicted.cold_starts == 0
    assert predicted.served == 400


def test_jobs_share_the_processors_evenly() -> None:
    assert stretches(np.array([0.0, 10.0]), 1.0, 2) == pytest.approx([1.0, 1.0])
    assert stretches(np.zeros(2), 1.0, 2) == pytest.approx([1.0, 1.0])
    assert stretches(np.zeros(8), 1.0, 2) == pytest.approx([4.0] * 8)
    # One processor: half of the first is done alone, its rest takes twice as long.
    assert stretches(np.array([0.0, 0.5]), 1.0, 1) == pytest.approx([1.5, 1.5])


@given(
    st.lists(st.floats(0.0, 2.0), min_size=1, max_size=30),
    st.floats(0.01, 5.0),
    st.integers(1, 4),
)
def test_no_processor_idles_while_there_is_work(
    gaps: list[float], seconds: float, processors: int
) -> None:
    due = np.cumsum(gaps)
    found = np.array(stretches(due, seconds, processors))
    assert (found > 1.0 - 1e-6).all()
    if processors == 1:  # the last job ends when a FIFO queue would be empty
        free = 0.0
        for moment in due:
            free = max(free, float(moment)) + seconds
        assert (due + found * seconds).max() == pytest.approx(free, rel=1e-6)


def test_starts_at_once_are_stretched_by_their_share_of_the_processors() -> None:
    """Bursts of 1, 4 and 12 on two processors, each 0.1 s and 0.2 s of work; then 100 at once."""
    bursts = [Burst(turns, *[0.1 + 0.2 * max(1.0, turns / 2)] * 3) for turns in (1, 4, 12)]
    calibration = structs.replace(
        CALIBRATION, lab=structs.replace(CALIBRATION.lab, cold_bursts=bursts)
    )
    predicted = predict(calibration, parse_fleet(["lambda"], TIMES), at_once(100))
    assert predicted.first_text.p50 == pytest.approx(500 + 100 + 200 * 50, rel=0.01)
    assert predicted.first_text.p99 == pytest.approx(500 + 100 + 200 * 50, rel=0.01)


def test_every_turn_of_a_crowd_at_once_starts_an_environment() -> None:
    predicted = predict(CALIBRATION, parse_fleet(["lambda"], TIMES), at_once(21))
    assert predicted.cold_starts == 21
    # The lines through the bursts: each start has 2/21 processors; in the burst of 11 it has 2/11.
    first, middle, last = (500 + 300 + more * 9.5 / 4.5 for more in (200, 700, 1_500))
    assert predicted.first_text.p50 == pytest.approx(middle, rel=0.2)
    assert first * 0.97 <= (predicted.first_text.p50 or 0.0) <= (predicted.first_text.max or 0.0)
    assert (predicted.first_text.max or 0.0) <= last * 1.03


def test_environments_are_reused() -> None:
    load = Open([Crowd(shapes=[Poisson(2.0, 60.0)])])
    predicted = predict(CALIBRATION, parse_fleet(["lambda"], TIMES), load)
    assert 6 <= predicted.cold_starts <= 25  # about two a second times three seconds each


def test_provisioned_environments_serve_the_first_turns() -> None:
    spec = parse_fleet(["lambda", "provisioned=15"], TIMES)
    assert predict(CALIBRATION, spec, at_once(21)).cold_starts == 6


@pytest.mark.parametrize(
    ("words", "unknown"),
    [
        (["pods=2"], []),
        (["lambda", "provisioned=15"], []),
        (["pods=2", "cpu=0.5"], ["cpu"]),
        (["lambda", "cpu=1", "in-flight=8"], ["cpu", "in-flight"]),
        (["lambda", "snapstart"], ["snapstart"]),
    ],
)
def test_options_that_are_not_modelled(words: list[str], unknown: list[str]) -> None:
    assert unpredicted_options(parse_fleet(words)) == unknown


def test_processor_time_is_compared_with_the_calibration() -> None:
    functions, pods = parse_fleet(["lambda"], TIMES), parse_fleet(["pods=2"], TIMES)
    assert cpu_time_ratio(CALIBRATION, functions, at_once(100), 500.0) == 1.25
    assert cpu_time_ratio(CALIBRATION, functions, at_once(10), (300 * 400) ** 0.5) == 1.0
    assert cpu_time_ratio(CALIBRATION, pods, at_once(7), 2.0) == 0.5
    steady = Open([Crowd(shapes=[Poisson(2.0, 60.0)])])
    assert cpu_time_ratio(CALIBRATION, functions, steady, 500.0) is None


def test_the_largest_crowd_is_limited_by_the_scarcest_resource() -> None:
    machine = Machine(name="m", processors=2, memory_bytes=1 << 30)
    bound = largest_crowd(CALIBRATION, machine, files=20_000)
    assert bound.turns == int(0.6 * (1 << 30) / (30 << 20)) == 20
    assert "limited by memory" in bound.why
    large = structs.replace(machine, memory_bytes=1 << 40)
    assert largest_crowd(CALIBRATION, large, files=20_000).turns == 100
    assert largest_crowd(CALIBRATION, large, files=400).turns == 50
    assert largest_crowd(CALIBRATION, large, files=20_000, most=10).turns == 10


def test_this_machine_has_processors_and_memory() -> None:
    machine = this_machine()
    assert machine.processors >= 1
    assert machine.memory_bytes > 1 << 20
    assert "Python" in machine.name


def test_a_calibration_file_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    save_calibration(CALIBRATION, path)
    assert load_calibration(path) == CALIBRATION
    path.write_text('{"format": "other"}')
    with pytest.raises(ConfigError, match=r"calibration\.json: "):
        load_calibration(path)


def test_the_planner_reads_it_too(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    save_calibration(CALIBRATION, path)
    measured = read_calibration(path)
    assert measured.cpu_ms == 4.0
    assert measured.connections == 2
