"""The input of OpenAI's Responses API, as messages of a chat completion.

Items that only repeat what this server has said or done, such as reasoning and calls of the agent's
own tools, are left out: the session has them, and no client can change them. A reference to an item
stands for the item.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from seawall.errors import InvalidField
from seawall.hosts.http.bodies import field_error
from seawall.hosts.http.chat_body import (
    ChatFile,
    ChatMessage,
    FilePart,
    ImageAddress,
    ImagePart,
    RefusalPart,
    TextPart,
)
from seawall.hosts.http.chat_tools import CalledFunction, ChatCall
from seawall.hosts.http.conversations import Answer, wait_id
from seawall.hosts.http.responses_ids import approval_wait, turn_of_item
from seawall.pipeline.decisions import Verdict
from seawall.requests import session_of

__all__ = ["InputReader", "converted", "references"]

T = TypeVar("T")

_MAX_NOTE_CHARACTERS = 2_000
_LEFT_OUT = ("reasoning", "mcp_call", "mcp_approval_request", "mcp_list_tools")
_LEFT_OUT_IDS = ("rs_", "mcp_", "mcpr_", "mcpa_", "mcpl_")  # of such items, and of decisions
_SEPARATOR = TextPart("\n\n")  # of messages that become one


class MessageItem(Struct, frozen=True):
    """A message."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[dict[str, Any]]


class CallItem(Struct, frozen=True):
    """A call of a tool of the client."""

    call_id: str
    name: str
    arguments: str


class OutputItem(Struct, frozen=True):
    """The result of such a call."""

    call_id: str
    output: str | list[dict[str, Any]]


class DecisionItem(Struct, frozen=True):
    """A decision about a call that waits for approval."""

    approval_request_id: str
    approve: bool
    reason: str | None = None


class TextContent(Struct, frozen=True):
    """A text in a list of contents."""

    text: str


class RefusalContent(Struct, frozen=True):
    """An assistant's reason for not answering."""

    refusal: str


class ImageContent(Struct, frozen=True):
    """An image: a data URL, or the id of an upload."""

    image_url: str | None = None
    file_id: str | None = None


