"""A conversation for providers that know two roles, who must take turns."""

from collections.abc import Sequence
from typing import Literal

from seawall.models.history import tool_name, without_blanks
from seawall.models.port import Prompt, ToolSpec
from seawall.turn import AssistantMessage, Message, UserMessage

__all__ = ["alternate", "declared_tools"]

Side = tuple[Literal["user", "assistant"], list[Message]]

_OPENING = UserMessage("(The conversation begins.)")


def alternate(messages: Sequence[Message]) -> list[Side]:
    """The messages by side, each side's together; what tools answered is on the user's side.

    Blanks are left out, or replaced: see `history`. The first side is the user's: clients that keep
    the history may begin it with their greeting.
    """
    sides: list[Side] = []
    for message in without_blanks(messages):
        if isinstance(message, AssistantMessage):
            if not sides:
                sides.append(("user", [_OPENING]))
            role: Literal["user", "assistant"] = "assistant"
        else:
            role = "user"
        if sides and sides[-1][0] == role:
            sides[-1][1].append(message)
        else:
            sides.append((role, [message]))
    return sides


def declared_tools(prompt: Prompt, messages: Sequence[Message]) -> tuple[ToolSpec, ...]:
    """The prompt's tools; where it has none, those that were called before.

    An agent without tools that takes over a conversation with calls in it must still declare some,
    or the provider refuses the history.
    """
    if prompt.tools:
        return prompt.tools
    called = {
        tool_name(call.name)
        for message in messages
        if isinstance(message, AssistantMessage)
        for call in message.tool_calls
    }
    return tuple(
        ToolSpec(name, "Not available any more.", {"type": "object", "properties": {}})
        for name in sorted(called)
    )
