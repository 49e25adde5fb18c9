"""Simulated misspellings of messages, for calibration and evaluation."""

import random
import re
from collections.abc import Callable, Sequence

__all__ = ["KINDS", "misspelt"]

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_long_word = re.compile(r"[^\W\d_]{5,}")


def _changed(word: str, chance: random.Random) -> str:
    index = chance.randrange(len(word))
    other = chance.choice([each for each in _LETTERS if each != word[index].lower()])
    return word[:index] + other + word[index + 1 :]


def _dropped(word: str, chance: random.Random) -> str:
    index = chance.randrange(len(word))
    return word[:index] + word[index + 1 :]


def _doubled(word: str, chance: random.Random) -> str:
    index = chance.randrange(len(word))
    return word[:index] + word[index] + word[index:]


def _swapped(word: str, chance: random.Random) -> str:
    indices = [each for each in range(len(word) - 1) if word[each] != word[each + 1]]
    if not indices:
        return word
    index = chance.choice(indices)
    return word[:index] + word[index + 1] + word[index] + word[index + 2 :]


def _in_long_words(
    edit: Callable[[str, random.Random], str],
) -> Callable[[str, random.Random], str]:
    return lambda text, chance: _long_word.sub(lambda word: edit(word[0], chance), text)


def _without_spaces(text: str, chance: random.Random) -> str:
    return "".join("" if each == " " and chance.random() < 0.3 else each for each in text)


KINDS: dict[str, Callable[[str, random.Random], str]] = {
    "changed": _in_long_words(_changed),
    "dropped": _in_long_words(_dropped),
    "doubled": _in_long_words(_doubled),
    "swapped": _in_long_words(_swapped),
    "spaces": _without_spaces,
}
"""By name: a letter of each word of five letters and more is changed, left out, doubled, or swapped
with its neighbour; or three in ten spaces are left out."""


def misspelt(texts: Sequence[str], kind: str, *, seed: int = 0) -> list[str]:
    """A copy of each text with misspellings; deterministic for a seed.

    Args:
        texts: The texts.
        kind: A key of `KINDS`.
        seed: Of everything random.
    """
    chance = random.Random(f"{kind} {seed}")  # noqa: S311 - simulated mistakes, not a secret
    return [KINDS[kind](text, chance) for text in texts]
