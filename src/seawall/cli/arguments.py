"""Command-line arguments: parser, types of values, common options, syntax for completion."""

import argparse
import copy
import math
import os
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from seawall.errors import ConfigError, did_you_mean

__all__ = [
    "CommandSyntax",
    "Commands",
    "OptionSyntax",
    "Parser",
    "add_config",
    "add_group",
    "add_json",
    "add_old_name",
    "decimal",
    "integer",
    "move_options_first",
    "name",
    "number_range",
    "plural",
    "requires_extra",
    "store_example",
    "writable",
]

Commands = argparse._SubParsersAction  # noqa: SLF001 - it has no public name
"""Where a parser's commands are added."""

_PATH_METAVARS = ("FILE", "FOLDER", "CONFIG", "HANDLER")
_STORE_EXAMPLE = Path("examples/store/seawall.toml")


class OptionSyntax(NamedTuple):
    """An option as completion scripts need it; without `choices` every value is accepted."""

    names: tuple[str, ...]
    help: str
    takes_value: bool
    is_path: bool
    choices: tuple[str, ...]


class CommandSyntax(NamedTuple):
    """A command as completion scripts need it.

    Attributes:
        path: Such as `/sessions/list`; "" for `seawall` itself.
        options: Those that help shows.
        commands: Help of each subcommand by its name.
        choices: Values of a positional argument, if they are fixed.
    """

    path: str
    options: list[OptionSyntax]
    commands: dict[str, str]
    choices: tuple[str, ...]


class Parser(argparse.ArgumentParser):
    """Parses a command line; `parsed.parser` is the parser of the command that was given."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as argparse's
        super().__init__(*arguments, **options)
        self.set_defaults(parser=self)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and a message that suggests what may have been meant."""
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice is not None:
            known = [each.strip(" '") for each in choice[2].split(",")]
            message += did_you_mean(choice[1], known)
        elif message.endswith("required: COMMAND"):
            known = [
                word
                for each in self._actions
                if isinstance(each, Commands)
                for word in each.choices
            ]
            message += f" (choose from {', '.join(known)})"
        super().error(message)

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Exit with the error for arguments that no option accepts."""
        options = [each.partition("=")[0] for each in unknown if each.startswith("-")]
        meant = [did_you_mean(each, self._option_string_actions) for each in options]
        self.error(f"unrecognized arguments: {' '.join(unknown)}{''.join(meant)}")

    def syntax(self, path: str = "") -> list[CommandSyntax]:
        """Describe this command and all of its subcommands."""
        options: list[OptionSyntax] = []
        commands: dict[str, str] = {}
        choices: tuple[str, ...] = ()
        below: list[CommandSyntax] = []
        for action in self._actions:
            if isinstance(action, Commands):
                commands = {each.dest: each.help or "" for each in action._choices_actions}  # noqa: SLF001
                for word, parser in action.choices.items():
                    below += parser.syntax(f"{path}/{word}")
            elif action.option_strings and action.help != argparse.SUPPRESS:
                options.append(
                    OptionSyntax(
                        names=tuple(action.option_strings),
                        help=(action.help or "") % (vars(action) | {"prog": self.prog}),
                        takes_value=action.nargs != 0,
                        is_path=action.type is Path
                        or str(action.metavar).startswith(_PATH_METAVARS),
                        choices=tuple(action.choices or ()),
                    )
                )
            elif action.choices:
                choices = tuple(action.choices)
        return [CommandSyntax(path, options, commands, choices), *below]


def move_options_first(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """Move options that every command accepts to the front of the command line.

    Args:
        words: The command line.
        options: Names of options that take a value.
    """
    first: list[str] = []
    rest: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word == "--":
            rest += [word, *remaining]
        elif word in options:
            first.append(f"{word}={next(remaining, '')}")
        elif word.partition("=")[0] in options:
            first.append(word)
        else:
            rest.append(word)
    return first + rest


def add_group(
    commands: "Commands[Parser]", name: str, summary: str, description: str = ""
) -> "Commands[Parser]":
    """Add a command that only has subcommands; return where to add them.

    Args:
        commands: Where it is added.
        name: Its name.
        summary: Its line in the help of the parent.
        description: At the top of its own help; the summary by default.
    """
    description = description or f"{summary[0].upper()}{summary[1:]}."
    parser = commands.add_parser(name, help=summary, description=description)
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_old_name(parser: argparse.ArgumentParser, old: str, action: argparse.Action) -> None:
    """Accept an option under the name that it had in an earlier release, without showing it.

    Args:
        parser: Has the option.
        old: The old name.
        action: The option.
    """
    alias = copy.copy(action)
    alias.option_strings = [old]
    alias.help = argparse.SUPPRESS
    parser._add_action(alias)  # noqa: SLF001 - argparse has no API for it


def add_json(
    parser: argparse._ActionsContainer,
    what: str = "print one JSON object",
) -> None:
    """Add the option --json, with its help."""
    parser.add_argument("--json", action="store_true", help=what)


def add_config(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the option --config.

    Args:
        parser: Of the command.
        what: What the command reads from the configuration.
    """
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("seawall.toml"),
        metavar="FILE",
        help=f"configuration file with {what} (default: %(default)s)",
    )


