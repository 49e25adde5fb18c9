import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.intents.classifier import train
from seawall.intents.features import Speller
from seawall.intents.misspelling import KINDS, misspelt

WORDS = ("cancel", "delivery", "tracking", "refund", "address", "exchange", "order", "my", "where")
SPELLER = Speller(dict.fromkeys(WORDS, 1.0))
LETTERS = st.sampled_from("abcdefghijklmnopqrstuvwxyzé")


@st.composite
def one_edit(draw: st.DrawFn) -> tuple[str, str]:
    """A known word, and the same with one letter wrong."""
    word = draw(st.sampled_from([each for each in WORDS if len(each) >= 5]))
    index = draw(st.integers(0, len(word) - 1))
    letter, rest = draw(LETTERS), word[index + 1 :]
    edited = draw(
        st.sampled_from(
            (
                word[:index] + letter + rest,
                word[:index] + rest,
                word[:index] + letter + word[index:],
                word[:index] + rest[:1] + word[index] + rest[1:],
            )
        )
    )
    return word, edited


@given(one_edit())
def test_one_wrong_letter_is_corrected(pair: tuple[str, str]) -> None:
    word, edited = pair
    assert SPELLER([edited]) in ([word], (word,))


def test_missing_spaces_are_inserted() -> None:
    assert list(SPELLER(["wheremyorder", "is"])) == ["where", "my", "order", "is"]
    assert SPELLER.correct_text("Wheremyorder?", lambda _: False) == "where my order?"


@given(st.lists(st.text(max_size=60), max_size=50))
def test_known_and_unrecognised_words_are_kept(words: list[str]) -> None:
    assert list(SPELLER([*words, *WORDS]))[-len(WORDS) :] == list(WORDS)
    assert SPELLER.correct_text("zzzzzzzz 12345 日本語日本", lambda _: False) == (
        "zzzzzzzz 12345 日本語日本"
    )


def test_words_known_to_the_caller_are_kept() -> None:
    assert SPELLER.correct_text("ordel", lambda word: word == "ordel") == "ordel"
    assert SPELLER.correct_text("ordel", lambda _: False) == "order"


def test_short_words_are_not_corrected() -> None:
    speller = Speller({"book": 1.0, "card": 1.0, "order": 1.0})
    assert list(speller(["cook", "cord", "orde"])) == ["cook", "cord", "order"]


def test_the_most_common_of_several_corrections_is_chosen() -> None:
    assert list(Speller({"boots": 2.0, "books": 1.0})(["boohs"])) == ["books"]


def test_a_long_message_is_bounded() -> None:
    words = [f"cance{chr(97 + each % 26)}{chr(97 + each // 26)}" for each in range(400)]
    began = time.perf_counter()
    corrected = list(SPELLER(words))
    assert time.perf_counter() - began < 0.5
    assert corrected[32:] == words[32:]
    assert corrected.count("cancel") >= 1
    assert list(SPELLER(["x" * 2_000])) == ["x" * 2_000]


@pytest.mark.parametrize("kind", KINDS)
def test_misspelt_copies_are_understood(kind: str) -> None:
    texts = ["where is my delivery", "please refund the purchase", "change my address please"]
    classifier = train(texts * 3, ["status", "refund", "profile"] * 3)
    copies = misspelt(texts, kind, seed=1)
    assert copies != texts
    assert copies == misspelt(texts, kind, seed=1)
    assert [classifier.best(copy)[0] for copy in copies] == ["status", "refund", "profile"]
