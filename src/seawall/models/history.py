"""Conversation history in the form that providers accept: no blank texts, ids of calls that fit.

Most providers refuse text that is empty or blank. A session may have such text from before it was
refused here, from a tool, or from a client that keeps the history itself.

Providers differ in the ids of tool calls that they accept, and a conversation may have calls of
several: after a fallback, or a change of the configuration. A provider gets its own ids back
unchanged. Those of others are kept where they fit, else replaced by a digest, which is the same
each time so that prompt caches keep matching. No two calls of a conversation share an id.
"""

import hashlib
import re
import string
from collections.abc import Sequence
from typing import Literal

import msgspec

from seawall.models import Prompt, ToolSpec
from seawall.turn import AssistantMessage, Message, ToolCall, ToolMessage, UserMessage

__all__ = [
    "NINE_CHARACTER_IDS",
    "NO_CONTENT",
    "WORD_IDS",
    "CallIds",
    "alternate",
    "call_origin",
    "declared_tools",
    "has_images",
    "named_only",
    "tool_name",
    "without_blanks",
]

NO_CONTENT = "(no content)"
"""Sent in place of a blank where a text is required."""

NINE_CHARACTER_IDS = re.compile(r"[A-Za-z0-9]{9}")
"""Accepted by Mistral, and by everyone else too."""
WORD_IDS = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Accepted by Anthropic, Bedrock and OpenAI's responses."""

_NOT_SHOWN = "[You cannot be shown its images.]"
_DIGITS = string.digits + string.ascii_letters
_MAX_ID_CHARACTERS = 256
_OPENING = UserMessage("(The conversation begins.)")
_name = re.compile(r"[A-Za-z0-9_-]{1,64}")
_not_in_names = re.compile(r"[^A-Za-z0-9_-]")

Side = tuple[Literal["user", "assistant"], list[Message]]


class CallIds:
    """The ids of tool calls in one request, in the order of its messages.

    Args:
        messages: All of the request.
        origin: The provider that is called; see `call_origin`.
        fits: What it accepts as an id of another provider's call.
    """

    __slots__ = ("_fits", "_latest", "_origin", "_own", "_used")

    def __init__(self, messages: Sequence[Message], origin: str, fits: re.Pattern[str]) -> None:
        self._origin = origin
        self._fits = fits
        self._latest: dict[str, str] = {}
        self._used: set[str] = set()
        self._own = {
            call.id
            for message in messages
            if type(message) is AssistantMessage
            for call in message.tool_calls
            if call.origin == origin
        }

    def of_call(self, call: ToolCall) -> str:
        """Return the id to send with a call, and with its result."""
        own = call.origin == self._origin and 0 < len(call.id) <= _MAX_ID_CHARACTERS
        wanted = call.id if own or self._fits.fullmatch(call.id) else _digest(call.id)
        count = 0
        while wanted in self._used or (not own and wanted in self._own):
            count += 1
            wanted = _digest(f"{call.id}\0{count}")
        self._used.add(wanted)
        self._latest[call.id] = wanted
        return wanted

    def of_result(self, message: ToolMessage) -> str:
        """Return the id to send with a result: that of the latest call with its id."""
        known = self._latest.get(message.call_id)
        if known is not None:
            return known
        fits = self._fits.fullmatch(message.call_id)
        return message.call_id if fits else _digest(message.call_id)

    def extra_of(self, call: ToolCall) -> str:
        """Return the extra JSON to send with a call: only to the provider that made it."""
        return call.extra if call.origin == self._origin else ""


def call_origin(kind: str, base_url: str, model: str) -> str:
    """Return the digest by which stored tool calls name the model that made them."""
    return hashlib.sha256(f"{kind}\0{base_url}\0{model}".encode()).hexdigest()[:12]


def tool_name(name: str) -> str:
    """Return a tool's name as every provider accepts it: models call tools that cannot exist."""
    if _name.fullmatch(name):
        return name
    return _not_in_names.sub("_", name)[:64] or "_"


def _digest(text: str) -> str:
    """Return nine letters and digits."""
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8])
    digits = ""
    for _ in range(9):
        number, rest = divmod(number, len(_DIGITS))
        digits += _DIGITS[rest]
    return digits


def without_blanks(messages: Sequence[Message]) -> list[Message]:
    """Drop answers without text and calls; replace blank texts of users."""
    kept: list[Message] = []
    for message in messages:
        if type(message) is AssistantMessage:
            if not message.tool_calls and (not message.text or message.text.isspace()):
                continue
        elif type(message) is UserMessage and not message.text.strip():
            message = msgspec.structs.replace(message, text=NO_CONTENT)  # noqa: PLW2901
        kept.append(message)
    return kept


def alternate(messages: Sequence[Message]) -> list[Side]:
    """Group the messages by role, for providers that know two roles which must alternate.

    Results of tools are on the user's side. Blanks are dropped or replaced. The first side is the
    user's: clients that keep the history may begin it with a greeting of the assistant.
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


def has_images(message: Message) -> bool:
    """Whether a message has images."""
    return type(message) is ToolMessage and bool(message.images)


def named_only(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Messages without images, for a model that takes none: the text names them."""
    return tuple(
        msgspec.structs.replace(each, content=f"{each.content}\n{_NOT_SHOWN}", images=())
        if isinstance(each, ToolMessage) and each.images
        else each
        for each in messages
    )


def declared_tools(prompt: Prompt, messages: Sequence[Message]) -> tuple[ToolSpec, ...]:
    """Return the prompt's tools; where it has none, those that were called before.

    An agent without tools that continues a conversation with calls in it must still declare them,
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
