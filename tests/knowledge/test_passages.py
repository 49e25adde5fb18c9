"""Passages: bounded, complete, under their headings."""

import time

from hypothesis import given
from hypothesis import strategies as st

from seawall.knowledge.document import Document, Section
from seawall.knowledge.passages import split_document, split_text

words = st.text("abcdefgäß。. \n", min_size=0, max_size=3_000)
sizes = st.integers(20, 400)


@given(words, sizes, st.integers(0, 200))
def test_pieces_are_bounded_and_nothing_is_lost(text: str, size: int, overlap: int) -> None:
    overlap = min(overlap, size // 2)
    pieces = list(split_text(text, size=size, overlap=overlap))
    assert all(0 < len(each) <= size and each.strip() for each in pieces)
    position = 0
    squeezed = "".join(text.split())
    for piece in map("".join, map(str.split, pieces)):
        # Each continues what is before, or repeats at most the overlap of it.
        starts = range(max(0, position - overlap), position + 1)
        fits = [at for at in starts if squeezed.startswith(piece, at)]
        assert fits
        position = max(position, fits[-1] + len(piece))
    assert position == len(squeezed)


def test_blocks_stay_together_where_they_fit() -> None:
    text = "First block.\n\nSecond block.\n\nA third one that is longer."
    assert list(split_text(text, size=30, overlap=0)) == [
        "First block.\n\nSecond block.",
        "A third one that is longer.",
    ]


def test_long_blocks_are_cut_behind_sentences_and_overlap_begins_with_one() -> None:
    text = "One two three. Four five six. Seven eight nine. Ten eleven twelve."
    assert list(split_text(text, size=40, overlap=20)) == [
        "One two three. Four five six.",
        "Four five six. Seven eight nine.",
        "Seven eight nine. Ten eleven twelve.",
    ]


def test_a_word_without_end_is_cut() -> None:
    pieces = list(split_text("x" * 1_000, size=300, overlap=100))
    assert [len(each) for each in pieces] == [300, 300, 300, 100]


def test_no_passage_goes_beyond_its_section() -> None:
    sections = (Section(("A",), "one", "a"), Section(("A", "B"), "two " * 20, "b"))
    passages = split_document(Document("T", sections), size=50, overlap=10)
    assert [(each.section, each.anchor) for each in passages][:2] == [("A", "a"), ("A > B", "b")]
    assert len(passages) == 3


def test_a_long_block_takes_linear_time() -> None:
    text = "\U0001f600" + "ab " * 700_000
    before = time.process_time()
    assert sum(len(each) for each in split_text(text, size=200, overlap=100)) > len(text)
    assert time.process_time() - before < 1.5  # 0.2 s; 3.2 s when each piece copied the rest
