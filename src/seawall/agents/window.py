"""History window: the part of a session that is sent to a model."""

from collections.abc import Sequence

from seawall.turn import AssistantMessage, Message, ToolMessage, TurnRecord

__all__ = ["estimate_tokens", "history_window"]

_CHARACTERS_A_TOKEN = 4
_TOKENS_A_MESSAGE = 4


def estimate_tokens(message: Message) -> int:
    """About how many tokens a message costs in a prompt.

    Four characters a token is OpenAI's rule of thumb for English
    (https://help.openai.com/en/articles/4936856), four more stand for the role and separators.
    """
    if isinstance(message, ToolMessage):
        characters = len(message.content)
    elif isinstance(message, AssistantMessage):
        characters = len(message.text) + sum(
            len(call.name) + len(call.arguments) for call in message.tool_calls
        )
    else:
        characters = len(message.text)
    return characters // _CHARACTERS_A_TOKEN + _TOKENS_A_MESSAGE


def history_window(
    turns: Sequence[TurnRecord], *, max_turns: int, max_tokens: int
) -> tuple[Message, ...]:
    """The messages of the newest turns that fit, oldest first.

    Turns are included whole, so that no tool call is separated from its result.

    Args:
        turns: Oldest first.
        max_turns: Turns at most.
        max_tokens: Estimated tokens at most.
    """
    chosen: list[TurnRecord] = []
    tokens = 0
    for turn in reversed(turns[-max_turns:] if max_turns else ()):
        tokens += sum(map(estimate_tokens, turn.messages))
        if tokens > max_tokens:
            break
        chosen.append(turn)
    return tuple(message for turn in reversed(chosen) for message in turn.messages)
