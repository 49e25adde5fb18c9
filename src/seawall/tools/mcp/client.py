"""Requests to a server, whatever the way and the version: listings in pages, results in rounds."""

from contextlib import nullcontext
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct, structs

from seawall.tools.mcp.jsonrpc import RpcError
from seawall.tools.mcp.protocol import decline
from seawall.tools.mcp.wire import Request, Wire
from seawall.tools.port import ToolContext
from seawall.tools.upstream import UpstreamFault, after_sending

__all__ = ["McpClient"]

T = TypeVar("T")

_MAX_PAGES = 100
_MAX_LISTING_BYTES = 16 << 20
_MAX_ROUNDS = 5
_MAX_INPUTS = 16  # that a server asks for in one round


class _InputRequest(Struct):
    method: str
    params: Raw = Raw()


class _Interim(Struct, rename="camel"):
    result_type: str = "complete"
    input_requests: dict[str, _InputRequest] = {}
    request_state: str | None = None


class McpClient:
    """A client of one server."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

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
            reply = await self._wire.request(request, context=context, deadline=deadline)
            size += len(reply.result)
            page = _decode(reply.result, dict[str, Raw])
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

        A modern server may answer that it needs something before it continues. Nothing of it can be
        given here, so it is declined, and the server continues without, or fails.

        Args:
            request: The request.
            result: The type of its result.
            context: The turn.
            deadline: In seconds on the event loop's clock.

        Returns:
            The result, and what the server asked for.

        Raises:
            RpcError: The server answered with an error.
            UpstreamFault: It did not answer, or not with such a result.
        """
        asked: list[str] = []
        for number in range(_MAX_ROUNDS):
            with after_sending() if number else nullcontext():
                reply = await self._wire.request(request, context=context, deadline=deadline)
            asked += reply.asked
            interim = _decode(reply.result, _Interim)
            if interim.result_type == "complete":
                return _decode(reply.result, result), tuple(asked)
            if interim.result_type != "input_required":
                kind = interim.result_type[:40]
                raise UpstreamFault("broken", f"a result of the unknown type {kind!r}")
            request = structs.replace(request, params=_next_round(request, interim, asked))
        raise UpstreamFault("broken", f"it asks for something more than {_MAX_ROUNDS} times")


def _next_round(request: Request, interim: _Interim, asked: list[str]) -> dict[str, Any]:
    """The parameters of the next round."""
    params = {**request.params}
    params.pop("inputResponses", None)
    params.pop("requestState", None)
    if len(interim.input_requests) > _MAX_INPUTS:
        raise UpstreamFault("broken", f"it asks for more than {_MAX_INPUTS} things at once")
    if interim.input_requests:
        try:
            params["inputResponses"] = {
                key: decline(each.method, each.params, asked)
                for key, each in interim.input_requests.items()
            }
        except RpcError as error:
            raise UpstreamFault("broken", f"it asks for what was not offered: {error}") from None
    if interim.request_state is not None:
        params["requestState"] = interim.request_state
    return params


def _decode(data: Raw, kind: Any) -> Any:  # noqa: ANN401 - what the type says
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UpstreamFault("broken", f"an invalid result: {error}") from None
