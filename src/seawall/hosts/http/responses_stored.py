"""Responses by their ids: shown, resumed, cancelled, deleted, and their input.

What is stored is the turn. What a request was repeated of, such as its metadata, is not.
"""

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from seawall.errors import (
    InvalidField,
    Problem,
    ServerStopping,
    SessionBusy,
    SessionConflict,
    TurnCancelled,
    TurnNotFound,
    TurnPostponed,
    problem_from,
)
from seawall.events import Event, TurnQueued, TurnStarted
from seawall.hosts.http.conversations import waiting_calls
from seawall.hosts.http.exchange import Exchange
from seawall.hosts.http.responses_ids import (
    ResponseKey,
    response_key,
)
from seawall.hosts.http.responses_stream import ResponseStream
from seawall.hosts.http.responses_turns import (
    find_turn,
    input_items,
    replayed,
    response_keys,
    response_stream,
)
from seawall.hosts.http.sessions import authenticated_owner, call_limit, erase_session
from seawall.hosts.http.turns import EVENT_STREAM, while_connected
from seawall.pipeline.replay import paused
from seawall.storage.port import Begin
from seawall.turn import Principal, SessionKey, TurnRecord

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = [
    "cancel_response",
    "delete_response",
    "list_input_items",
    "read_item_page",
    "show_response",
]

_MAX_SEQUENCE_DIGITS = 12
_MAX_WAITS = 1_000
_PAGE = 20
_MAX_PAGE = 100


async def show_response(orchestrator: "Orchestrator", exchange: Exchange, response: str) -> None:
    """`GET /v1/responses/{id}`: as far as it is; with `stream=true` its events, as they happen.

    Raises:
        TurnNotFound: There is no such response, or not for this caller.
        InvalidField: A parameter is not valid.
    """
    query = exchange.query()
    stream = _flag(query, "stream")
    if _flag(query, "include_obfuscation"):
        raise InvalidField("Obfuscation is not offered.", field="include_obfuscation")
    after = query.get("starting_after")
    if after is not None and not (
        stream and after.isdecimal() and len(after) <= _MAX_SEQUENCE_DIGITS
    ):
        raise InvalidField("Must be a sequence number, with stream=true.", field="starting_after")
    owner = await authenticated_owner(orchestrator, exchange)
    await exchange.body(limit=0, seconds=orchestrator.settings.server.body_seconds)
    key = response_key(response)
    if stream:
        await _follow(orchestrator, exchange, owner, key, after=int(after or -1))
    else:
        await exchange.answer(await _shown(orchestrator, owner, key))


async def cancel_response(orchestrator: "Orchestrator", exchange: Exchange, response: str) -> None:
    """`POST /v1/responses/{id}/cancel`: end a response; one that has ended is shown as it is.

    Raises:
        TurnNotFound: There is no such response, or not for this caller.
        SessionBusy: It is in progress in another process.
    """
    owner = await authenticated_owner(orchestrator, exchange)
    await exchange.body(limit=1_024, seconds=orchestrator.settings.server.body_seconds)
    key = response_key(response)
    if await orchestrator.engine.pipeline.live.cancel(key.turn, owner):
        stream = response_stream(orchestrator, key, None)
        stream.begin()
        stream.fault(TurnCancelled("The turn was cancelled."))
        await exchange.answer(stream.response())
        return
    shown = await _shown(orchestrator, owner, key)
    if shown["status"] == "in_progress":
        raise SessionBusy(
            "This response is in progress in another process, which alone can cancel it.",
            retry_after=1.0,
        )
    await exchange.answer(shown)


async def delete_response(orchestrator: "Orchestrator", exchange: Exchange, response: str) -> None:
    """`DELETE /v1/responses/{id}`: delete its conversation, if it has no other response.

    Raises:
        TurnNotFound: There is no such response, or not for this caller.
        SessionBusy: A turn of the conversation is in progress.
        SessionConflict: The conversation has other responses.
    """
    owner = await authenticated_owner(orchestrator, exchange)
    key = response_key(response)
    session = SessionKey(owner.tenant, owner.subject, key.session)
    async with call_limit(orchestrator):
        found = await orchestrator.engine.store.begin(
            Begin(key=session, turn="", turns=1, until=None)
        )
    if found.session_lease is not None:
        raise SessionBusy("A turn of the conversation is in progress.", retry_after=2.0)
    turn = await find_turn(orchestrator, owner, key)
    keys = list(response_keys(turn)) if isinstance(turn, TurnRecord) else []
    if found.session is None or key not in keys:
        raise TurnNotFound("There is no such response.", field="response_id")
    if found.session.version != 1 or len(keys) != 1:
        raise SessionConflict(
            "A response is not deleted without its conversation: "
            f"DELETE /v1/sessions/{key.session} deletes all of it.",
            field="response_id",
        )
    await erase_session(orchestrator, session)
    await exchange.answer({"id": response, "object": "response", "deleted": True})


