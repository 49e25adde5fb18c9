"""Responses of turns as they are stored: found, replayed, and as items."""

import asyncio
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from seawall.agents import HAND_OFF
from seawall.errors import InvalidField, Problem, TurnNotFound, problem_from
from seawall.hosts.http.client_calls import public_call_id
from seawall.hosts.http.conversations import next_attempt, resumed_with
from seawall.hosts.http.exchange import Exchange
from seawall.hosts.http.responses_body import DEFAULTS
from seawall.hosts.http.responses_ids import ResponseKey, approval_id, turn_of_item
from seawall.hosts.http.responses_stream import SILENT, ResponseStream
from seawall.hosts.http.sessions import authenticated_owner, call_limit
from seawall.pipeline.live import FailedTurn
from seawall.pipeline.replay import events_after, find_older, replay
from seawall.storage.port import Begin, JobFailure, turn_of_lease_owner
from seawall.turn import (
    AssistantMessage,
    Principal,
    Resumption,
    SessionKey,
    TurnRecord,
    Usage,
    UserMessage,
)

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = [
    "check_response",
    "earlier_calls",
    "find_items",
    "find_turn",
    "input_items",
    "items_of",
    "own_tools",
    "replayed",
    "response_keys",
    "response_stream",
]

_NEWEST_TURNS = 8
_READS_AT_ONCE = 8


def own_tools(orchestrator: "Orchestrator") -> set[str]:
    """Names of the agents' own tools."""
    agents = orchestrator.engine.agents.values()
    return {HAND_OFF}.union(*(each.tools for each in agents))


def earlier_calls(turn: TurnRecord) -> dict[str, dict[str, str]]:
    """The calls of own tools of a turn so far, by their ids; see `ResponseStream`.

    Args:
        turn: The turn.
    """
    calls = {
        call.id: {"arguments": call.arguments}
        for message in turn.messages
        if isinstance(message, AssistantMessage)
        for call in message.tool_calls
    }
    for each in turn.journal.effects if turn.journal is not UNSET else ():
        calls[each.call] = call = {"arguments": each.shown or each.arguments}
        if each.request is None:
            continue
        if each.request.kind == "client":
            del calls[each.call]
        elif each.request.kind == "approval" and each.request.role is None:
            call["approval_request_id"] = approval_id(turn.id, each.call)
    return calls


async def find_turn(
    orchestrator: "Orchestrator", owner: Principal, key: ResponseKey
) -> TurnRecord | Problem | None:
    """The turn of a response as it is stored, or why it failed; None while there is none.

    Args:
        orchestrator: Has the store.
        owner: Whose turn it must be.
        key: The response.

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
            check_response(each, key)
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
        older = await find_older(
            engine.store, session, key.turn, orchestrator.settings.turn.session
        )
    except TurnNotFound:
        raise TurnNotFound("There is no such response.", field="response_id") from None
    check_response(older, key)
    return older


async def find_items(
    orchestrator: "Orchestrator", exchange: Exchange, wanted: Collection[str]
) -> dict[str, dict[str, Any]]:
    """The items of these ids that are the caller's, by their ids.

    Each turn is read from the store, a few at a time; all of them within the time for one call.

    Args:
        orchestrator: Has the store.
        exchange: Of the caller, who is authenticated.
        wanted: Their ids.

    Raises:
        InvalidField: There are too many.
        DeadlineExceeded: The store did not answer in time.
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
                record = await find_turn(orchestrator, owner, ResponseKey(turn))
        except TurnNotFound:
            return
        if isinstance(record, TurnRecord):
            items = items_of(orchestrator, record)
            found.update((each["id"], each) for each in items if each["id"] in wanted)

    async with call_limit(orchestrator):
        await asyncio.gather(*map(read, turns))
    return found


def items_of(orchestrator: "Orchestrator", turn: TurnRecord) -> list[dict[str, Any]]:
    """All items of a turn, oldest first: those of its requests, and of its responses.

    A call that the turn has paused for more than once is one item.

    Args:
        orchestrator: Whose agents it is of.
        turn: The turn.
    """
    items: dict[str, dict[str, Any]] = {}
    for key in response_keys(turn):
        stream = replayed(orchestrator, turn, key)
        stream.end()
        for each in (*input_items(turn, key), *stream.response()["output"]):
            items.setdefault(each["id"], each)
    return list(items.values())


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
                "content": list(_contents(message)),
            }
        return
    resumed = _resumption(turn, key)
    waited = resumed.waited if resumed is not None else ()
    for each in turn.journal.effects if turn.journal is not UNSET else ():
        request = each.request
        if request is None or request.decision is None or each.call not in waited:
            continue
        if resumed_with(turn, {each.call}) != resumed:
            continue  # it was decided later; the turn has paused for it again
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


def _contents(message: UserMessage) -> Iterator[dict[str, Any]]:
    if message.text:
        yield {"type": "input_text", "text": message.text}
    for each in message.attachments:
        if each.media_type.startswith("image/"):
            yield {"type": "input_image", "file_id": each.id, "detail": "auto"}
        else:
            yield {"type": "input_file", "file_id": each.id, "filename": each.name}


def response_keys(turn: TurnRecord) -> Iterator[ResponseKey]:
    """The responses of a turn, in order.

    Args:
        turn: The turn.
    """
    yield ResponseKey(turn.id)
    for each in turn.journal.resumptions if turn.journal is not UNSET else ():
        if each.waited:
            yield ResponseKey(turn.id, each.attempt)


def check_response(turn: TurnRecord, key: ResponseKey, field: str = "response_id") -> None:
    """Check that a response is one of its turn, or may be the next of one that goes on.

    Args:
        turn: The turn.
        key: The response.
        field: Path of its id in the request.

    Raises:
        TurnNotFound: It is not.
    """
    over = turn.status == "completed" or key.attempt > next_attempt(turn)
    if over and key not in response_keys(turn):
        raise TurnNotFound("There is no such response.", field=field)


def _resumption(turn: TurnRecord, key: ResponseKey) -> Resumption | None:
    """The resumption with which a response began."""
    resumptions = turn.journal.resumptions if turn.journal is not UNSET else ()
    later = [each for each in resumptions if each.waited and each.attempt >= key.attempt > 0]
    return later[0] if later else None


def replayed(orchestrator: "Orchestrator", turn: TurnRecord, key: ResponseKey) -> ResponseStream:
    """A response from what is stored of its turn.

    Args:
        orchestrator: Whose agents it is of.
        turn: The turn.
        key: The response.
    """
    stream = response_stream(orchestrator, key, turn)
    stream.begin()
    for _, event in events_after(replay(turn, key.session), key.after, turn.attempt):
        stream.take(event)
    return stream


def response_stream(
    orchestrator: "Orchestrator", key: ResponseKey, turn: TurnRecord | None, after: int = SILENT
) -> ResponseStream:
    """A response of which nothing has happened yet.

    Args:
        orchestrator: Whose agents it is of.
        key: The response.
        turn: The turn; None if it is not known.
        after: As of `ResponseStream`.
    """
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
