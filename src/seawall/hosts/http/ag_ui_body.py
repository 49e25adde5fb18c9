"""The body of a run of AG-UI, `RunAgentInput`: decoded, validated."""

from typing import Any, Literal

from msgspec import Struct

from seawall.config import ServerSettings
from seawall.errors import InvalidField
from seawall.hosts.http.bodies import checked_key, checked_text, identifier
from seawall.hosts.http.client_tools import client_tools, tool_definitions
from seawall.hosts.http.conversations import Answer
from seawall.pipeline.decisions import Verdict
from seawall.turn import AnswerOptions

__all__ = [
    "AgUiBody",
    "AgUiFile",
    "Resume",
    "check_run",
    "resumed",
    "run_options",
    "run_results",
    "run_text",
]

_MAX_RUN_CHARACTERS = 128
_MAX_RESUME = 100
_MAX_NOTE_CHARACTERS = 2_000


class AgUiMessage(Struct, frozen=True, rename="camel"):
    """A message; of those before the last, only the role is read.

    Attributes:
        role: Whose it is.
        content: A text, or a list of parts.
        tool_call_id: Of the result of a tool.
        error: What went wrong with the tool.
    """

    role: str
    content: Any = None
    tool_call_id: str | None = None
    error: str | None = None


class AgUiFile(Struct, frozen=True):
    """A file of a message: one of its bytes in Base64, the id of an upload, and an address."""

    field: str
    name: str
    data: str = ""
    file: str = ""
    url: str = ""


class Resume(Struct, frozen=True, rename="camel"):
    """The answer to an interrupt."""

    interrupt_id: str
    status: Literal["resolved", "cancelled"]
    payload: Any = None


class ForwardedProps(Struct, frozen=True):
    """What an application adds for this server; other members belong to others.

    Attributes:
        background: The turn is completed even if the client disconnects.
    """

    background: bool | None = None


class AgUiBody(Struct, frozen=True, rename="camel"):
    """The body of `POST /v1/ag-ui`. A null field counts as absent.

    Attributes:
        thread_id: That of the session.
        run_id: Makes a retry return the first answer.
        messages: The last one counts: the history comes from the session.
        tools: Tools that the client runs, for agents that take them.
        context: Empty: instructions belong to the agents.
        state: Empty: the session has it.
        forwarded_props: Of this server.
        resume: Answers to the interrupts of the run before.
    """

    thread_id: str
    run_id: str
    messages: list[AgUiMessage]
    tools: list[Any] | None = None
    context: list[Any] | None = None
    state: Any = None
    forwarded_props: ForwardedProps | None = None
    resume: list[Resume] | None = None


def check_run(body: AgUiBody, settings: ServerSettings) -> None:
    """Check what is common to all runs.

    Args:
        body: Of the run.
        settings: Their limits apply.

    Raises:
        InvalidField: A value is outside its limits, or requests an unsupported feature.
    """
    identifier(body.thread_id, "threadId")
    if len(body.run_id) > _MAX_RUN_CHARACTERS:
        raise InvalidField(f"Must be at most {_MAX_RUN_CHARACTERS} characters.", field="runId")
    checked_key(body.run_id, "runId")
    if len(body.messages) > settings.max_messages:
        raise InvalidField(f"There must be at most {settings.max_messages}.", field="messages")
    if body.context:
        raise InvalidField("Instructions belong to the agents.", field="context")
    if body.state not in (None, {}, [], ""):
        raise InvalidField("A client has no state here: the session has it.", field="state")
    if len(body.resume or ()) > _MAX_RESUME:
        raise InvalidField(f"There must be at most {_MAX_RESUME}.", field="resume")


def run_options(body: AgUiBody) -> AnswerOptions | None:
    """What the client brings to the turn; None for nothing.

    Args:
        body: Of the run.

    Raises:
        InvalidField: A tool is not valid.
    """
    if not body.tools:
        return None
    return AnswerOptions(tools=client_tools(tool_definitions(body.tools, "tools"), "tools"))


def run_results(body: AgUiBody) -> dict[str, tuple[str, bool, str]]:
    """The results with which the messages end, of calls that the client has run.

    Args:
        body: Of the run.

    Returns:
        By id of the call: its content, whether it is an error, and its path in the body.

    Raises:
        InvalidField: A result names no call, or is no text.
    """
    found: dict[str, tuple[str, bool, str]] = {}
    for index in range(len(body.messages) - 1, -1, -1):
        message = body.messages[index]
        if message.role != "tool":
            break
        field = f"messages[{index}]"
        if not message.tool_call_id or message.tool_call_id in found:
            raise InvalidField(
                "Must be the id of a call that has no other result.", field=f"{field}.toolCallId"
            )
        content = message.error or message.content
        if not isinstance(content, str):
            raise InvalidField("Must be a text.", field=f"{field}.content")
        found[message.tool_call_id] = (content, bool(message.error), f"{field}.content")
    return found


