"""Results as text for a model. What is not text is named, with its type and size.

Images of a tool's result are given beside the text, for models that take them.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from seawall.tools.images import MAX_IMAGES, read_image
from seawall.turn import Image

__all__ = ["Contents", "json_value", "prompt_text", "resource_text", "result_text"]

_MAX_NAME_CHARACTERS = 300


class Contents(Struct, rename="camel"):
    """What a resource has: text, or bytes in Base64."""

    uri: str = ""
    mime_type: str | None = None
    text: str | None = None
    blob: str = ""


class _Block(Struct, rename="camel"):
    type: str
    text: str = ""
    data: str = ""
    mime_type: str | None = None
    uri: str = ""
    name: str = ""
    description: str | None = None
    resource: Contents | None = None


class _PromptMessage(Struct):
    role: str
    content: _Block | list[_Block]


_blocks = msgspec.json.Decoder(_Block)


def result_text(content: list[Raw], structured: Raw, images: list[Image] | None = None) -> str:
    """The result of a tool.

    Args:
        content: Blocks as they came.
        structured: JSON; nothing without it. It is left out where a block says the same.
        images: Receives those that models can be shown; None to show none.

    Raises:
        msgspec.DecodeError: A block is invalid.
    """
    blocks = [_blocks.decode(each) for each in content]
    texts = [_block_text(each, images) for each in blocks]
    if structured and not _is_said(structured, blocks):
        texts.append(msgspec.json.format(bytes(structured), indent=-1).decode())
    return "\n".join(texts)


def json_value(content: list[Raw], structured: Raw) -> Any:  # noqa: ANN401 - any JSON
    """The result of a tool as JSON: what is structured, or a text that is JSON; else UNSET.

    Args:
        content: Blocks as they came.
        structured: JSON; nothing without it.
    """
    if structured:
        return msgspec.json.decode(structured)
    for block in map(_blocks.decode, content):
        if block.type == "text":
            try:
                return msgspec.json.decode(block.text)
            except (msgspec.DecodeError, RecursionError):
                continue
    return msgspec.UNSET


def resource_text(contents: list[Contents]) -> str:
    """What was read of a resource."""
    return "\n".join(map(_contents_text, contents))


def prompt_text(messages: list[Raw]) -> str:
    """The messages of a prompt, each after who says it.

    Raises:
        msgspec.DecodeError: A message is invalid.
    """
    lines = []
    for message in messages:
        found = msgspec.json.decode(message, type=_PromptMessage)
        blocks = found.content if isinstance(found.content, list) else [found.content]
        lines.append(f"{_short(found.role)}: " + "\n".join(map(_block_text, blocks)))
    return "\n".join(lines)


def _is_said(structured: Raw, blocks: list[_Block]) -> bool:
    """Whether a text block says the same; servers wrap what is not an object in a `result`."""
    value = msgspec.json.decode(structured)
    wrapped = value["result"] if isinstance(value, dict) and [*value] == ["result"] else value
    texts = [block.text for block in blocks if block.type == "text"]
    if isinstance(wrapped, str):
        return wrapped in texts
    for text in texts:
        try:
            if msgspec.json.decode(text) in (value, wrapped):
                return True
        except (msgspec.DecodeError, RecursionError):
            continue
    return False


def _block_text(block: _Block, images: list[Image] | None = None) -> str:
    if block.type == "text":
        return block.text
    if block.type == "image" and images is not None and len(images) < MAX_IMAGES:
        image = read_image(block.mime_type, block.data)
        if image is not None:
            images.append(image)
            return f"[image{_kind(block.mime_type)}, {_size(block.data)}]"
    if block.type == "resource" and block.resource is not None:
        return _contents_text(block.resource)
    if block.type == "resource_link":
        name = f"{_short(block.name)}, " if block.name else ""
        about = f": {block.description}" if block.description else ""
        return f"[resource {name}{_short(block.uri)}{about}]"
    return f"[{_short(block.type)}{_kind(block.mime_type)}, {_size(block.data)}, not shown]"


def _contents_text(contents: Contents) -> str:
    named = f"resource {_short(contents.uri)}{_kind(contents.mime_type)}"
    if contents.text is None:
        return f"[{named}, {_size(contents.blob)}, not shown]"
    return f"[{named}]\n{contents.text}"


def _kind(mime_type: str | None) -> str:
    return f" {_short(mime_type)}" if mime_type else ""


def _size(data: str) -> str:
    return f"{len(data) * 3 // 4} bytes"


def _short(name: str) -> str:
    return name[:_MAX_NAME_CHARACTERS]
