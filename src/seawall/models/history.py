"""A conversation as a provider takes it: without blanks, and with ids that fit.

Text that is empty or blank is refused by most. A session may have such text from before it was
refused here, from a tool, or from a client that keeps the history itself.

Providers differ in the ids of tool calls that they accept, and a conversation may have calls of
several: one provider stands in for another, or the configuration changed. A provider gets its own
ids back as they were. Another's are kept where they fit, else replaced by a digest, which is the
same each time so that prompt caches go on to match. No two calls of a conversation have one id.
"""

import hashlib
import re
import string
from collections.abc import Sequence

import msgspec

from seawall.turn import AssistantMessage, Message, ToolCall, ToolMessage, UserMessage

__all__ = [
    "NINE_CHARACTER_IDS",
    "NO_CONTENT",
    "WORD_IDS",
    "CallIds",
    "call_origin",
    "tool_name",
    "without_blanks",
]

NO_CONTENT = "(no content)"
"""What stands for a blank where a text is required."""

NINE_CHARACTER_IDS = re.compile(r"[A-Za-z0-9]{9}")
"""What Mistral takes, and everyone else too."""
WORD_IDS = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What Anthropic, Bedrock and OpenAI's responses take."""

_DIGITS = string.digits + string.ascii_letters
_MAX_ID_CHARACTERS = 256
_name = re.compile(r"[A-Za-z0-9_-]{1,64}")
_not_in_names = re.compile(r"[^A-Za-z0-9_-]")


class CallIds:
    """The ids of one request, asked for in the order of its messages.

    Args:
        messages: All of the request.
        origin: The provider that is asked.
        fits: What it takes as an id of another provider's call.
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
        """The id to send with a call; its result is sent with the same."""
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
        """The id to send with a result: that of the latest call with its id."""
        known = self._latest.get(message.call_id)
        if known is not None:
            return known
        fits = self._fits.fullmatch(message.call_id)
        return message.call_id if fits else _digest(message.call_id)

    def extra_of(self, call: ToolCall) -> str:
        """What is sent with a call beside the usual: to the provider that it came from."""
        return call.extra if call.origin == self._origin else ""


def call_origin(kind: str, where: str, model: str) -> str:
    """What a model of a provider is known by in stored calls; says nothing of them to others."""
    known = f"{kind}\0{where}\0{model}".encode()
    return hashlib.sha256(known).hexdigest()[:12]


def tool_name(name: str) -> str:
    """A tool's name as every provider takes it: models ask for tools that cannot exist."""
    if _name.fullmatch(name):
        return name
    return _not_in_names.sub("_", name)[:64] or "_"


def _digest(text: str) -> str:
    """Nine letters and digits."""
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8])
    digits = ""
    for _ in range(9):
        number, rest = divmod(number, len(_DIGITS))
        digits += _DIGITS[rest]
    return digits


def without_blanks(messages: Sequence[Message]) -> list[Message]:
    """The messages, without answers that say nothing and call nothing."""
    kept: list[Message] = []
    for message in messages:
        if type(message) is AssistantMessage:
            if not message.tool_calls and (not message.text or message.text.isspace()):
                continue
        elif type(message) is UserMessage and not message.text.strip():
            message = msgspec.structs.replace(message, text=NO_CONTENT)  # noqa: PLW2901
        kept.append(message)
    return kept
