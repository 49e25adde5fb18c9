"""Responses by their ids: shown, resumed, cancelled, deleted, and their input.

What is stored is the turn. What a request was repeated of, such as its metadata, is not.
"""

import asyncio
from collections.abc import Collection, Iterator
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
from seawall.hosts.http.client_calls import public_call_id
from seawall.hosts.http.exchange import Exchange
from seawall.hosts.http.responses import earlier_calls, own_tools
from seawall.hosts.http.responses_body import DEFAULTS
from seawall.hosts.http.responses_ids import (
    ResponseKey,
    approval_id,
    response_key,
    turn_of_item,
)
from seawall.hosts.http.responses_stream import SILENT, ResponseStream
from seawall.hosts.http.sessions import authenticated_owner, call_limit
from seawall.hosts.http.turns import EVENT_STREAM, while_connected
from seawall.pipeline.live import FailedTurn
from seawall.pipeline.replay import events_after, find_older, paused, replay
from seawall.storage.port import Begin, JobFailure, turn_of_lease_owner
from seawall.turn import Principal, Resumption, SessionKey, TurnRecord, Usage, UserMessage

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = [
    "cancel_response",
    "delete_response",
    "find_items",
    "input_items",
    "items_of",
    "list_input_items",
    "read_item_page",
    "show_response",
]

