"""Short fuzzing of tokens, cursors and bodies; the long form is `make fuzz`."""

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import chat_body, cursor, jwt
from tests.properties import examples

TARGETS = (chat_body, cursor, jwt)


def _mutated(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Seeds with a stretch replaced, removed or repeated."""

    def mutate(seed: bytes, bounds: list[int], middle: bytes, twice: bool) -> bytes:
        start, end = sorted(bound % (len(seed) + 1) for bound in bounds)
        return seed[:start] + (seed[start:end] * 2 if twice else middle) + seed[end:]

    return st.builds(
        mutate,
        st.sampled_from(seeds),
        st.lists(st.integers(0, 10_000), min_size=2, max_size=2),
        st.binary(max_size=8) | st.sampled_from(seeds),
        st.booleans(),
    )


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__.rpartition(".")[2])
def test_mutations_and_noise(target: ModuleType) -> None:
    @examples(66, 1_000)
    @given(st.binary(max_size=300) | _mutated(target.SEEDS))
    def run(data: bytes) -> None:
        target.one_input(data)

    run()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__.rpartition(".")[2])
def test_seeds(target: ModuleType) -> None:
    for seed in target.SEEDS:
        target.one_input(seed)
