"""Short fuzzing of the Lambda host's events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets.lambda_events import SEEDS, one_input
from tests.properties import examples


@pytest.mark.parametrize("seed", SEEDS, ids=range(len(SEEDS)))
def test_seeds(seed: bytes) -> None:
    one_input(seed)


@examples(100, 1_000)
@given(st.binary(min_size=3, max_size=9))
def test_mangled_samples(data: bytes) -> None:
    one_input(data)
