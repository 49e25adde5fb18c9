"""Short fuzzing of the Lambda host's events."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets.lambda_events import SEEDS, one_input


@pytest.mark.parametrize("seed", SEEDS, ids=range(len(SEEDS)))
def test_seeds(seed: bytes) -> None:
    one_input(seed)


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=3, max_size=9))
def test_mangled_samples(data: bytes) -> None:
    one_input(data)
