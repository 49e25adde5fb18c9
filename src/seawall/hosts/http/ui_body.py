"""The body of a request of the AI SDK's chat transport: decoded, validated."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from seawall.config import ServerSettings
from seawall.errors import InvalidField
from seawall.hosts.http.bodies import checked_key, checked_text, identifier
from seawall.hosts.http.client_tools import client_options
from seawall.hosts.http.conversations import Answer
from seawall.pipeline.decisions import Verdict
from seawall.turn import AnswerOptions

__all__ = [
    "UiBody",
    "UiFile",
    "UiMessage",
    "answers_of",
    "newest_message",
    "results_of",
    "text_of",
]

_MAX_MESSAGE_ID_CHARACTERS = 128
_RETURNED = ("output-available", "output-error")


class UiApproval(Struct, frozen=True):
    """A decision about a call; without `approved`, it is still to be taken."""

    id: str
    approved: bool | None = None
    reason: Annotated[str, Meta(max_length=2_000)] | None = None


class UiPart(
    Struct,
    frozen=True,
    rename={
        "call": "toolCallId",
        "error": "errorText",
        "executed": "providerExecuted",
    },
):
    """A part of a message: what is read of any kind of part.

    Attributes:
        type: Its kind.
        text: Of a text.
        state: Of a call, among others.
        approval: Of a call that needs one.
        call: Id of a call.
        output: Its result, any JSON.
        error: Its error.
        executed: Whether it was executed here, not by the client.
        url: Of a file: a data URL, or the id of an upload.
        filename: Of a file.
    """

    type: str
    text: str | None = None
    state: str | None = None
    approval: UiApproval | None = None
    call: str | None = None
    output: Any = None
    error: str | None = None
    executed: bool | None = None
    url: str | None = None
    filename: str | None = None


class UiFile(Struct, frozen=True):
    """A file of a message: its path in the body, its data URL or the id of an upload, its name."""

    field: str
    url: str
    name: str


class UiMessage(Struct, frozen=True):
    """A message as the AI SDK has it."""

    role: Literal["system", "user", "assistant"]
    parts: list[UiPart]
    id: str = ""


class UiBody(Struct, frozen=True, rename={"message_id": "messageId"}):
    """The body of `POST /v1/ui/chat`. A null field counts as absent.

    Attributes:
        id: Of the chat; that of the session.
        messages: The last one counts: the history comes from the session.
        trigger: Why it was sent.
        message_id: Of an answer whose calls were decided.
        agent: The agent that answers.
        background: The turn is completed even if the client disconnects.
        tools: As in `TurnBody`; so are the following.
        tool_choice: Of the first model call.
        parallel_tool_calls: Whether one step may have several calls.
        instructions: Of the client.
    """

    id: str
    messages: list[UiMessage]
    trigger: Literal["submit-message", "regenerate-message"] | None = None
    message_id: str | None = None
    agent: str | None = None
    background: bool | None = None
    tools: list[Any] | None = None
    tool_choice: str | None = None
    parallel_tool_calls: bool | None = None
    instructions: str | None = None

    def options(self, settings: ServerSettings) -> AnswerOptions | None:
        """What the client brings to the turn; None for nothing.

        Raises:
            InvalidField: It is not valid.
        """
        return client_options(
            self.tools,
            self.tool_choice,
            parallel=self.parallel_tool_calls,
            instructions=self.instructions,
            settings=settings,
        )


def newest_message(body: UiBody, settings: ServerSettings) -> tuple[int, UiMessage]:
    """The message that a request is about, with its index.

    Args:
        body: Of the request.
        settings: Their limits apply.

    Raises:
        InvalidField: There is none, there are too many, or a name is not one.
    """
    identifier(body.id, "id")
    identifier(body.agent, "agent")
    if not 1 <= len(body.messages) <= settings.max_messages:
        raise InvalidField(f"There must be 1 to {settings.max_messages}.", field="messages")
    index = len(body.messages) - 1
    for earlier, message in enumerate(body.messages):
        if message.role == "assistant" and message.id and message.id == body.message_id:
            index = earlier if body.trigger != "regenerate-message" else index
    message = body.messages[index]
    if message.role == "system":
        raise InvalidField("Instructions belong to the agents.", field=f"messages[{index}].role")
    return index, message


def text_of(
    message: UiMessage, index: int, settings: ServerSettings
) -> tuple[str, str, list[UiFile]]:
    """The text of a user's message, the idempotency key that is made of its id, and its files.

    Args:
        message: Of the user.
        index: Its index.
        settings: Their limits apply.

    Raises:
        InvalidField: It has something else than text and files, or no id.
    """
    field = f"messages[{index}]"
    parts: list[str] = []
    files: list[UiFile] = []
    for number, part in enumerate(message.parts):
        where = f"{field}.parts[{number}]"
        if part.type == "file":
            files.append(UiFile(f"{where}.url", part.url or "", part.filename or ""))
        elif part.type == "text":
            parts.append(part.text or "")
        else:
            raise InvalidField("Must be text, or a file.", field=f"{where}.type")
    if len(message.id) > _MAX_MESSAGE_ID_CHARACTERS:
        raise InvalidField(
            f"Must be at most {_MAX_MESSAGE_ID_CHARACTERS} characters.", field=f"{field}.id"
        )
    key = checked_key(message.id, f"{field}.id")
    text = checked_text("".join(parts), f"{field}.parts", settings, required=not files)
    return text, key, files


def results_of(message: UiMessage, index: int) -> dict[str, tuple[str, bool, str]]:
    """Results of calls that the client has run, in an answer that it sends back.

    Args:
        message: Of the assistant.
        index: Its index.

    Returns:
        By id of the call: its content, whether it is an error, and its path in the body.

    Raises:
        InvalidField: A call has two results.
    """
    found: dict[str, tuple[str, bool, str]] = {}
    for number, part in enumerate(message.parts):
        if part.call is None or part.executed or part.state not in _RETURNED:
            continue
        path = f"messages[{index}].parts[{number}]"
        if part.call in found:
            raise InvalidField("There is another result of this call.", field=f"{path}.toolCallId")
        if part.state == "output-error":
            found[part.call] = (part.error or "It failed.", True, f"{path}.errorText")
        else:
            found[part.call] = (_text_of_output(part.output), False, f"{path}.output")
    return found


def _text_of_output(output: object) -> str:
    """A text as it is, anything else as JSON."""
    return output if isinstance(output, str) else msgspec.json.encode(output).decode()


def answers_of(message: UiMessage, index: int) -> list[Answer]:
    """The decisions in an answer that the client sends back; empty for none.

    Args:
        message: Of the assistant.
        index: Its index.

    Raises:
        InvalidField: A decision is missing.
    """
    field = f"messages[{index}]"
    answers: list[Answer] = []
    for number, part in enumerate(message.parts):
        approval = part.approval
        if part.state != "approval-responded" or approval is None:
            continue
        where = f"{field}.parts[{number}].approval"
        if approval.approved is None:
            raise InvalidField("Must be true or false.", field=f"{where}.approved")
        verdict = Verdict(
            decision="approve" if approval.approved else "reject", note=approval.reason or ""
        )
        answers.append(Answer(approval.id, verdict, f"{where}.id"))
    return answers
