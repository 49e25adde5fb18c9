"""Scripted replies and tool calls for the simulated model."""

import re
from pathlib import Path

import msgspec
from msgspec import Struct

from seawall.errors import ConfigError
from seawall.turn import ToolCall

__all__ = ["Script", "ScriptedCall", "ScriptedStep", "load_script", "tool_calls"]


class ScriptedCall(Struct, frozen=True, forbid_unknown_fields=True):
    """A tool call; `arguments` is any JSON object."""

    name: str
    arguments: dict[str, object]


class ScriptedStep(Struct, frozen=True, forbid_unknown_fields=True):
    """One reply of the model: text, tool calls, or both."""

    text: str = ""
    tool_calls: tuple[ScriptedCall, ...] = ()


class _Conversation(Struct, frozen=True, forbid_unknown_fields=True):
    match: str
    steps: tuple[ScriptedStep, ...]


class _File(Struct, frozen=True):
    conversations: tuple[_Conversation, ...]


class Script:
    """Steps by the last user message: an exact text, or a regular expression after `re:`."""

    def __init__(self, conversations: tuple[_Conversation, ...] = ()) -> None:
        self._exact: dict[str, tuple[ScriptedStep, ...]] = {}
        self._patterns: list[tuple[re.Pattern[str], tuple[ScriptedStep, ...]]] = []
        for each in conversations:
            if each.match.startswith("re:"):
                self._patterns.append((re.compile(each.match[3:]), each.steps))
            else:
                self._exact[each.match] = each.steps

    def step(self, message: str, number: int) -> ScriptedStep | None:
        """The step after `number` replies to a message; None if it is not scripted."""
        steps = self._exact.get(message)
        if steps is None:
            matching = (found for pattern, found in self._patterns if pattern.search(message))
            steps = next(matching, None)
        if steps is None:
            return None
        return steps[number] if number < len(steps) else ScriptedStep("The script is at its end.")


def load_script(path: Path) -> Script:
    """Read a script file.

    Raises:
        ConfigError: The file cannot be read, or is not a script.
    """
    try:
        return Script(msgspec.json.decode(path.read_bytes(), type=_File).conversations)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError, re.error) as error:
        raise ConfigError(f"{path}: not a script: {error}") from error


def tool_calls(step: ScriptedStep, number: int) -> tuple[ToolCall, ...]:
    """The tool calls of a step, with ids that differ from step to step."""
    return tuple(
        ToolCall(f"call_{number}_{index}", each.name, msgspec.json.encode(each.arguments).decode())
        for index, each in enumerate(step.tool_calls)
    )
