"""History window: the part of a session that is sent to a model."""

from collections.abc import Sequence

from msgspec import UNSET

from seawall.turn import AssistantMessage, Message, ToolMessage, TurnRecord

__all__ = ["estimate_tokens", "history_window"]

_CHARACTERS_A_TOKEN = 4
_TOKENS_A_MESSAGE = 4
_WITHOUT_RESULT = {
    "planned": "{} was not executed: the turn was interrupted before.",
    "waiting": "{} waits for approval; it has not been executed yet. Do not call it again.",
    "begun": "{} was called, and its outcome is not known. Do not call it again.",
    "unknown": "{} was called, and its outcome is not known. It is being looked into. "
    "Do not call it again.",
}


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
    chosen: list[tuple[Message, ...]] = []
    tokens = 0
    for turn in reversed(turns[-max_turns:] if max_turns else ()):
        messages = turn.messages if turn.status == "completed" else _with_results(turn)
        tokens += sum(map(estimate_tokens, messages))
        if tokens > max_tokens:
            break
        chosen.append(messages)
    return tuple(message for messages in reversed(chosen) for message in messages)


def _with_results(turn: TurnRecord) -> tuple[Message, ...]:
    """The messages of a turn that has no answer, with a result for every call of its last step."""
    last = turn.messages[-1]
    if turn.journal is UNSET or not isinstance(last, AssistantMessage):
        return turn.messages
    outcomes = {each.call_id: each for each in turn.journal.outcomes}
    effects = {each.call: each for each in turn.journal.effects if each.step == turn.journal.steps}
    results: list[Message] = []
    for call in last.tool_calls:
        effect = effects.get(call.id)
        status = effect.status if effect is not None else "planned"
        text = _WITHOUT_RESULT.get(status, _WITHOUT_RESULT["planned"]).format(call.name)
        results.append(outcomes.get(call.id) or ToolMessage(call.id, call.name, text, failed=True))
    return (*turn.messages, *results)
