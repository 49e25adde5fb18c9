"""Interludes: what was said while a person had the conversation, shown in its place."""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import UNSET

from seawall.turn import AssistantMessage, Effect, Message, ToolMessage, TurnRecord, UserMessage

__all__ = ["Interludes", "in_order", "interludes", "with_interludes"]

Interludes = Mapping[int, tuple[Message, ...]]
"""What was said while a person had the conversation, by the index of the result of the call that
handed it over."""


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
        {"from": _speaker(each), "text": _text(each)}
        for each in said
        if not isinstance(each, ToolMessage)
    ]
    text = msgspec.json.encode({"conversation": conversation, "result": result.content})
    return msgspec.structs.replace(result, content=text.decode())


def _text(message: UserMessage | AssistantMessage) -> str:
    return message.described if isinstance(message, UserMessage) else message.text


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


def in_order(chosen: Sequence[tuple[TurnRecord, tuple[Message, ...]]]) -> tuple[Message, ...]:
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
