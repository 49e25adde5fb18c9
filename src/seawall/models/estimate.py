"""How many tokens a request has, before anybody has counted them."""

from weakref import WeakKeyDictionary

import msgspec

from seawall.models.port import ModelRequest, Prompt
from seawall.turn import AssistantMessage, Message, ToolMessage

__all__ = ["CHARACTERS", "prompt_tokens"]

CHARACTERS = 4
"""To a token, in English text (https://platform.openai.com/tokenizer)."""
_AROUND_MESSAGE = 16  # characters' worth of tokens that frame each message

# Prompts live as long as their agents; each is measured once, which gives the same to everybody.
_fixed: WeakKeyDictionary[Prompt, int] = WeakKeyDictionary()


def prompt_tokens(request: ModelRequest) -> int:
    """About how many tokens a request has, the agent's fixed part included."""
    prompt = request.prompt
    fixed = _fixed.get(prompt)
    if fixed is None:
        fixed = len(prompt.instructions) + len(msgspec.json.encode(prompt.tools))
        _fixed[prompt] = fixed
    return (fixed + sum(map(_characters, request.messages))) // CHARACTERS + 1


def _characters(message: Message) -> int:
    if isinstance(message, ToolMessage):
        return _AROUND_MESSAGE + len(message.content)
    if isinstance(message, AssistantMessage):
        called = sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
        return _AROUND_MESSAGE + len(message.text) + called
    return _AROUND_MESSAGE + len(message.text)
