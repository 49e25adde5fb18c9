"""Every fuzz target passes for its seeds, which include earlier findings."""

import importlib

import pytest

from tests.fuzz.run import names


@pytest.mark.parametrize("name", names())
def test_no_seed_violates_an_invariant(name: str) -> None:
    target = importlib.import_module(f"tests.fuzz.targets.{name}")
    assert target.SEEDS
    for seed in target.SEEDS:
        target.one_input(seed)
