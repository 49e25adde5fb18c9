"""`/v1/files`: uploads and files of the caller's sessions, in OpenAI's format.

https://platform.openai.com/docs/api-reference/files
"""

import asyncio
from typing import TYPE_CHECKING

from seawall.attachments.media import kind_of
from seawall.errors import InvalidField, NotFound
from seawall.hosts.http.attachments import attachments_of
from seawall.hosts.http.exchange import ClientDisconnected, Exchange
from seawall.hosts.http.sessions import authenticated_owner
from seawall.storage.blobs import BlobInfo

if TYPE_CHECKING:
    from seawall.attachments.intake import Attachments
    from seawall.orchestrator import Orchestrator

__all__ = ["delete_file", "list_files", "show_content", "show_file", "upload_file"]

_PAGE = 50
_MAX_PAGE = 100
_MAX_LIMIT = 10_000  # as OpenAI's API accepts
_BODY_SECONDS = 60.0
_CONTENT_SECONDS = 120.0
_PIECE = 65_536
_LENGTH_DIGITS = 12
# What a customer sent must not run in the origin of the API, whatever a browser takes it for.
_SAFE = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; sandbox"),
    (b"content-disposition", b"attachment"),
    (b"cache-control", b"private, no-store"),
]


async def upload_file(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    """`POST /v1/files`: store a file, for a message of the next hour.

    Raises:
        Unauthenticated: Before the body is read.
        InvalidField: The file is not accepted.
        StorageExhausted: There is no room for it.
        Overloaded: Other uploads take all memory that there is for them.
    """
    from seawall.hosts.http.upload_body import FORM_BYTES, parse_upload  # noqa: PLC0415 - an extra

    attachments = _attachments(orchestrator)
    owner = await authenticated_owner(orchestrator, exchange)
    announced = exchange.headers.get(b"content-length", b"")
    known = announced.isdigit() and len(announced) <= _LENGTH_DIGITS
    encoded = b"content-encoding" in exchange.headers  # what it decodes to may be larger
    async with attachments.transferring(owner, int(announced) if known and not encoded else None):
        body = await exchange.body(
            limit=attachments.settings.max_bytes + FORM_BYTES, seconds=_BODY_SECONDS
        )
        content_type = exchange.headers.get(b"content-type", b"")
        form = await asyncio.to_thread(parse_upload, body, content_type)
        del body
        info = await attachments.upload(owner, form.content, form.name, "file")
    await exchange.answer(_shown(attachments, info))


async def list_files(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    """`GET /v1/files?limit=&after=`: uploads, then files of sessions."""
    attachments = _attachments(orchestrator)
    owner = await authenticated_owner(orchestrator, exchange)
    query = exchange.query()
    limit = query.get("limit", str(_PAGE))
    if not (limit.isdecimal() and len(limit) <= 5 and 1 <= int(limit) <= _MAX_LIMIT):
        raise InvalidField(f"Must be a number from 1 to {_MAX_LIMIT}.", field="limit")
    for name in query.keys() - {"limit", "after"}:
        raise InvalidField("Is not offered; there are limit and after.", field=name[:100])
    page = await attachments.files(
        owner, limit=min(int(limit), _MAX_PAGE), after=query.get("after") or None
    )
    shown = [_shown(attachments, each) for each in page.files]
    await exchange.answer(
        {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": page.has_more,
        }
    )


async def show_file(orchestrator: "Orchestrator", exchange: Exchange, file: str) -> None:
    """`GET /v1/files/{id}`: what is known of a file."""
    attachments = _attachments(orchestrator)
    owner = await authenticated_owner(orchestrator, exchange)
    await exchange.answer(_shown(attachments, await attachments.find(owner, file)))


async def show_content(orchestrator: "Orchestrator", exchange: Exchange, file: str) -> None:
    """`GET /v1/files/{id}/content`: the bytes of a file, as they are stored."""
    attachments = _attachments(orchestrator)
    owner = await authenticated_owner(orchestrator, exchange)
    info = await attachments.find(owner, file)
    async with attachments.transferring(owner, info.bytes):
        found = await attachments.content(owner, file)
        media_type = found.info.media_type.encode()
        if media_type == b"text/plain":
            media_type += b"; charset=utf-8"
        await _send(exchange, found.content, media_type)


async def _send(exchange: Exchange, content: bytes, media_type: bytes) -> None:
    """Send a file in pieces, so that only one of them waits for a client that does not read."""
    length = str(len(content)).encode()
    try:
        async with asyncio.timeout(_CONTENT_SECONDS):
            await exchange.start(
                200, [(b"content-type", media_type), (b"content-length", length), *_SAFE]
            )
            for at in range(0, len(content), _PIECE):
                await exchange.write(content[at : at + _PIECE])
            await exchange.end()
    except TimeoutError as error:
        raise ClientDisconnected from error


async def delete_file(orchestrator: "Orchestrator", exchange: Exchange, file: str) -> None:
    """`DELETE /v1/files/{id}`: delete a file; messages that have it name it from then on."""
    attachments = _attachments(orchestrator)
    owner = await authenticated_owner(orchestrator, exchange)
    await attachments.delete(owner, file)
    await exchange.answer({"id": file, "object": "file", "deleted": True})


def _attachments(orchestrator: "Orchestrator") -> "Attachments":
    attachments = attachments_of(orchestrator)
    if attachments is None:
        raise NotFound("This server takes no files: it has no store for them.")
    return attachments


def _shown(attachments: "Attachments", info: BlobInfo) -> dict[str, object]:
    shown: dict[str, object] = {
        "id": info.key.id,
        "object": "file",
        "bytes": info.bytes,
        "created_at": int(info.created_at),
        "filename": info.name,
        "purpose": "vision" if kind_of(info.media_type) == "image" else "user_data",
        "status": "processed",
        "media_type": info.media_type,
        "session": info.key.session or None,
    }
    expires_at = attachments.expires_at(info)
    if expires_at is not None:
        shown["expires_at"] = int(expires_at)
    return shown
