"""Short fuzzing of store values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets.store_values import SEEDS, one_input
from tests.properties import examples

_TEXTS = (
    st.text(st.characters(exclude_categories=[]), max_size=300)
    | st.integers().map(str)
    | st.integers(-(1 << 70), 1 << 70).map(str)
    | st.text("#%\0\ud800é\U0001f600", max_size=600)
)


@pytest.mark.parametrize("data", SEEDS)
def test_seeds(data: bytes) -> None:
    one_input(data)


@examples(50, 1_000)
@given(st.integers(0, 13), _TEXTS)
def test_any_text_is_stored_or_rejected(job: int, text: str) -> None:
    one_input(bytes([job]) + text.encode("utf-8", "surrogatepass"))
