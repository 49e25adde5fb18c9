"""Short fuzzing of the streams of model servers: seeds and their mutations."""

import importlib
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties import examples

TARGETS = [
    importlib.import_module(f"tests.fuzz.targets.{name}")
    for name in ("sse", "stream_openai", "stream_responses", "stream_anthropic", "stream_bedrock")
]
TOKENS = [b"null", b'"', b"{", b"}", b"[", b"]", b"\n\n", b"data: ", b"NaN", b"-1", b"1e999"]
TOKENS += [b"\\ud83d", b"\xff", b"\r", b"\0", b'{"a":' * 50, b"[" * 2_000, b"[DONE]", b'"x":1,']


@st.composite
def mutations(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with parts removed, repeated, or replaced by tokens that break parsers."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 12))
        piece = draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=8)))
        doubled = bytes(data[at : at + 40])
        data[at : at + length] = draw(st.sampled_from([piece, b"", doubled]))
    return bytes(data)


@pytest.mark.hypothesis
@pytest.mark.parametrize("target", TARGETS, ids=lambda each: each.__name__.rpartition(".")[2])
def test_streams_of_model_servers(target: ModuleType) -> None:
    for seed in target.SEEDS:
        target.one_input(seed)

    @examples(100, 3_000)
    @given(mutations(target.SEEDS))
    def mutated(data: bytes) -> None:
        target.one_input(data)

    mutated()
