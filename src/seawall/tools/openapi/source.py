"""A source of tools: the operations of an OpenAPI document, called over HTTP."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import structs

from seawall.errors import ConfigError
from seawall.tools.openapi.answer import answer_text, error_text
from seawall.tools.openapi.document import (
    MAX_DOCUMENT_BYTES,
    Document,
    DocumentFault,
    open_document,
)
from seawall.tools.openapi.operations import Operation, Operations, read_operations
from seawall.tools.openapi.request import UnsendableArgument, build_request
from seawall.tools.port import ToolContext, ToolOutcome
from seawall.tools.remote import RemoteOperation
from seawall.tools.remote_http import AnswerTooLong, RemoteHttp, status_fault
from seawall.tools.select import Selector, compile_select
from seawall.tools.settings import OpenApiSettings
from seawall.tools.upstream import UpstreamFault
from seawall.transport.http_client import BufferedResponse

__all__ = ["OpenApiSource"]

_log = logging.getLogger("seawall.tools")
_SHOWN = 5  # operations that are skipped
_TITLES = {each.value: each.phrase for each in HTTPStatus}
_DOCUMENT_TYPES = b"application/json, application/yaml, */*;q=0.5"


class OpenApiSource:
    """The operations of one document."""

    def __init__(
        self,
        name: str,
        settings: OpenApiSettings,
        *,
        folder: Path,
        http: RemoteHttp,
        documents: RemoteHttp | None = None,
    ) -> None:
        """Create it; nothing is read before it is listed.

        Args:
            name: Of its table, for errors and the log.
            settings: Of its table.
            folder: The one of the configuration, which the document's path is relative to.
            http: The way to `base_url`; owned from now on. What the document says of its server is
                allowed, if that is public.
            documents: The way to the document, without credentials; None for a file.
        """
        self._name = name
        self._settings = settings
        self._folder = folder
        self._http = http
        self._servers: tuple[str, ...] = (settings.base_url,) if settings.base_url else ()
        self._documents = documents

    async def list(self, *, deadline: float) -> tuple[RemoteOperation, ...]:
        """See `ToolSource.list`."""
        settings = self._settings
        try:
            if self._documents is not None:
                document = await self._fetched(self._documents, deadline)
            else:
                path = self._folder / settings.openapi
                document = await asyncio.to_thread(open_document, path)
            found = await asyncio.to_thread(self._operations, document)
        except DocumentFault as fault:
            raise ConfigError(f"tools.{self._name}: {fault}") from None
        if found.skipped:
            _log.warning(
                "tools.%s: %d operations cannot be used: %s",
                self._name,
                len(found.skipped),
                "; ".join(found.skipped[:_SHOWN]),
            )
        if not settings.base_url:
            self._servers = tuple(sorted({each.server for each in found.usable}))
            for server in self._servers:
                self._allow(server)
        return tuple(map(self._listed, found.usable))

    async def connect(self, *, deadline: float) -> None:
        """Connect to the service, which reading its document does not; no request is sent.

        Args:
            deadline: In seconds on the event loop's clock.

        Raises:
            UpstreamFault: It cannot be reached.
        """
        for server in self._servers:
            await self._http.connect(server, deadline=deadline)

    def subscribe(self, changed: Callable[[], None]) -> None:
        """See `ToolSource.subscribe`. A document does not say when it changes."""

    async def close(self) -> None:
        """See `ToolSource.close`."""
        await self._http.close()
        if self._documents is not None:
            await self._documents.close()

    async def _fetched(self, documents: RemoteHttp, deadline: float) -> Document:
        url = self._settings.openapi
        response = await documents.request(
            "GET",
            url,
            headers=((b"accept", _DOCUMENT_TYPES),),
            context=None,
            deadline=deadline,
            limit=MAX_DOCUMENT_BYTES,
        )
        if response.status != HTTPStatus.OK:
            raise status_fault(response) or UpstreamFault(
                "failed", f"the document: status {response.status}"
            )
        return await asyncio.to_thread(Document, url, response.body, None)

    def _operations(self, document: Document) -> Operations:
        settings = self._settings
        own = (settings.session_header, getattr(settings.auth, "header", ""))  # not a model's
        return read_operations(
            document,
            settings.include,
            base_url=settings.base_url,
            location=settings.openapi if self._documents is not None else "",
            headers=(*settings.headers, *own),
            key_header=settings.key_header,
            hidden={
                (place, name)
                for place in ("query", "cookie")
                if (name := getattr(settings.auth, place, ""))
            },
        )

    def _allow(self, server: str) -> None:
        """Allow a server that the document names: its own, or with a file any public one.

        The author of a document must not reach what only this network reaches: `http` refuses
        private addresses when it connects.
        """
        parts = urlsplit(server)
        own = parts[:2] == urlsplit(self._settings.openapi)[:2]
        if not own and (parts.scheme != "https" or self._documents is not None):
            raise ConfigError(
                f"tools.{self._name}: set base_url: the document's server {server[:200]} is not "
                "https, or not where the document is"
            )
        self._http.allow(server)

    def _listed(self, operation: Operation) -> RemoteOperation:
        aliases = tuple(filter(None, (operation.reference, operation.operation_id)))
        changed = self._settings.overrides
        own = next((changed[each] for each in (operation.name, *aliases) if each in changed), None)
        if own is not None and own.changes is not None:  # whether it has an idempotency key
            operation = structs.replace(operation, changes=own.changes)
        expression = self._settings.select
        if own is not None and own.select is not None:
            expression = own.select
        try:
            select = compile_select(expression)
        except ValueError as error:
            raise ConfigError(
                f"tools.{self._name}: select of {operation.name}: {expression!r}: {error}"
            ) from None
        return RemoteOperation(
            name=operation.name,
            aliases=aliases,
            description=operation.description,
            schema=operation.schema,
            changes=operation.changes,
            address="" if self._settings.base_url else operation.server,
            invoke=partial(self._invoke, operation, select),
        )

    async def _invoke(
        self,
        operation: Operation,
        select: Selector | None,
        arguments: dict[str, Any],
        context: ToolContext,
        deadline: float,
    ) -> ToolOutcome:
        """One attempt; see `Invoke`."""
        try:
            request = build_request(operation, arguments, context.idempotency_key)
        except UnsendableArgument as fault:
            return ToolOutcome(f"Invalid arguments for {operation.name}: {fault}", failed=True)
        try:
            response = await self._http.request(
                request.method,
                request.url,
                headers=request.headers,
                body=request.body,
                context=context,
                deadline=deadline,
                effect=operation.changes,
            )
        except AnswerTooLong as fault:  # the rest says the same as with any other answer
            if 200 <= fault.status < 300:
                return _too_long(operation, fault.status, self._settings.max_response_bytes)
            response = BufferedResponse(fault.status, fault.headers, b"")
        if (refusal := status_fault(response)) is not None:
            raise refusal
        if 200 <= response.status < 300:
            limit = self._settings.max_result_bytes
            shown = answer_text(
                response.status, response.headers, response.body, select=select, max_bytes=limit
            )
            return ToolOutcome(shown.text)
        if response.status < 400:
            raise UpstreamFault("failed", f"status {response.status}: a redirect to elsewhere")
        title = _TITLES.get(response.status, "")
        said = error_text(response.status, response.headers, response.body, title)
        return ToolOutcome(said, failed=True)


def _too_long(operation: Operation, status: int, limit: int) -> ToolOutcome:
    """What a model reads of a successful call whose answer is too long to be read."""
    said = f"the answer has more than {limit} bytes, so that it cannot be shown"
    if operation.changes:
        return ToolOutcome(f"Done ({status}), but {said}.")
    return ToolOutcome(f"No result: {said}. Ask for less at once.", failed=True)
