"""Requests to a server, whatever the way and the version: listings in pages, results in rounds."""

from contextlib import nullcontext
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct, structs

from seawall.tools.mcp.elicitation import Elicitations, InputRequest, InputRequired
from seawall.tools.mcp.jsonrpc import INVALID_PARAMS, URL_REQUIRED, RpcError
from seawall.tools.mcp.wire import Request, Wire
from seawall.tools.port import ToolContext
from seawall.tools.upstream import UpstreamFault, after_sending
from seawall.turn import PendingInput

__all__ = ["McpClient"]

T = TypeVar("T")

_MAX_PAGES = 100
_MAX_LISTING_BYTES = 16 << 20
_MAX_ROUNDS = 5
_MAX_INPUTS = 16  # that a server asks for in one round


class _Interim(Struct, rename="camel"):
    result_type: str = "complete"
    input_requests: dict[str, InputRequest] = {}
    request_state: str | None = None


class McpClient:
    """A client of one server."""

    def __init__(
        self,
        wire: Wire,
        source: str = "",
        *,
        elicitation: bool | None = None,
        redact: tuple[str, ...] = (),
    ) -> None:
        """Create it; nothing is sent before it is used.

        Args:
            wire: The way to the server.
            source: Name of the source.
            elicitation: See `McpSettings.elicitation`.
            redact: Fields of forms whose values are not shown in records.
        """
        self._wire = wire
        self._source = source
        self._elicitation = elicitation
        self._redact = redact

    async def list_all(
        self, method: str, member: str, *, context: ToolContext | None, deadline: float, most: int
    ) -> tuple[list[Raw], bool]:
        """All that a server lists, page by page.

        Args:
            method: Of the listing.
            member: Of its results that has the items.
            context: The turn; None outside of turns.
            deadline: In seconds on the event loop's clock.
            most: Items that are wanted.

        Returns:
            The items, and whether they are all.

        Raises:
            RpcError: The server answered with an error.
            UpstreamFault: It did not answer, or not with a listing.
        """
        items: list[Raw] = []
        cursors: set[str] = set()
        params: dict[str, Any] = {}
        size = 0
        while True:
            request = Request(method, params)
            result = await self._wire.request(request, context=context, deadline=deadline)
            size += len(result)
            page = _decode(result, dict[str, Raw])
            items += _decode(page.get(member, Raw(b"[]")), list[Raw])
            cursor = _decode(page.get("nextCursor", Raw(b"null")), str | None)
            if len(items) > most or (cursor is not None and len(cursors) >= _MAX_PAGES):
                return items[:most], False
            if cursor is None:
                return items, True
            if cursor in cursors:
                raise UpstreamFault("broken", f"{method} repeats a page")
            if size > _MAX_LISTING_BYTES:
                raise UpstreamFault("broken", f"{method} exceeds {_MAX_LISTING_BYTES} bytes")
            cursors.add(cursor)
            params = {"cursor": cursor}

    async def complete(
        self, request: Request, result: type[T], *, context: ToolContext, deadline: float
    ) -> tuple[T, tuple[str, ...]]:
        """Send a request until its result is complete.

        A server may need something before it continues. What it asks the user makes the turn pause
        where it can; else it is declined, and the server continues without, or fails.

        Args:
            request: The request.
            result: The type of its result.
            context: The turn; it may have answers to what was asked before.
            deadline: In seconds on the event loop's clock.

        Returns:
            The result, and what the server asked for and was declined.

        Raises:
            InputRequired: The user is asked.
            RpcError: The server answered with an error.
            UpstreamFault: It did not answer, or not with such a result.
        """
        elicitations = Elicitations(
            context, source=self._source, setting=self._elicitation, redact=self._redact
        )
        given = context.given
        request = fresh = structs.replace(request, elicitations=elicitations)
        if given is not None and not given.in_place:
            params = _with_responses(request.params, given.responses, given.state)
            request = structs.replace(request, params=params)
        for number in range(_MAX_ROUNDS):
            try:
                with after_sending() if number else nullcontext():
                    reply = await self._wire.request(request, context=context, deadline=deadline)
            except RpcError as error:
                if error.code == URL_REQUIRED:
                    elicitations.take_pages(error)
                if (pending := elicitations.pending()) is not None:
                    raise InputRequired(pending) from None
                if error.code == INVALID_PARAMS and request is not fresh and not number:
                    request = fresh  # what it wanted back is too old for it: it asks again
                    continue
                raise
            if (pending := elicitations.pending()) is not None:
                raise InputRequired(pending)
            interim = _decode(reply, _Interim)
            if interim.result_type == "complete":
                return _decode(reply, result), tuple(elicitations.asked)
            if interim.result_type != "input_required":
                kind = interim.result_type[:40]
                raise UpstreamFault("broken", f"a result of the unknown type {kind!r}")
            params = _next_round(request.params, interim, elicitations)
            request = structs.replace(request, params=params)
        raise UpstreamFault("broken", f"it asks for something more than {_MAX_ROUNDS} times")


def _next_round(
    params: dict[str, Any], interim: _Interim, elicitations: Elicitations
) -> dict[str, Any]:
    """The parameters of the next round, in which all is declined.

    Raises:
        InputRequired: The user is asked instead.
    """
    if len(interim.input_requests) > _MAX_INPUTS:
        raise UpstreamFault("broken", f"it asks for more than {_MAX_INPUTS} things at once")
    try:
        found = elicitations.of_round(interim.input_requests, interim.request_state)
    except RpcError as error:
        raise UpstreamFault("broken", f"it asks for what was not offered: {error}") from None
    if isinstance(found, PendingInput):
        raise InputRequired(found)
    return _with_responses(params, found, interim.request_state)


def _with_responses(
    params: dict[str, Any], responses: dict[str, Any], state: str | None
) -> dict[str, Any]:
    params = {**params}
    params.pop("inputResponses", None)
    params.pop("requestState", None)
    if responses:
        params["inputResponses"] = responses
    if state is not None:
        params["requestState"] = state
    return params


def _decode(data: Raw, kind: Any) -> Any:  # noqa: ANN401 - what the type says
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UpstreamFault("broken", f"an invalid result: {error}") from None
