"""Exact rules: patterns that settle an intent without further question."""

import re
from collections.abc import Sequence
from itertools import islice

from seawall.errors import ConfigError
from seawall.intents.definition import IntentDefinition
from seawall.intents.features import MAX_CHARACTERS
from seawall.intents.negation import is_negated, is_quoted, negates

__all__ = ["Rules"]

_MOST_MATCHES = 16


class Rules:
    """Patterns of all intents, in the order of their configuration; the first match decides.

    A match that is negated ("do not cancel it"), or only quoted, decides nothing; the next stage
    does. A pattern that names a negation itself means it, and may match it.
    """

    def __init__(self, definitions: Sequence[IntentDefinition]) -> None:
        """Compile the patterns.

        Raises:
            ConfigError: one is not a regular expression.
        """
        self._patterns: list[tuple[str, re.Pattern[str], bool]] = []
        for definition in definitions:
            for pattern in definition.patterns:
                try:
                    compiled = re.compile(pattern, re.IGNORECASE)
                except re.error as error:
                    raise ConfigError(
                        f"intents.{definition.name}.patterns: {pattern!r}: {error}"
                    ) from error
                self._patterns.append((definition.name, compiled, negates(pattern)))

    def match(self, text: str) -> str | None:
        """The intent whose pattern is found in the text, or None."""
        text = text[:MAX_CHARACTERS]
        for name, pattern, means_negation in self._patterns:
            # Of a pattern that matches everywhere, 16 places are looked at.
            for found in islice(pattern.finditer(text), _MOST_MATCHES):
                start, end = found.span()
                reach = start if means_negation else end
                if not is_negated(text, start, reach) and not is_quoted(text, start, end):
                    return name
        return None