class FileContent(Struct, frozen=True):
    """A file by its bytes, or by the id of an upload."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None
    file_url: str | None = None


Part = TextPart | RefusalPart | ImagePart | FilePart


class InputReader:
    """Reads the items of an input.

    Attributes:
        messages: Of a chat completion.
        paths: Of each, where it and its content are in the body.
        answers: The decisions with which the input ends.
    """

    def __init__(
        self, *, session: str | None, referenced: Mapping[str, dict[str, Any]] | None = None
    ) -> None:
        """Begin.

        Args:
            session: Id of the session that has the history; then only new items may come. None if
                the input has it.
            referenced: Items by their ids.
        """
        self._referenced = referenced or {}
        self.messages: list[ChatMessage] = []
        self.paths: list[tuple[str, str]] = []
        self.answers: list[Answer] = []
        self._session = session
        self._in_session = session is not None
        self._calling = False  # the last message is made of calls, to which others may come

    def instruct(self, text: str) -> None:
        """Begin with instructions."""
        self._add(ChatMessage("system", text), "instructions", "instructions")

    def read(self, given: str | list[dict[str, Any]], *, most: int) -> None:
        """Read the input.

        Args:
            given: As sent.
            most: Items that it may have.

        Raises:
            InvalidField: An item is not valid, or not offered.
        """
        if isinstance(given, str):
            self._add(ChatMessage("user", given), "input", "input")
            return
        if not 1 <= len(given) <= most:
            raise InvalidField(f"There must be 1 to {most}.", field="input")
        for index, each in enumerate(given):
            self._item(each, f"input[{index}]")
        self._check_session()

    def _item(self, item: dict[str, Any], path: str) -> None:
        kind = _kind(item)
        if kind == "message":
            self._message(converted(item, MessageItem, path), path)
        elif kind == "function_call":
            self._call(converted(item, CallItem, path), path)
        elif kind == "function_call_output":
            self._output(converted(item, OutputItem, path), path)
        elif kind == "mcp_approval_response":
            self._decision(converted(item, DecisionItem, path), path)
        elif kind == "item_reference":
            self._reference(item.get("id"), path)
        elif kind not in _LEFT_OUT:
            raise InvalidField("Items of this type are not offered.", field=f"{path}.type")

    def _reference(self, name: object, path: str) -> None:
        if not isinstance(name, str):
            raise InvalidField("Must have a type, a role or an id.", field=path)
        if name.startswith(_LEFT_OUT_IDS):
            return
        if self._in_session and session_of(turn_of_item(name)) == self._session:
            return  # the session has it
        if (item := self._referenced.get(name)) is None:
            raise InvalidField("There is no such item for this caller.", field=f"{path}.id")
        self._item(item, path)

    def _message(self, item: MessageItem, path: str) -> None:
        if self._in_session and item.role == "assistant":
            raise InvalidField(
                "The conversation has its history; only what is new is sent.", field=path
            )
        self._calling = False
        self.answers.clear()  # they were for a turn that is over
        content: str | list[Part]
        if isinstance(item.content, list):
            content = _contents(item.content, item.role, f"{path}.content")
        else:
            content = item.content
        before = self.messages[-1] if self.messages else None
        self._add(ChatMessage(item.role, content), path, f"{path}.content")
        if self._in_session and item.role == "user" and before is not None:
            self._join(before)

    def _join(self, before: ChatMessage) -> None:
        """Make one message of two of the user that are both new."""
        if before.role != "user":
            return
        message = self.messages.pop()
        where = self.paths.pop()
        parts = [*_parts(before), _SEPARATOR, *_parts(message)]
        self.messages[-1], self.paths[-1] = ChatMessage("user", parts), where

    def _call(self, item: CallItem, path: str) -> None:
        if self._in_session:
            return  # the session has it
        made = ChatCall(item.call_id, "function", CalledFunction(item.name, item.arguments))
        if self._calling:
            last = self.messages[-1]
            calls = [*(last.tool_calls or ()), made]
            self.messages[-1] = ChatMessage("assistant", last.content, tool_calls=calls)
            return
        self._calling = True
        self._add(ChatMessage("assistant", tool_calls=[made]), path, path)

    def _output(self, item: OutputItem, path: str) -> None:
        self._calling = False
        content = item.output
        if isinstance(content, list):
            parts = _contents(content, "tool", f"{path}.output")
            content = "".join(each.text or "" for each in parts if isinstance(each, TextPart))
        self._add(ChatMessage("tool", content, tool_call_id=item.call_id), path, f"{path}.output")

    def _decision(self, item: DecisionItem, path: str) -> None:
        turn, call = approval_wait(item.approval_request_id)
        field, note = f"{path}.approval_request_id", item.reason or ""
        if not turn:
            raise InvalidField("No request for approval has this id.", field=field)
        if len(note) > _MAX_NOTE_CHARACTERS:
            raise InvalidField(
                f"Must be at most {_MAX_NOTE_CHARACTERS} characters.", field=f"{path}.reason"
            )
        verdict = Verdict(decision="approve" if item.approve else "reject", note=note)
        self.answers.append(Answer(wait_id(turn, call), verdict, field))

    def _add(self, message: ChatMessage, path: str, content: str) -> None:
        self.messages.append(message)
        self.paths.append((path, content))

    def _check_session(self) -> None:
        """Check that results and decisions come without a message."""
        roles = [each.role for each in self.messages]
        if self._in_session and "user" in roles and ("tool" in roles or self.answers):
            place = self.paths[roles.index("user")][0]
            raise InvalidField(
                "A message is sent when the response to the results is there.", field=place
            )


def references(given: str | list[dict[str, Any]]) -> set[str]:
    """Ids of the items that an input refers to.

    Args:
        given: As sent.
    """
    return {
        each["id"]
        for each in (given if isinstance(given, list) else ())
        if isinstance(each.get("id"), str) and _kind(each) == "item_reference"
    }


def _kind(item: dict[str, Any]) -> object:
    return item.get("type") or ("message" if "role" in item else "item_reference")


def converted(value: object, kind: type[T], path: str) -> T:
    """A part of a body as its type.

    Args:
        value: As decoded.
        kind: Its type.
        path: Of the part in the body.

    Raises:
        InvalidField: It is not of this type.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        problem = field_error(str(error))
        problem.field = f"{path}.{problem.field}" if problem.field else path
        raise problem from error


def _contents(content: list[dict[str, Any]], role: str, path: str) -> list[Part]:
    """The parts of a content."""
    parts: list[Part] = []
    for index, each in enumerate(content):
        kind, place = each.get("type"), f"{path}[{index}]"
        texts = ("output_text", "input_text") if role == "assistant" else ("input_text",)
        if kind in texts:
            parts.append(TextPart(converted(each, TextContent, place).text))
        elif kind == "refusal" and role == "assistant":
            parts.append(RefusalPart(converted(each, RefusalContent, place).refusal))
        elif kind == "input_image" and role == "user":
            parts.append(_image(converted(each, ImageContent, place)))
        elif kind == "input_file" and role == "user":
            parts.append(_file(converted(each, FileContent, place), place))
        else:
            raise InvalidField(
                f"Contents of this type are not offered in a message of the {role}.",
                field=f"{place}.type",
            )
    return parts


def _image(image: ImageContent) -> Part:
    if image.file_id is not None:
        return FilePart(ChatFile(file_id=image.file_id))
    return ImagePart(ImageAddress(image.image_url or ""))


def _file(file: FileContent, path: str) -> Part:
    if file.file_url is not None:
        raise InvalidField(
            "Addresses are not fetched: send file_data, or the file_id of an upload.",
            field=f"{path}.file_url",
        )
    return FilePart(ChatFile(file.file_data, file.file_id, file.filename))


def _parts(message: ChatMessage) -> list[Part]:
    content = message.content
    return content if isinstance(content, list) else [TextPart(content)]
