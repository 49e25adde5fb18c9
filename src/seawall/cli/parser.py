"""The parser of command lines: errors by the command that they are of, and what was meant."""

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from seawall.errors import did_you_mean

__all__ = ["Parser", "move_options_first"]


class Parser(argparse.ArgumentParser):
    """Parses a command line; `parsed.parser` is the parser of the command that was given."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as argparse's
        super().__init__(*arguments, **options)
        self.set_defaults(parser=self)

    def error(self, message: str) -> NoReturn:
        """See argparse; with what may have been meant."""
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice is not None:
            known = [each.strip(" '") for each in choice[2].split(",")]
            message += did_you_mean(choice[1], known)
        super().error(message)

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """The error of arguments that no option has taken."""
        options = [each.partition("=")[0] for each in unknown if each.startswith("-")]
        meant = [did_you_mean(each, self._option_string_actions) for each in options]
        self.error(f"unrecognized arguments: {' '.join(unknown)}{''.join(meant)}")


def move_options_first(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """The same with options of all commands before the command, wherever they stand.

    Args:
        words: The command line.
        options: Those that have a value and are the same for each command.
    """
    first: list[str] = []
    rest: list[str] = []
    left = iter(words)
    for word in left:
        if word == "--":
            rest += [word, *left]
        elif word in options:
            first.append(f"{word}={next(left, '')}")
        elif word.partition("=")[0] in options:
            first.append(word)
        else:
            rest.append(word)
    return first + rest