async def list_input_items(orchestrator: "Orchestrator", exchange: Exchange, response: str) -> None:
    """`GET /v1/responses/{id}/input_items`: what was new in the request.

    Raises:
        TurnNotFound: There is no such response, or not for this caller.
        InvalidField: A parameter is not valid.
    """
    owner = await authenticated_owner(orchestrator, exchange)
    key = response_key(response)
    found = await find_turn(orchestrator, owner, key)
    items = list(input_items(found, key)) if isinstance(found, TurnRecord) else []
    await exchange.answer(read_item_page(exchange, items))


def read_item_page(exchange: Exchange, items: list[dict[str, Any]]) -> dict[str, Any]:
    """The page of a list of items that is requested.

    Args:
        exchange: With the parameters `limit`, `order` and `after`.
        items: All, oldest first.

    Raises:
        InvalidField: A parameter is not valid.
    """
    query = exchange.query()
    limit, order = query.get("limit", str(_PAGE)), query.get("order", "desc")
    if not (limit.isdecimal() and len(limit) <= 4 and 1 <= int(limit) <= _MAX_PAGE):
        raise InvalidField(f"Must be a number from 1 to {_MAX_PAGE}.", field="limit")
    if order not in ("asc", "desc"):
        raise InvalidField("Must be asc or desc.", field="order")
    listed = items if order == "asc" else items[::-1]
    if after := query.get("after"):
        places = [index for index, each in enumerate(listed) if each["id"] == after]
        if not places:
            raise InvalidField("Must be the id of an item of this list.", field="after")
        listed = listed[places[0] + 1 :]
    page = listed[: int(limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else "",
        "last_id": page[-1]["id"] if page else "",
        "has_more": len(listed) > len(page),
    }


async def _shown(
    orchestrator: "Orchestrator", owner: Principal, key: ResponseKey
) -> dict[str, Any]:
    """A response as far as it is stored."""
    found = await find_turn(orchestrator, owner, key)
    if not isinstance(found, TurnRecord):
        stream = response_stream(orchestrator, key, None)
        stream.begin()
        if found is not None:
            stream.fault(found)
        return stream.response()
    stream = replayed(orchestrator, found, key)
    if stream.ended:
        stream.end()
    elif found.status == "interrupted" and found.journal is not UNSET:
        stream.fault(problem_from(found.journal.problem))
    elif found.status == "paused" and await _waits(orchestrator, owner, found):
        for event in paused(found, key.session, waiting_calls(found)):  # one of several decisions
            stream.take(event)
        stream.end()
    return stream.response()


async def _waits(orchestrator: "Orchestrator", owner: Principal, turn: TurnRecord) -> bool:
    """Whether a turn that has paused still waits; if not, it is about to continue, or does."""
    calls = waiting_calls(turn)
    async with call_limit(orchestrator):
        page = await orchestrator.engine.store.waits(owner.tenant, turn=turn.id, limit=_MAX_WAITS)
    return any(each.decision is None and each.call in calls for each in page.waits)


async def _follow(
    orchestrator: "Orchestrator",
    exchange: Exchange,
    owner: Principal,
    key: ResponseKey,
    *,
    after: int,
) -> None:
    """Stream the events of a response beyond a sequence number."""
    found = await find_turn(orchestrator, owner, key)
    turn = found if isinstance(found, TurnRecord) else None
    stream = response_stream(orchestrator, key, turn, after)
    if isinstance(found, Problem):  # of its events nothing is stored
        await exchange.start(200, EVENT_STREAM)
        await exchange.end(stream.begin() + stream.fail(found))
        return

    async def forward() -> None:
        begun = stream.begin() if key.attempt else b""
        events = orchestrator.engine.events(owner, key.turn, after=key.after)
        async with aclosing(events):
            async for position, event in events:
                if not exchange.started:
                    await exchange.start(200, EVENT_STREAM)
                frames, begun = begun + _frames(stream, event, position), b""
                if frames:
                    await exchange.write(frames)
                if stream.paused:
                    return

    try:
        await while_connected(exchange, forward())
    except Problem as problem:
        if not exchange.started:
            raise
        broken = isinstance(problem, ServerStopping | TurnPostponed)
        await exchange.end(b"" if broken else stream.fail(problem))
        return
    if not stream.ended:
        raise TurnNotFound("There is no such response.", field="response_id")
    await exchange.end(stream.end())


def _frames(stream: ResponseStream, event: Event, position: int) -> bytes:
    if type(event) is TurnQueued:
        return stream.queue(event)
    if type(event) is TurnStarted:  # perhaps of an attempt after an interruption
        return stream.begin(first=position - 1)
    return stream.take(event)


def _flag(query: dict[str, str], name: str) -> bool:
    value = query.get(name, "false").lower()
    if value not in ("true", "false"):
        raise InvalidField("Must be true or false.", field=name)
    return value == "true"