_NEWEST_TURNS = 8
_MAX_SEQUENCE_DIGITS = 12
_READS_AT_ONCE = 8
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
    after = query.get("starting_after", "")
    if after and not (stream and after.isdecimal() and len(after) <= _MAX_SEQUENCE_DIGITS):
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
        stream = _stream(orchestrator, key, None)
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
    """`DELETE /v1/responses/{id}`: delete its conversation, if it has no other turn.

    Raises:
        TurnNotFound: There is no such response, or not for this caller.
        SessionBusy: A turn of the conversation is in progress.
        SessionConflict: The conversation has other turns, or the turn another response.
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
    if found.session is None:
        raise TurnNotFound("There is no such response.", field="response_id")
    last = found.turns[-1] if found.turns else None
    if found.session.version != 1 or (last is not None and last.id != key.turn):
        raise SessionConflict(
            f"A turn is not deleted without its conversation: DELETE /v1/sessions/{key.session} "
            "deletes all of it.",
            field="response_id",
        )
    async with call_limit(orchestrator):
        await orchestrator.engine.store.delete(session)
    await exchange.answer({"id": response, "object": "response", "deleted": True})


async def list_input_items(orchestrator: "Orchestrator", exchange: Exchange, response: str) -> None:
    """`GET /v1/responses/{id}/input_items`: what was new in the request.

    Raises:
        TurnNotFound: There is no such response, or not for this caller.
        InvalidField: A parameter is not valid.
    """
    owner = await authenticated_owner(orchestrator, exchange)
    key = response_key(response)
    found = await _find(orchestrator, owner, key)
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
    if (after := query.get("after")) is not None:
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


async def find_items(
    orchestrator: "Orchestrator", exchange: Exchange, wanted: Collection[str]
) -> dict[str, dict[str, Any]]:
    """The items of these ids that are the caller's, by their ids.

    Each turn is read from the store, a few at a time.

    Args:
        orchestrator: Has the store.
        exchange: Of the caller, who is authenticated.
        wanted: Their ids.

    Raises:
        InvalidField: There are too many.
    """
    turns = {turn_of_item(each) for each in wanted} - {""}
    if len(turns) > orchestrator.settings.server.max_messages:
        raise InvalidField("There are too many references to items.", field="input")
    owner = await authenticated_owner(orchestrator, exchange)
    found: dict[str, dict[str, Any]] = {}
    places = asyncio.Semaphore(_READS_AT_ONCE)

    async def read(turn: str) -> None:
        try:
            async with places:
                record = await _find(orchestrator, owner, ResponseKey(turn))
        except TurnNotFound:
            return
        if isinstance(record, TurnRecord):
            found.update((each["id"], each) for each in items_of(orchestrator, record))

    await asyncio.gather(*map(read, turns))
    return found


def items_of(orchestrator: "Orchestrator", turn: TurnRecord) -> list[dict[str, Any]]:
    """All items of a turn, oldest first: those of its requests, and of its responses.

    Args:
        orchestrator: Whose agents it is of.
        turn: The turn.
    """
    items: list[dict[str, Any]] = []
    for key in _keys(turn):
        items += input_items(turn, key)
        stream = _replayed(orchestrator, turn, key)
        stream.end()
        items += stream.response()["output"]
    return items


def input_items(turn: TurnRecord, key: ResponseKey) -> Iterator[dict[str, Any]]:
    """What was new in the request of a response.

    Args:
        turn: The turn.
        key: The response.
    """
    if not key.attempt:
        message = turn.messages[0] if turn.messages else None
        if isinstance(message, UserMessage):
            yield {
                "id": f"msg_{key.suffix}-in",
                "type": "message",
                "role": "user",
                "status": "completed",
                "content": [{"type": "input_text", "text": message.text}],
            }
        return
    resumed = _resumption(turn, key)
    for each in turn.journal.effects if turn.journal is not UNSET and resumed else ():
        request = each.request
        if request is None or request.decision is None or each.call not in resumed.waited:
            continue
        if request.kind == "client":
            call = public_call_id(each.id)
            yield {
                "id": f"fco_{call.removeprefix('call_')}",
                "type": "function_call_output",
                "call_id": call,
                "output": request.decision.result,
                "status": "completed",
            }
        elif request.kind == "approval":
            asked = approval_id(turn.id, each.call)
            yield {
                "id": f"mcpa_{asked.removeprefix('mcpr_')}",
                "type": "mcp_approval_response",
                "approval_request_id": asked,
                "approve": request.decision.verdict in ("approve", "edit"),
                "reason": request.decision.note or None,
            }


def _keys(turn: TurnRecord) -> Iterator[ResponseKey]:
    """The responses of a turn, in order."""
    yield ResponseKey(turn.id)
    for each in turn.journal.resumptions if turn.journal is not UNSET else ():
        if each.waited:
            yield ResponseKey(turn.id, each.attempt)


def _resumption(turn: TurnRecord, key: ResponseKey) -> Resumption | None:
    """The resumption with which a response began."""
    resumptions = turn.journal.resumptions if turn.journal is not UNSET else ()
    later = [each for each in resumptions if each.waited and each.attempt >= key.attempt > 0]
    return later[0] if later else None


async def _find(
    orchestrator: "Orchestrator", owner: Principal, key: ResponseKey
) -> TurnRecord | Problem | None:
    """The turn of a response as it is stored, or why it failed; None while there is none.

    Raises:
        TurnNotFound: It is neither in progress nor stored.
    """
    engine = orchestrator.engine
    live = engine.pipeline.live.find(key.turn, owner)
    if isinstance(live, FailedTurn) and not live.problem.effects:
        return live.problem
    session = SessionKey(owner.tenant, owner.subject, key.session)
    async with call_limit(orchestrator):
        read = Begin(key=session, turn="", turns=_NEWEST_TURNS, until=None)
        found = await engine.store.begin(read)
    for each in found.turns:
        if each.id == key.turn:
            return each
    lease = found.session_lease
    if lease is not None and turn_of_lease_owner(lease.owner) == key.turn:
        return None
    async with call_limit(orchestrator):
        job = await engine.store.find_job(owner, key.turn)
    if isinstance(job, JobFailure):
        return problem_from(job.problem)
    if job is not None:
        return None
    try:
        return await find_older(engine.store, session, key.turn, orchestrator.settings.turn.session)
    except TurnNotFound:
        raise TurnNotFound("There is no such response.", field="response_id") from None


async def _shown(
    orchestrator: "Orchestrator", owner: Principal, key: ResponseKey
) -> dict[str, Any]:
    """A response as far as it is stored."""
    found = await _find(orchestrator, owner, key)
    if not isinstance(found, TurnRecord):
        stream = _stream(orchestrator, key, None)
        stream.begin()
        if found is not None:
            stream.fault(found)
        return stream.response()
    stream = _replayed(orchestrator, found, key)
    if stream.ended:
        stream.end()
    elif found.status == "interrupted" and found.journal is not UNSET:
        stream.fault(problem_from(found.journal.problem))
    elif found.status == "completed":
        raise TurnNotFound("There is no such response.", field="response_id")
    return stream.response()


def _replayed(orchestrator: "Orchestrator", turn: TurnRecord, key: ResponseKey) -> ResponseStream:
    """A response from what is stored of its turn."""
    stream = _stream(orchestrator, key, turn)
    stream.begin()
    happened = False
    for _, event in events_after(replay(turn, key.session), key.after, turn.attempt):
        happened = True
        stream.take(event)
    if not happened and turn.status == "paused" and turn.journal is not UNSET:
        waiting = tuple(each.call for each in turn.journal.effects if each.status == "waiting")
        for event in paused(turn, key.session, waiting):
            stream.take(event)
    return stream


def _stream(
    orchestrator: "Orchestrator", key: ResponseKey, turn: TurnRecord | None, after: int = SILENT
) -> ResponseStream:
    created = {"created_at": int(turn.created_at), "model": turn.agent} if turn is not None else {}
    resumed = _resumption(turn, key) if turn is not None else None
    return ResponseStream(
        key,
        DEFAULTS | created,
        own=own_tools(orchestrator),
        calls=earlier_calls(turn) if turn is not None else None,
        before=resumed.usage if resumed is not None else Usage(),
        after=after,
        reasoning=False,
    )


async def _follow(
    orchestrator: "Orchestrator",
    exchange: Exchange,
    owner: Principal,
    key: ResponseKey,
    *,
    after: int,
) -> None:
    """Stream the events of a response beyond a sequence number."""
    found = await _find(orchestrator, owner, key)
    turn = found if isinstance(found, TurnRecord) else None
    stream = _stream(orchestrator, key, turn, after)

    async def forward() -> None:
        begun = stream.begin() if key.attempt else b""
        events = orchestrator.engine.events(owner, key.turn, after=key.after)
        async with aclosing(events):
            async for _, event in events:
                if not exchange.started:
                    await exchange.start(200, EVENT_STREAM)
                frames, begun = begun + _frames(stream, event), b""
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


def _frames(stream: ResponseStream, event: Event) -> bytes:
    if type(event) is TurnQueued:
        return stream.queue(event)
    return stream.begin() if type(event) is TurnStarted else stream.take(event)


def _flag(query: dict[str, str], name: str) -> bool:
    value = query.get(name, "false").lower()
    if value not in ("true", "false"):
        raise InvalidField("Must be true or false.", field=name)
    return value == "true"
