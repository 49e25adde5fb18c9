"""Ignore patterns in the syntax of .gitignore (git-scm.com/docs/gitignore)."""

import re
from collections.abc import Iterable

from msgspec import Struct

from seawall.errors import ConfigError

__all__ = ["IgnorePatterns", "parse_ignore_patterns"]


class _Pattern(Struct, frozen=True):
    matches: re.Pattern[str]
    folders_only: bool
    includes: bool


class IgnorePatterns(Struct, frozen=True):
    """Patterns in order; the last one that matches decides."""

    patterns: tuple[_Pattern, ...]

    def covers(self, path: str, *, folder: bool) -> bool:
        """Whether the path itself is ignored; files in an ignored folder are ignored as well.

        Args:
            path: Relative, with slashes.
            folder: Whether it is a folder.
        """
        for pattern in reversed(self.patterns):
            if (folder or not pattern.folders_only) and pattern.matches.fullmatch(path):
                return not pattern.includes
        return False


def parse_ignore_patterns(lines: Iterable[str]) -> IgnorePatterns:
    """Parse the lines of an ignore file.

    Raises:
        ConfigError: A line is longer than 4,096 characters.
    """
    patterns: list[_Pattern] = []
    for number, line in enumerate(lines, 1):
        if len(line) > 4_096:
            raise ConfigError(f".seawallignore: line {number} is longer than 4,096 characters")
        text = re.sub(r"(?<!\\)(?:[ \t\r\n])+$", "", line)
        if not text or text.startswith("#"):
            continue
        includes = text.startswith("!")
        text = text.removeprefix("!")
        folders_only = text.endswith("/")
        text = text.rstrip("/") if folders_only else text
        anchored = "/" in text
        text = text.removeprefix("/")
        found = _expression(text) if text else None
        if found is not None:
            expression = found if anchored else f"(?:.*/)?{found}"
            patterns.append(_Pattern(re.compile(expression, re.DOTALL), folders_only, includes))
    return IgnorePatterns(tuple(patterns))


def _expression(text: str) -> str | None:
    """Translate a pattern to a regular expression; None if it matches nothing."""
    out: list[str] = []
    at = 0
    while at < len(text):
        character = text[at]
        if text.startswith("**/", at) and (at == 0 or text[at - 1] == "/"):
            out.append("(?:.*/)?")
            at += 3
            continue
        if text[at:] == "**" and (at == 0 or text[at - 1] == "/"):
            out.append(".+")
            break
        if character == "*":
            while text[at : at + 1] == "*":
                at += 1
            out.append("[^/]*")
            continue
        if character == "[":
            end = _class_end(text, at)
            if end < 0:
                return None
            out.append(_class(text[at + 1 : end]))
            at = end + 1
            continue
        if character == "\\":
            at += 1
            if at == len(text):
                return None
            character = text[at]
            out.append(re.escape(character))
        else:
            out.append("[^/]" if character == "?" else re.escape(character))
        at += 1
    return "".join(out)


def _class_end(text: str, at: int) -> int:
    begin = at + 2 if text[at + 1 : at + 2] in ("!", "^") else at + 1
    return text.find("]", begin + 1)


def _class(content: str) -> str:
    negated = content[:1] in ("!", "^")
    content = content[1:] if negated else content
    escaped = content.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
    escaped = escaped.replace("^", "\\^").replace("&", "\\&").replace("~", "\\~")
    try:
        re.compile(f"[{escaped}]")
    except re.error:
        return "(?!)"
    return f"(?!/)[{'^' if negated else ''}{escaped}]"