def run_text(body: AgUiBody, settings: ServerSettings) -> tuple[str, list[AgUiFile]]:
    """The text of the last message, which is the user's, and its files.

    Args:
        body: Of the run.
        settings: Their limits apply.

    Raises:
        InvalidField: There is none, or it has something else than text and files.
    """
    if not body.messages:
        raise InvalidField("There must be a message.", field="messages")
    field = f"messages[{len(body.messages) - 1}]"
    message = body.messages[-1]
    if message.role != "user":
        raise InvalidField("The last message must be the user's.", field=f"{field}.role")
    content = message.content
    files: list[AgUiFile] = []
    if isinstance(content, list):
        texts: list[str] = []
        for index, part in enumerate(content):
            where = f"{field}.content[{index}]"
            text = part.get("text") if isinstance(part, dict) else None
            if isinstance(part, dict) and part.get("type") in ("image", "document"):
                files.append(_file(part, where))
            elif isinstance(text, str) and part.get("type") == "text":
                texts.append(text)
            else:
                raise InvalidField("Must be text, an image or a document.", field=where)
        content = "".join(texts)
    if not isinstance(content, str):
        raise InvalidField("Must be a text, or a list of parts.", field=f"{field}.content")
    return checked_text(content, f"{field}.content", settings, required=not files), files


def _file(part: dict[str, Any], field: str) -> AgUiFile:
    """The file of a part: its bytes, a data URL, or the id of an upload."""
    source = part.get("source")
    value = source.get("value") if isinstance(source, dict) else None
    if not isinstance(source, dict) or not isinstance(value, str):
        raise InvalidField("Must have a value.", field=f"{field}.source")
    where, kind = f"{field}.source.value", source.get("type")
    metadata = part.get("metadata")
    named = metadata.get("filename") if isinstance(metadata, dict) else None
    name = named if isinstance(named, str) else ""
    if kind == "data":
        return AgUiFile(where, name, data=value)
    if kind == "file":
        return AgUiFile(where, name, file=value)
    return AgUiFile(where, name, url=value)


def resumed(resume: Resume, field: str) -> Answer | None:
    """The decision in an answer to an interrupt; None if it was for others to decide.

    Args:
        resume: The answer.
        field: Its path in the body.

    Raises:
        InvalidField: The payload is not what the interrupt asked for.
    """
    turn, _, call = resume.interrupt_id.partition("/")
    kind, _, rest = call.partition("/")
    where = f"{field}.interruptId"
    if kind == "other":
        return None
    if kind == "approval":
        return Answer(f"{turn}/{rest}", _approval(resume, f"{field}.payload"), where)
    number, _, call = rest.partition("/")
    if kind != "input" or not (number.isdecimal() and len(number) <= 6):
        raise InvalidField("There is no interrupt of this id.", field=where)
    return Answer(f"{turn}/{call}", _input(resume, int(number), f"{field}.payload"), where)


def _approval(resume: Resume, field: str) -> Verdict:
    if resume.status == "cancelled":
        return Verdict(decision="reject", note="The user has not answered.")
    payload = resume.payload if isinstance(resume.payload, dict) else {}
    approved, edited = payload.get("approved"), payload.get("editedArgs")
    note = payload.get("reason", "")
    if type(approved) is not bool:
        raise InvalidField("Must be true or false.", field=f"{field}.approved")
    if not isinstance(note, str) or len(note) > _MAX_NOTE_CHARACTERS:
        raise InvalidField(
            f"Must be a text of at most {_MAX_NOTE_CHARACTERS} characters.", field=f"{field}.reason"
        )
    if edited is None or not approved:
        return Verdict(decision="approve" if approved else "reject", note=note)
    if not isinstance(edited, dict):
        raise InvalidField("Must be an object.", field=f"{field}.editedArgs")
    return Verdict(decision="edit", arguments=edited, note=note)


def _input(resume: Resume, number: int, field: str) -> Verdict:
    if resume.status == "cancelled":
        return Verdict(decision="cancel", question=number)
    if resume.payload is None:
        return Verdict(decision="accept", question=number)
    if not isinstance(resume.payload, dict):
        raise InvalidField("Must be an object.", field=field)
    return Verdict(decision="accept", question=number, content=resume.payload)
