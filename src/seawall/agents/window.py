"""History window: the part of a session that is sent to a model."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec import UNSET

from seawall.turn import AssistantMessage, Effect, Message, ToolMessage, TurnRecord, UserMessage

__all__ = [
    "Interludes",
    "estimate_tokens",
    "history_window",
    "interludes",
    "turn_tokens",
    "with_interludes",
    "with_newest_images",
    "without_images",
]

M = TypeVar("M", bound=Message)

Interludes = Mapping[int, tuple[Message, ...]]
"""What was said while a person had the conversation, by the index of the result of the call that
handed it over."""

_CHARACTERS_A_TOKEN = 4
_TOKENS_A_MESSAGE = 4
_MAX_TURN_IMAGES = 8
_NOT_KEPT = "[Its images are not kept.]"
_WITHOUT_RESULT = {
    "planned": "{} was not executed: the turn was interrupted before.",
    "waiting": "{} waits for approval, or for an answer of the user; it has not been executed yet. "
    "Do not call it again.",
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


def turn_tokens(turn: TurnRecord) -> int:
    """About how many tokens a turn costs in a prompt."""
    return sum(map(estimate_tokens, _messages(turn)))


def history_window(turns: Sequence[TurnRecord], start: int) -> tuple[Message, ...]:
    """The messages of the turns from a number on.

    Turns are included whole, so that no tool call is separated from its result.

    Args:
        turns: Oldest first.
        start: Number of the first turn that is shown.
    """
    chosen = [(each, _messages(each)) for each in turns if each.number >= start]
    if any(turn.during is not UNSET for turn, _ in chosen):
        return _in_order(chosen)
    return tuple(message for _, messages in chosen for message in messages)


def _messages(turn: TurnRecord) -> tuple[Message, ...]:
    return turn.messages if turn.status == "completed" else _with_results(turn)


def interludes(turn: TurnRecord, later: Sequence[TurnRecord]) -> Interludes:
    """What was said while a person had the conversation that a turn has handed over.

    Args:
        turn: The turn.
        later: Turns after it, oldest first, of which some were said meanwhile.
    """
    said: dict[str, list[Message]] = {}
    for each in later:
        if each.during is not UNSET:
            said.setdefault(each.during, []).extend(each.messages)
    places = _handovers(turn)
    return {places[name]: tuple(said[name]) for name in said if name in places}


def with_interludes(messages: Sequence[Message], said: Interludes) -> tuple[Message, ...]:
    """Messages with what was said meanwhile in the results of calls that handed over.

    There it is in its place, ends with what the person said when handing back, and cannot be taken
    for a message of the model or of the user: it is JSON.
    """
    return tuple(
        _with_said(each, said[index]) if index in said and isinstance(each, ToolMessage) else each
        for index, each in enumerate(messages)
    )


def _with_said(result: ToolMessage, said: Sequence[Message]) -> ToolMessage:
    conversation = [
        {"from": _speaker(each), "text": each.text}
        for each in said
        if not isinstance(each, ToolMessage)
    ]
    text = msgspec.json.encode({"conversation": conversation, "result": result.content})
    return msgspec.structs.replace(result, content=text.decode())


def _speaker(message: Message) -> str:
    if isinstance(message, UserMessage):
        return "user"
    return "person" if isinstance(message, AssistantMessage) and message.by else "assistant"


def _handovers(turn: TurnRecord) -> dict[str, int]:
    """Of each hand-over of a turn, by its id, the index of its result among the turn's messages."""
    if turn.journal is UNSET:
        return {}
    left: list[Effect] = [
        each
        for each in turn.journal.effects
        if each.request is not None and each.request.kind == "person"
    ]
    found: dict[str, int] = {}
    for index, message in enumerate(turn.messages):
        if not isinstance(message, AssistantMessage):
            continue
        for number, call in enumerate(message.tool_calls, 1):
            if left and (call.id, call.name) == (left[0].call, left[0].tool):
                found[left.pop(0).id] = index + number
    return found


def _in_order(chosen: Sequence[tuple[TurnRecord, tuple[Message, ...]]]) -> tuple[Message, ...]:
    """The messages of turns, with what was said to a person within the turn that handed over.

    Where that turn is not among them, the person's messages are marked.
    """
    turns = [turn for turn, _ in chosen]
    places = {name for turn in turns for name in _handovers(turn)}
    found: list[Message] = []
    for turn, messages in chosen:
        if turn.during is UNSET:
            found += with_interludes(messages, interludes(turn, turns))
        elif turn.during not in places:
            found += map(_marked, messages)
    return tuple(found)


def _marked(message: Message) -> Message:
    if isinstance(message, AssistantMessage) and message.by:
        return AssistantMessage(f"[A person wrote this in your place:] {message.text}")
    return message


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


def without_images(messages: Sequence[M]) -> tuple[M, ...]:
    """Messages as they are stored: the text of a result names its images."""
    return tuple(map(_named, messages))


def with_newest_images(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Messages with the images that came last, as many as models are shown in one turn.

    Args:
        messages: Of the turn.
    """
    left = _MAX_TURN_IMAGES
    kept: list[Message] = []
    for message in reversed(messages):
        if isinstance(message, ToolMessage) and message.images:
            left -= len(message.images)
            if left < 0:
                message = _named(message)  # noqa: PLW2901
        kept.append(message)
    return tuple(reversed(kept))


def _named(message: M) -> M:
    if not isinstance(message, ToolMessage) or not message.images:
        return message
    return msgspec.structs.replace(message, content=f"{message.content}\n{_NOT_KEPT}", images=())
