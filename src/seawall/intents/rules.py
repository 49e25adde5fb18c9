"""Rules: regular expressions that decide an intent, and the negations that void a match."""

import re
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from itertools import islice

from seawall.errors import ConfigError
from seawall.intents import IntentDefinition
from seawall.intents.features import MAX_CHARACTERS

__all__ = ["Negations", "Rules", "is_negated", "is_quoted", "negates"]

# What `re.IGNORECASE` takes for i and s, and `str.lower` does not.
_FOLDS = {ord("\u0130"): "i", ord("\u0131"): "i", ord("\u017f"): "s"}
_CUE = re.compile(
    r"""\b(?:
      not | never | cannot | without | neither | nor | nobody | nothing | hardly
    | \w+n['\u2018\u2019\u02bc\u00b4`]t
    | (?:do|does|did|is|was|were|are|has|have|had|would|should|could|must|need)nt | cant | wont
    | no \s+ (?!(?:i|i['\u2019]m|please|thanks|thank|just|we|you|my|it|can|could|sorry)\b) (?=\w)
    | stop(?:ped|ping|s)? | avoid | refrain | refused? | declined? | forget | prevent
    | instead \s+ of | rather \s+ than | other \s+ than | hold \s+ off | far \s+ from
    )""",
    re.VERBOSE,
)
"""To be searched in folded text: a pattern that ignores case takes four times as long."""
_END_OF_SCOPE = re.compile(r"[.!?;](?=\s|$)|\n|\b(?:but|however)\b", re.IGNORECASE)
_QUOTED = (
    r'"[^"]*"|[\u201c\u201e][^\u201c\u201d\u201e]*[\u201c\u201d]|\u00ab[^\u00ab\u00bb]*\u00bb'
    r"|(?<!\w)'[^']*'(?!\w)|(?<!\w)\u2018[^\u2018\u2019]*\u2019(?!\w)"
)
_QUOTES = "\"'\u2018\u201c\u201e\u00ab"
_WORD = re.compile(r"\w+")
_LIGHT_WORD = (
    r"an?|and|any(?:thing)?|are|ask(?:ed|ing)?|at|be|been|being|do|ever|everything|for|going|have|i"
    r"|in|is|it|just|like|me|mean|meant|my|need|of|on|please|really|said|say|some|that|the|them"
    r"|this|to|trying|us|want(?:ed|ing)?|we|wish|yet|your?"
)
_STEM = 5
_ESCAPE = r"\\[A-Za-z]"
_CONTRACTION_IN_PATTERN = r"n\W{1,12}t\b"


def _folded(text: str) -> str:
    """A text in lower case, each character at its place."""
    return text.lower() if text.isascii() else text.translate(_FOLDS).lower()


@lru_cache(maxsize=256)
def negates(pattern: str) -> bool:
    """Whether a regular expression contains a negation, so that it may match negated text."""
    plain = re.sub(_ESCAPE, " ", pattern)
    return bool(_CUE.search(_folded(plain)) or re.search(_CONTRACTION_IN_PATTERN, plain))


def is_negated(text: str, start: int, end: int) -> bool:
    """Whether a negation before `end` reaches past `start`.

    It reaches to the end of its sentence, or to "but": across commas, since what follows a comma
    may be negated too ("do not return, exchange or cancel it").
    """
    begin = 0
    for stop in _END_OF_SCOPE.finditer(text, 0, start):
        begin = stop.end()
    return _CUE.search(_folded(text), begin, end) is not None


def is_quoted(text: str, start: int, end: int) -> bool:
    """Whether a part of a text is in quotation marks, within a longer text."""
    return not re.fullmatch(_QUOTED, text.strip()) and any(
        quoted.start() < start and end < quoted.end() for quoted in re.finditer(_QUOTED, text)
    )


class Negations:
    """The words that the examples of each intent negate, such as in "I have not received it".

    A classifier on words is as confident of "do not cancel it" as of "cancel it". So a negated
    message counts for an intent only if one of its examples negates the same word.
    """

    def __init__(self, examples: Iterable[tuple[str, str]]) -> None:
        """Keep pairs of a text and its intent, to learn from an intent's when it is asked for.

        A cold start asks for one intent at most, and only if its message has a negation.
        """
        self._examples: dict[str, list[str]] = {}
        for text, intent in examples:
            self._examples.setdefault(intent, []).append(text)
        self._negated: dict[str, set[str]] = {}

    def outside(self, text: str, intent: str) -> str | None:
        """The text without quotations, and without negations that the intent's examples lack.

        None if there are none.
        """
        text, quotes = _without_quotes(text)
        kept: list[str] = [""] if quotes else []
        at = 0
        for cue in _CUE.finditer(_folded(text)):
            if cue.start() < at or _negated_word(text, cue) in self._known(intent):
                continue
            kept.append(text[at : cue.start()])
            stop = _END_OF_SCOPE.search(text, cue.end())
            at = stop.start() if stop else len(text)
        return " ".join((*kept, text[at:])) if kept else None

    def _known(self, intent: str) -> set[str]:
        """The words that the intent's examples negate."""
        known = self._negated.get(intent)
        if known is None:
            texts = self._examples.get(intent, ())
            known = {
                _negated_word(text, cue) for text in texts for cue in _CUE.finditer(_folded(text))
            }
            if texts:
                self._negated[intent] = known
        return known


def _negated_word(text: str, cue: re.Match[str]) -> str:
    """The stem of the first significant word after a negation; empty if there is none.

    "Stop the order" is not "not the order".
    """
    kind = "stop " if cue[0].startswith("stop") else ""
    for word in _WORD.finditer(text, cue.end()):
        if not _light_word().fullmatch(word[0]):
            return kind + word[0].lower()[:_STEM]
    return kind


@cache
def _light_word() -> re.Pattern[str]:
    return re.compile(_LIGHT_WORD, re.IGNORECASE)


def _without_quotes(text: str) -> tuple[str, int]:
    if not any(each in text for each in _QUOTES):
        return text, 0
    whole = text.strip()
    return (text, 0) if re.fullmatch(_QUOTED, whole) else re.subn(_QUOTED, " ", text)


_MOST_MATCHES = 16


class Rules:
    """Patterns of all intents, in the order of the configuration; the first match decides.

    A match that is negated ("do not cancel it") or quoted decides nothing. A pattern that contains
    a negation itself may match one.
    """

    def __init__(self, definitions: Sequence[IntentDefinition]) -> None:
        """Compile the patterns.

        Raises:
            ConfigError: One is not a regular expression.
        """
        self._patterns: list[tuple[str, re.Pattern[str]]] = []
        for definition in definitions:
            for pattern in definition.patterns:
                try:
                    compiled = re.compile(pattern, re.IGNORECASE)
                except re.error as error:
                    raise ConfigError(
                        f"intents.{definition.name}.patterns: {pattern!r}: {error}"
                    ) from error
                self._patterns.append((definition.name, compiled))

    def match(self, text: str) -> str | None:
        """The intent of the first pattern that matches the text, or None."""
        text = text[:MAX_CHARACTERS]
        for name, pattern in self._patterns:
            if pattern.search(text) is None:
                continue
            # Only 16 matches of a pattern are examined.
            for found in islice(pattern.finditer(text), _MOST_MATCHES):
                start, end = found.span()
                reach = start if negates(pattern.pattern) else end
                if not is_negated(text, start, reach) and not is_quoted(text, start, end):
                    return name
        return None
