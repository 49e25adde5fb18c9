"""`/v1/sessions`: list, show and delete the caller's own sessions."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from seawall.errors import DeadlineExceeded, InvalidField, SessionNotFound
from seawall.hosts.http.exchange import Exchange
from seawall.storage.port import Session
from seawall.turn import AssistantMessage, Principal, SessionKey, ToolCall, TurnRecord

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["authenticated_owner", "delete_session", "list_sessions", "show_session"]

_PAGE = 50
_MAX_PAGE = 200


async def list_sessions(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    """`GET /v1/sessions?limit=&cursor=`: most recently opened first."""
    owner = await authenticated_owner(orchestrator, exchange)
    limit, cursor = _page(exchange)
    async with _deadline(orchestrator):
        page = await orchestrator.engine.store.sessions(owner, limit=limit, cursor=cursor)
    listed = [_public_fields(session) for session in page.sessions]
    await exchange.answer({"sessions": listed, "cursor": page.cursor})


async def show_session(orchestrator: "Orchestrator", exchange: Exchange, session: str) -> None:
    """`GET /v1/sessions/{id}?limit=&cursor=`: the session and its turns, newest first."""
    owner = await authenticated_owner(orchestrator, exchange)
    limit, cursor = _page(exchange)
    async with _deadline(orchestrator):
        page = await orchestrator.engine.store.turns(
            _key(owner, session), limit=limit, cursor=cursor
        )
    turns = [_without_provider_data(each) for each in page.turns]
    await exchange.answer(_public_fields(page.session) | {"turns": turns, "cursor": page.cursor})


async def delete_session(orchestrator: "Orchestrator", exchange: Exchange, session: str) -> None:
    """`DELETE /v1/sessions/{id}`: deletes the session and its turns."""
    owner = await authenticated_owner(orchestrator, exchange)
    async with _deadline(orchestrator):
        await orchestrator.engine.store.delete(_key(owner, session))
    await exchange.no_content()


async def authenticated_owner(orchestrator: "Orchestrator", exchange: Exchange) -> Principal:
    """Authenticate the caller.

    Raises:
        Unauthenticated: The credential is missing or invalid.
    """
    async with _deadline(orchestrator):
        owner = await orchestrator.engine.authenticator.authenticate(exchange.credential())
    exchange.request.tenant = owner.tenant
    return owner


@asynccontextmanager
async def _deadline(orchestrator: "Orchestrator") -> AsyncGenerator[None, None]:
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


def _page(exchange: Exchange) -> tuple[int, str | None]:
    query = exchange.query()
    limit = query.get("limit", str(_PAGE))
    if not (limit.isdecimal() and len(limit) <= 4 and 1 <= int(limit) <= _MAX_PAGE):
        raise InvalidField(f"Must be a number from 1 to {_MAX_PAGE}.", field="limit")
    return int(limit), query.get("cursor")


def _without_provider_data(turn: TurnRecord) -> TurnRecord:
    """A turn without the data that only its model's provider uses."""
    messages = tuple(
        msgspec.structs.replace(
            each,
            tool_calls=tuple(
                ToolCall(call.id, call.name, call.arguments) for call in each.tool_calls
            ),
        )
        if type(each) is AssistantMessage and each.tool_calls
        else each
        for each in turn.messages
    )
    return msgspec.structs.replace(turn, messages=messages)


def _public_fields(session: Session) -> dict[str, object]:
    """A session as its owner may see it; notes of tools are internal."""
    return {
        "session": session.key.session,
        "version": session.version,
        "agent": session.agent,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
        "expires_at": session.expires_at,
    }
