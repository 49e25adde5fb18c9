"""Files in a chat completion: images as data URLs, PDFs and texts as `file` parts or uploads."""

from msgspec import Struct

from seawall.errors import InvalidField
from seawall.hosts.http.attachments import SentFile, sent_file
from seawall.hosts.http.chat_body import ChatBody, ChatMessage, FilePart, ImagePart, has_files
from seawall.turn import TurnRequest, UserMessage

__all__ = ["chat_files"]


class _Place(Struct, frozen=True):
    """Where a message of the body is in the turn request."""

    index: int
    message: int | None


def chat_files(body: ChatBody, request: TurnRequest) -> list[SentFile]:
    """The files of the last message, and those of a history that the client keeps.

    Args:
        body: Of `POST /v1/chat/completions`.
        request: Made from it.

    Raises:
        InvalidField: A part has no file, or the address of one, or is not the user's.
    """
    for index, each in enumerate(body.messages):
        if each.role != "user" and has_files(each):
            raise InvalidField(
                "Only messages of the user may have files.", field=f"messages[{index}].content"
            )
    places = [_Place(len(body.messages) - 1, None)]
    if request.history:
        users = [at for at, each in enumerate(request.history) if isinstance(each, UserMessage)]
        asked = [at for at, each in enumerate(body.messages[:-1]) if _is_kept(each)]
        places = [_Place(*each) for each in zip(asked, users, strict=True)] + places
    return [
        _file(part, f"messages[{place.index}].content[{number}]", place.message)
        for place in places
        if isinstance(content := body.messages[place.index].content, list)
        for number, part in enumerate(content)
        if isinstance(part, ImagePart | FilePart)
    ]


def _is_kept(message: ChatMessage) -> bool:
    return message.role == "user" and (bool(message.text.strip()) or has_files(message))


def _file(part: ImagePart | FilePart, field: str, message: int | None) -> SentFile:
    if isinstance(part, ImagePart):
        return sent_file(part.image_url.url, f"{field}.image_url.url", message=message)
    file, name = part.file, part.file.filename or ""
    if file.file_id:
        return SentFile(f"{field}.file.file_id", file=file.file_id, name=name, message=message)
    if not file.file_data:
        raise InvalidField("Must have file_data or file_id.", field=f"{field}.file")
    field = f"{field}.file.file_data"
    if file.file_data.startswith("data:"):
        return sent_file(file.file_data, field, name=name, message=message)
    return SentFile(field, file.file_data, name=name, message=message)