def integer(low: int, high: int) -> Callable[[str], int]:
    """Make the type of an option that is a whole number from `low` to `high`."""

    def read(text: str) -> int:
        try:
            value = int(text) if len(text) <= 30 else None
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {low} to {high}, not {text[:40]!r}"
            )
        return value

    return read


def decimal(low: float, high: float, *, above: bool = False) -> Callable[[str], float]:
    """Make the type of an option that is a number from `low` (exclusive if `above`) to `high`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or (above and value == low):
            least = f"more than {low:g} and at most" if above else f"from {low:g} to"
            raise argparse.ArgumentTypeError(
                f"must be a number {least} {high:g}, not {text[:40]!r}"
            )
        return value

    return read


def name(value: str) -> str:
    """Read the name of a tenant or a subject."""
    from seawall.identity.settings import check_name  # noqa: PLC0415 - of few commands

    try:
        return check_name(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def number_range(text: str, option: str) -> tuple[float, float]:
    """Read a number, or a range such as 3..6.

    Args:
        text: The value of the option.
        option: Its name, for errors.

    Raises:
        ConfigError: It is neither, or negative, or not finite.
    """
    low, _, high = text.partition("..")
    try:
        found = float(low), float(high or low)
    except ValueError:
        raise ConfigError(f"{option}: {text!r} is not a number, or a range such as 3..6") from None
    if not (math.isfinite(found[0]) and math.isfinite(found[1])):
        raise ConfigError(f"{option}: {text!r} is not a finite number")
    if found[0] < 0 or found[1] < 0:
        raise ConfigError(f"{option}: {text!r} is negative")
    return found


def writable(given: Path, option: str) -> Path:
    """Check that a result can be written to a file, before it is computed.

    Args:
        given: The file.
        option: The option that names it, for errors.

    Raises:
        ConfigError: It cannot be written.
    """
    path = given.resolve()
    if path.is_dir():
        raise ConfigError(f"{option}: {given} is a folder; name a file")
    if not path.parent.is_dir():
        raise ConfigError(f"{option}: {given} cannot be written: there is no {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"{option}: {given} cannot be written: it is not permitted")
    return path


def plural(count: int, noun: str) -> str:
    """Format as `1 turn`, `2 turns`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


@contextmanager
def requires_extra(command: str, extra: str) -> Generator[None, None, None]:
    """Guard imports of packages that an extra installs.

    Raises:
        ConfigError: One of them is not installed; the message names the extra.
    """
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"{command} needs the extra '{extra}': pip install 'seawall[{extra}]' ({error})"
        ) from None


def store_example() -> Path:
    """Find the configuration of the store example, and change to the folder that it is relative to.

    It is searched in the working directory, the checkout that runs, and the installed package.

    Raises:
        ConfigError: It is missing from this installation.
    """
    package = Path(__file__).resolve().parents[1]
    for base in (Path.cwd(), package.parents[1], package / "lab" / "demo_files"):
        if (base / _STORE_EXAMPLE).is_file():
            os.chdir(base)  # the example's tools are imported from there
            return _STORE_EXAMPLE
    raise ConfigError(f"{_STORE_EXAMPLE} is missing from this installation of Seawall")
