"""Exact rules: patterns that settle an intent without further question."""

import re
from collections.abc import Sequence

from seawall.errors import ConfigError
from seawall.intents.definition import IntentDefinition
from seawall.intents.features import MAX_CHARACTERS

__all__ = ["Rules"]


class Rules:
    """Patterns of all intents, in the order of their configuration; the first match decides."""

    def __init__(self, definitions: Sequence[IntentDefinition]) -> None:
        """Compile the patterns.

        Raises:
            ConfigError: one is not a regular expression.
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
        """The intent whose pattern is found in the text, or None."""
        text = text[:MAX_CHARACTERS]
        for name, pattern in self._patterns:
            if pattern.search(text):
                return name
        return None
