"""`/v1/conversations`: sessions as OpenAI's conversations.

A conversation is the session of its name. It is stored with its first response; what is in it comes
from responses alone.
"""

import re
import time
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from seawall.errors import InvalidField, NotFound, SessionNotFound
from seawall.hosts.http.bodies import decode, is_identifier
from seawall.hosts.http.exchange import Exchange
from seawall.hosts.http.responses_stored import read_item_page
from seawall.hosts.http.responses_turns import items_of
from seawall.hosts.http.sessions import authenticated_owner, call_limit, erase_session
from seawall.requests import new_session_id, time_of
from seawall.storage.port import Session
from seawall.turn import Principal, SessionKey, TurnRecord

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = [
    "add_conversation_items",
    "create_conversation",
    "delete_conversation",
    "list_conversation_items",
    "show_conversation",
    "show_conversation_item",
    "update_conversation",
]

_MAX_TURNS = 200
_ITEMS = "Items come from responses alone: those of the conversation that a response names."
_minted = re.compile(r"conv_([0-9a-f]{32})\Z")


class ConversationBody(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request for a conversation."""

    items: list[Any] | None = None
    metadata: dict[str, str] | None = None

    def check(self) -> None:
        """Reject by name what is not offered."""
        if self.items:
            raise InvalidField(_ITEMS, field="items")
        if self.metadata:
            raise InvalidField("Metadata of conversations are not stored.", field="metadata")


_decoder = msgspec.json.Decoder(ConversationBody)


async def create_conversation(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    """`POST /v1/conversations`: the name of a new conversation."""
    await authenticated_owner(orchestrator, exchange)
    await _check_body(orchestrator, exchange)
    name = "conv_" + new_session_id().removeprefix("ses_")
    await exchange.answer(_shown(name, time.time()))


async def show_conversation(
    orchestrator: "Orchestrator", exchange: Exchange, conversation: str
) -> None:
    """`GET /v1/conversations/{id}`.

    Raises:
        NotFound: There is none of this name for this caller.
    """
    owner = await authenticated_owner(orchestrator, exchange)
    session, _ = await _turns(orchestrator, owner, conversation, limit=1)
    await exchange.answer(_shown(conversation, _created(conversation, session)))


async def update_conversation(
    orchestrator: "Orchestrator", exchange: Exchange, conversation: str
) -> None:
    """`POST /v1/conversations/{id}`: there is nothing that could be changed.

    Raises:
        InvalidField: The body has metadata.
    """
    owner = await authenticated_owner(orchestrator, exchange)
    await _check_body(orchestrator, exchange)
    session, _ = await _turns(orchestrator, owner, conversation, limit=1)
    await exchange.answer(_shown(conversation, _created(conversation, session)))


async def delete_conversation(
    orchestrator: "Orchestrator", exchange: Exchange, conversation: str
) -> None:
    """`DELETE /v1/conversations/{id}`: deletes the session with its turns.

    Raises:
        NotFound: There is none of this name for this caller.
    """
    owner = await authenticated_owner(orchestrator, exchange)
    try:
        await erase_session(orchestrator, _key(owner, conversation))
    except SessionNotFound:
        _created(conversation, None)
    await exchange.answer({"id": conversation, "object": "conversation.deleted", "deleted": True})


async def list_conversation_items(
    orchestrator: "Orchestrator", exchange: Exchange, conversation: str
) -> None:
    """`GET /v1/conversations/{id}/items`: those of its newest turns.

    Raises:
        NotFound: There is none of this name for this caller.
        InvalidField: A parameter is not valid.
    """
    owner = await authenticated_owner(orchestrator, exchange)
    items = await _items(orchestrator, owner, conversation)
    await exchange.answer(read_item_page(exchange, items))


async def show_conversation_item(
    orchestrator: "Orchestrator", exchange: Exchange, conversation: str, item: str
) -> None:
    """`GET /v1/conversations/{id}/items/{item}`: one of those that are listed.

    Raises:
        NotFound: There is none of this id.
    """
    owner = await authenticated_owner(orchestrator, exchange)
    for each in await _items(orchestrator, owner, conversation):
        if each["id"] == item:
            await exchange.answer(each)
            return
    raise NotFound("There is no item of this id in this conversation.", field="item_id")


async def add_conversation_items(
    orchestrator: "Orchestrator", exchange: Exchange, conversation: str
) -> None:
    """`POST /v1/conversations/{id}/items`: always refused.

    Raises:
        InvalidField: Always.
    """
    del conversation
    await authenticated_owner(orchestrator, exchange)
    raise InvalidField(_ITEMS, field="items")


async def _check_body(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    settings = orchestrator.settings.server
    raw = await exchange.body(limit=settings.max_body_bytes, seconds=settings.body_seconds)
    decode(_decoder, raw or b"{}").check()


async def _items(
    orchestrator: "Orchestrator", owner: Principal, conversation: str
) -> list[dict[str, Any]]:
    """The items of the newest turns, oldest first."""
    session, turns = await _turns(orchestrator, owner, conversation, limit=_MAX_TURNS)
    _created(conversation, session)
    return [each for turn in reversed(turns) for each in items_of(orchestrator, turn)]


async def _turns(
    orchestrator: "Orchestrator", owner: Principal, conversation: str, *, limit: int
) -> tuple[Session | None, tuple[TurnRecord, ...]]:
    """The session, and its newest turns, newest first; None without a turn."""
    try:
        async with call_limit(orchestrator):
            page = await orchestrator.engine.store.turns(_key(owner, conversation), limit=limit)
    except SessionNotFound:
        return None, ()
    return page.session, page.turns


def _key(owner: Principal, conversation: str) -> SessionKey:
    if not is_identifier(conversation):
        raise _missing()
    return SessionKey(owner.tenant, owner.subject, conversation)


def _created(conversation: str, session: Session | None) -> float:
    """When a conversation was created; of one without turns, by its name."""
    if session is not None:
        return session.created_at
    if (found := _minted.match(conversation)) is None:
        raise _missing()
    return time_of(found[1])


def _missing() -> NotFound:
    return NotFound("There is no conversation of this name.", field="conversation_id")


def _shown(conversation: str, created_at: float) -> dict[str, Any]:
    return {
        "id": conversation,
        "object": "conversation",
        "created_at": int(created_at),
        "metadata": {},
    }
