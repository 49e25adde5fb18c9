"""Faster loops find what the earlier ones found, with the same seeds."""

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from seawall.plan import simulate
from tests.plan.recorded import FILE, SCENARIOS, figures

RECORDED = json.loads(FILE.read_text())


def _flat(figures: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


@pytest.mark.parametrize("name", SCENARIOS)
def test_figures_are_those_recorded(name: str) -> None:
    found = dict(_flat(figures(simulate(*SCENARIOS[name], seed=7))))
    for figure, expected in _flat(RECORDED[name]):
        if isinstance(expected, float) and math.isnan(expected):
            assert math.isnan(found[figure]), figure
        elif isinstance(expected, float):
            assert found[figure] == pytest.approx(expected, rel=1e-9, abs=1e-9), figure
        else:
            assert found[figure] == expected, figure
