"""`/v1/sessions`: list, show and delete the caller's own sessions."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from seawall.errors import DeadlineExceeded, InvalidField, SessionNotFound
from seawall.hosts.http.exchange import Exchange
from seawall.storage.port import Session
from seawall.turn import (
    ApprovalRequest,
    AssistantMessage,
    Cost,
    Effect,
    Message,
    Principal,
    SessionKey,
    ToolCall,
    TurnRecord,
    Usage,
)

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = [
    "SessionTurn",
    "authenticated_owner",
    "call_limit",
    "delete_session",
    "erase_session",
    "list_sessions",
    "public_fields",
    "read_page",
    "show_session",
    "shown_turn",
]

_PAGE = 50
_MAX_PAGE = 200


class SessionEffect(Struct, frozen=True, kw_only=True):
    """An effect of a turn, as the session's owner sees it; see `Effect`.

    `arguments` are redacted as the tool declares.
    """

    id: str
    call: str
    tool: str
    agent: str
    arguments: str
    status: str
    began_at: float
    ended_at: float
    request: ApprovalRequest | UnsetType = UNSET


class SessionTurn(Struct, frozen=True, kw_only=True):
    """A turn of a session, as its owner sees it; see `TurnRecord`.

    Attributes:
        status: "completed", or of a turn with effects "open", "paused" or "interrupted".
        effects: Of a turn with effects.
        problem: Why it was interrupted.
        during: Of what was said while a person had the conversation: the id of the hand-over, as
            `wait` in its notifications.
    """

    id: str
    number: int
    created_at: float
    status: str
    agent: str
    intent: str | None
    messages: tuple[Message, ...]
    usage: Usage
    confidence: float
    by: str
    first_agent: str
    reason: str
    attempt: int
    cost: Cost | UnsetType = UNSET
    finish_reason: str
    effects: tuple[SessionEffect, ...] | UnsetType = UNSET
    problem: dict[str, Any] | UnsetType = UNSET
    during: str | UnsetType = UNSET


async def list_sessions(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    """`GET /v1/sessions?limit=&cursor=`: most recently opened first."""
    owner = await authenticated_owner(orchestrator, exchange)
    limit, cursor = read_page(exchange)
    async with call_limit(orchestrator):
        page = await orchestrator.engine.store.sessions(owner, limit=limit, cursor=cursor)
    listed = [public_fields(session) for session in page.sessions]
    await exchange.answer({"sessions": listed, "cursor": page.cursor})


async def show_session(orchestrator: "Orchestrator", exchange: Exchange, session: str) -> None:
    """`GET /v1/sessions/{id}?limit=&cursor=`: the session and its turns, newest first."""
    owner = await authenticated_owner(orchestrator, exchange)
    limit, cursor = read_page(exchange)
    async with call_limit(orchestrator):
        page = await orchestrator.engine.store.turns(
            _key(owner, session), limit=limit, cursor=cursor
        )
    turns = [shown_turn(each) for each in page.turns]
    await exchange.answer(public_fields(page.session) | {"turns": turns, "cursor": page.cursor})


async def delete_session(orchestrator: "Orchestrator", exchange: Exchange, session: str) -> None:
    """`DELETE /v1/sessions/{id}`: deletes the session, its turns and its files."""
    owner = await authenticated_owner(orchestrator, exchange)
    await erase_session(orchestrator, _key(owner, session))
    await exchange.no_content()


async def erase_session(orchestrator: "Orchestrator", key: SessionKey) -> None:
    """Delete a session, its turns and its files.

    Args:
        orchestrator: Has the stores.
        key: The session.

    Raises:
        SessionNotFound: There is none.
    """
    async with call_limit(orchestrator):
        await orchestrator.engine.store.delete(key)
        if orchestrator.engine.files is not None:
            await orchestrator.engine.files.store.delete_session(key)


async def authenticated_owner(orchestrator: "Orchestrator", exchange: Exchange) -> Principal:
    """Authenticate the caller.

    Raises:
        Unauthenticated: The credential is missing or invalid.
    """
    async with call_limit(orchestrator):
        owner = await orchestrator.engine.authenticator.authenticate(exchange.credential())
    exchange.request.tenant = owner.tenant
    return owner


@asynccontextmanager
async def call_limit(orchestrator: "Orchestrator") -> AsyncGenerator[None, None]:
    """The time limit of a call of the store.

    Raises:
        DeadlineExceeded: The block took longer.
    """
    seconds = orchestrator.settings.turn.session
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(f"There was no answer after {seconds:g} s.") from error


def _key(owner: Principal, session: str) -> SessionKey:
    if not 1 <= len(session) <= 64:
        raise SessionNotFound
    return SessionKey(owner.tenant, owner.subject, session)


def read_page(exchange: Exchange) -> tuple[int, str | None]:
    """Size and cursor of the requested page.

    Raises:
        InvalidField: The size is out of range.
    """
    query = exchange.query()
    limit = query.get("limit", str(_PAGE))
    if not (limit.isdecimal() and len(limit) <= 4 and 1 <= int(limit) <= _MAX_PAGE):
        raise InvalidField(f"Must be a number from 1 to {_MAX_PAGE}.", field="limit")
    return int(limit), query.get("cursor") or None


def shown_turn(turn: TurnRecord) -> SessionTurn:
    """A turn as its owner may see it."""
    journal = turn.journal if turn.journal is not UNSET else None
    stored = turn.messages if journal is None else (*turn.messages, *journal.outcomes)
    return SessionTurn(
        id=turn.id,
        number=turn.number,
        created_at=turn.created_at,
        status=turn.status,
        agent=turn.agent,
        intent=turn.intent,
        messages=tuple(map(_without_provider_data, stored)),
        usage=turn.usage,
        confidence=turn.confidence,
        by=turn.by,
        first_agent=turn.first_agent,
        reason=turn.reason,
        attempt=turn.attempt,
        cost=turn.cost,
        finish_reason=turn.finish_reason,
        effects=_shown_effects(turn),
        problem=journal.problem or UNSET if journal is not None else UNSET,
        during=turn.during,
    )


def _shown_effects(turn: TurnRecord) -> tuple[SessionEffect, ...] | UnsetType:
    if turn.journal is UNSET or turn.during is not UNSET:
        return UNSET
    return tuple(map(_shown_effect, turn.journal.effects))


def _shown_effect(effect: Effect) -> SessionEffect:
    request = effect.request
    if request is not None and request.decision is not None and effect.shown:
        decision = msgspec.structs.replace(request.decision, arguments="")
        request = msgspec.structs.replace(request, decision=decision)
    return SessionEffect(
        id=effect.id,
        call=effect.call,
        tool=effect.tool,
        agent=effect.agent,
        arguments=effect.shown or effect.arguments,
        status=effect.status,
        began_at=effect.began_at,
        ended_at=effect.ended_at,
        request=request if request is not None else UNSET,
    )


def _without_provider_data(message: Message) -> Message:
    """A message without the data that only its model's provider uses."""
    if type(message) is not AssistantMessage or not message.tool_calls:
        return message
    calls = tuple(ToolCall(each.id, each.name, each.arguments) for each in message.tool_calls)
    return msgspec.structs.replace(message, tool_calls=calls)


def public_fields(session: Session) -> dict[str, object]:
    """A session as its owner may see it; notes of tools are internal."""
    return {
        "session": session.key.session,
        "version": session.version,
        "agent": session.agent,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
        "expires_at": session.expires_at,
    }
