"""WordPiece tokeniser of BERT models, without a library that has thirty dependencies."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

__all__ = ["WordPiece"]

_REMEMBERED_WORDS = 8_192
_MAX_WORD = 100
_plain = re.compile(r"[a-z0-9]+|[^\sa-z0-9]")
_CONTROL = ("Cc", "Cf", "Co", "Cs")
# The blocks that BERT takes for Chinese: each character is a word of its own.
_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """The tokeniser of uncased BERT models: Devlin et al. 2019, github.com/google-research/bert.

    Names of special tokens in a text are text, so clients cannot inject them.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        """Number the tokens.

        Args:
            vocabulary: The lines of vocab.txt; a token's number is its line, from 0.

        Raises:
            KeyError: The vocabulary lacks a special token.
        """
        self._numbers = {token: number for number, token in enumerate(vocabulary)}
        self._start, self._end = self._numbers["[CLS]"], self._numbers["[SEP]"]
        self._unknown = (self._numbers["[UNK]"],)
        self._pieces = lru_cache(_REMEMBERED_WORDS)(self._take_apart)

    def __call__(self, text: str, limit: int) -> list[int]:
        """Token numbers with [CLS] and [SEP] around them, `limit` at most."""
        tokens = [self._start]
        for word in _plain.findall(text.lower()) if _is_plain(text) else _words(text):
            tokens += self._pieces(word)
            if len(tokens) >= limit:
                break
        del tokens[limit - 1 :]
        tokens.append(self._end)
        return tokens

    def knows(self, word: str) -> bool:
        """Whether the word is one token."""
        return word in self._numbers

    def _take_apart(self, word: str) -> tuple[int, ...]:
        """The longest known beginning, then the longest known continuation, and so on."""
        if len(word) > _MAX_WORD:
            return self._unknown
        found: list[int] = []
        start, mark = 0, ""
        while start < len(word):
            for end in range(len(word), start, -1):
                number = self._numbers.get(mark + word[start:end])
                if number is not None:
                    break
            else:
                return self._unknown
            found.append(number)
            start, mark = end, "##"
        return tuple(found)


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _words(text: str) -> list[str]:
    """Cleaned, in lower case, without accents, parted at spaces, punctuation and Chinese."""
    spaced = "".join(map(_spaced, text))
    bare = "".join(
        each for each in unicodedata.normalize("NFD", spaced) if unicodedata.category(each) != "Mn"
    )
    words: list[str] = []
    for word in bare.lower().split():
        start = 0
        for index, each in enumerate(word):
            if _is_punctuation(each):
                words += [word[start:index], each] if index > start else [each]
                start = index + 1
        if start < len(word):
            words.append(word[start:])
    return words


@lru_cache(4_096)
def _spaced(each: str) -> str:
    kind = unicodedata.category(each)
    if each in "\t\n\r" or kind[0] == "Z":
        return " "
    if each == "\ufffd" or kind in _CONTROL:
        return ""
    number = ord(each)
    return f" {each} " if any(low <= number <= high for low, high in _CHINESE) else each


def _is_punctuation(each: str) -> bool:
    if each.isascii():
        return not each.isalnum()
    return unicodedata.category(each)[0] == "P"
