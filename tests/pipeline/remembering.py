"""A model that remembers and forgets as the message says."""

import json

import msgspec

from seawall.models import ModelRequest
from seawall.turn import ToolCall, UserMessage

__all__ = ["forget", "obedient", "remember"]


def remember(key: str, fact: str, call: str = "c1", **more: object) -> ToolCall:
    arguments = {"key": key, "fact": fact, "said_by_user": True, **more}
    return ToolCall(call, "remember", msgspec.json.encode(arguments).decode())


def forget(key: str, call: str = "c1") -> ToolCall:
    return ToolCall(call, "forget", msgspec.json.encode({"key": key}).decode())


def obedient(request: ModelRequest) -> str | tuple[ToolCall, ...]:
    """Do what the last message says: `remember KEY FACT`, `forget KEY`; else say something."""
    last = request.messages[-1]
    if not isinstance(last, UserMessage):
        return "Done."
    word, _, rest = last.text.partition(" ")
    if word == "remember":
        key, _, fact = rest.partition(" ")
        return (remember(key, fact, call=f"c-{len(request.messages)}"),)
    if word == "forget":
        return (forget(rest, call=f"c-{len(request.messages)}"),)
    if word == "hand":
        return (ToolCall("h1", "hand_off", json.dumps({"agent": rest})),)
    return "I see."
