"""Files in requests: what a face has found in a message becomes attachments of its turn.

A face translates its own format to `SentFile`, and leaves the rest to `with_attachments`: who asks
is authenticated before a file is looked at, files are checked and stored, and the turn has their
ids only.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from seawall.errors import InvalidField
from seawall.hosts.http.bodies import AttachedFile
from seawall.hosts.http.exchange import Exchange
from seawall.hosts.http.sessions import authenticated_owner
from seawall.turn import Attachment, TurnRequest, UserMessage

if TYPE_CHECKING:
    from seawall.attachments.intake import Attachments
    from seawall.orchestrator import Orchestrator

__all__ = [
    "SentFile",
    "attachments_of",
    "file_at",
    "sent_file",
    "with_attachments",
    "with_turn_files",
]

_data_url = re.compile(r"data:([^;,]{0,127})((?:;[^;,]{1,200})*?);base64,", re.IGNORECASE)
_NOT_CONFIGURED = "This server takes no files: it has no store for them."


class SentFile(Struct, frozen=True):
    """A file in a request: its bytes, or the id of an upload.

    Attributes:
        field: Its path in the body, for errors.
        data: Its bytes in Base64; empty with `file`.
        file: Id of an upload, or of a file of this session; empty with `data`.
        name: As the client calls it.
        message: Index of its message in the request's history; None for the newest message.
    """

    field: str
    data: str = ""
    file: str = ""
    name: str = ""
    message: int | None = None


def sent_file(url: str, field: str, *, name: str = "", message: int | None = None) -> SentFile:
    """The file of a data URL.

    Args:
        url: As sent.
        field: Its path in the body.
        name: As the client calls it.
        message: As of `SentFile`.

    Raises:
        InvalidField: It is no data URL in Base64. Other addresses are not fetched.
    """
    found = _data_url.match(url[:1_024])
    if found is None:
        raise InvalidField(
            "Must be a data URL in Base64 (data:image/png;base64,…), or the id of an upload of "
            "/v1/files: addresses are not fetched.",
            field=field,
        )
    return SentFile(field, url[found.end() :], name=name, message=message)


def file_at(url: str, field: str, *, name: str = "") -> SentFile:
    """The file of a data URL, or of an upload whose id is sent in its place.

    Args:
        url: As sent.
        field: Its path in the body.
        name: As the client calls it.

    Raises:
        InvalidField: It is another address: those are not fetched.
    """
    if url.startswith("file-"):
        return SentFile(field, file=url, name=name)
    return sent_file(url, field, name=name)


def attachments_of(orchestrator: "Orchestrator") -> "Attachments | None":
    """What takes files; None where no store for them is configured."""
    files = orchestrator.engine.files
    return files.intake if files is not None else None


async def with_turn_files(
    orchestrator: "Orchestrator",
    exchange: Exchange,
    request: TurnRequest,
    files: Sequence[AttachedFile],
) -> TurnRequest:
    """The request of `POST /v1/turns` with its files; see `with_attachments` for what it raises."""
    sent: list[SentFile] = []
    for index, each in enumerate(files):
        field = f"attachments[{index}]"
        if (each.file is None) == (each.data is None):
            raise InvalidField("Must have either file or data.", field=field)
        if each.data is not None:
            sent.append(sent_file(each.data, f"{field}.data", name=each.name or ""))
        else:
            sent.append(SentFile(f"{field}.file", file=each.file or "", name=each.name or ""))
    return await with_attachments(orchestrator, exchange, request, sent)


async def with_attachments(
    orchestrator: "Orchestrator",
    exchange: Exchange,
    request: TurnRequest,
    sent: Sequence[SentFile],
) -> TurnRequest:
    """The turn request with its files, which are checked and stored.

    Args:
        orchestrator: Has the store.
        exchange: Of the client, who is authenticated if there are files.
        request: Without its files.
        sent: The files, in their order.

    Raises:
        Unauthenticated: The credential is missing or invalid.
        InvalidField: A file is not accepted, or there are too many; its field is named.
        UnknownFile: There is no such upload for this caller.
        StorageExhausted: There is no room for it.
    """
    if not sent:
        return request
    attachments = attachments_of(orchestrator)
    if attachments is None:
        raise InvalidField(_NOT_CONFIGURED, field=sent[0].field)
    owner = await authenticated_owner(orchestrator, exchange)
    made: dict[int | None, list[Attachment]] = {}
    counted: dict[int | None, int] = {}
    for number, each in enumerate(sent, 1):
        counted[each.message] = counted.get(each.message, 0) + 1
        attachments.check_count(counted[each.message], number, each.field)
    for each in sent:
        stored = await attachments.attach(
            owner,
            # A client that keeps its history has a new session each time, and one file for all.
            request.session if each.message is None else "",
            data=each.data,
            file=each.file,
            name=each.name,
            field=each.field,
        )
        made.setdefault(each.message, []).append(stored)
        attachments.check_together(made[each.message], each.field)
    history = tuple(
        UserMessage(each.text, tuple(made[index]))
        if index in made and isinstance(each, UserMessage)
        else each
        for index, each in enumerate(request.history)
    )
    return msgspec.structs.replace(request, attachments=tuple(made.get(None, ())), history=history)
