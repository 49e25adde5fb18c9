"""Messages without what no provider takes: text that is empty or blank.

A session may have such text from before it was refused, from a tool, or from a client that keeps
the history itself.
"""

from collections.abc import Sequence

import msgspec

from seawall.turn import AssistantMessage, Message, UserMessage

__all__ = ["NO_CONTENT", "said"]

NO_CONTENT = "(no content)"
"""What stands for a blank where a text is required."""


def said(messages: Sequence[Message]) -> list[Message]:
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
