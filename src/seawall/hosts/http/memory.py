"""`/v1/memory`: what is remembered of the caller: listed, corrected and deleted by the caller."""

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from seawall.errors import Forbidden
from seawall.hosts.http.bodies import decode
from seawall.hosts.http.exchange import Exchange
from seawall.hosts.http.sessions import authenticated_owner, call_limit
from seawall.identity import is_anonymous
from seawall.storage import memory_edits
from seawall.turn import Principal

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = [
    "CorrectionBody",
    "correct_fact",
    "delete_fact",
    "delete_memory",
    "list_memory",
    "show_fact",
]


class CorrectionBody(Struct, frozen=True, forbid_unknown_fields=True):
    """The right text of a fact."""

    text: str


_decoder = msgspec.json.Decoder(CorrectionBody)


async def list_memory(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    """`GET /v1/memory`: all facts about the caller, that which was remembered first first."""
    owner = await _owner(orchestrator, exchange)
    async with call_limit(orchestrator):
        facts = await memory_edits.list_facts(orchestrator.engine.store, owner)
    await exchange.answer({"facts": [memory_edits.fact_fields(each) for each in facts]})


async def show_fact(orchestrator: "Orchestrator", exchange: Exchange, fact: str) -> None:
    """`GET /v1/memory/{id}`: a fact.

    Raises:
        NotFound: There is none of this id about the caller.
    """
    owner = await _owner(orchestrator, exchange)
    async with call_limit(orchestrator):
        found = await memory_edits.show_fact(orchestrator.engine.store, owner, fact)
    await exchange.answer(memory_edits.fact_fields(found))


async def correct_fact(orchestrator: "Orchestrator", exchange: Exchange, fact: str) -> None:
    """`PATCH /v1/memory/{id}`: replace the text of a fact.

    Raises:
        NotFound: There is none of this id about the caller.
        InvalidField: The text is outside a limit of `[memory]`.
    """
    owner = await _owner(orchestrator, exchange)
    settings = orchestrator.settings
    limit, seconds = settings.server.max_body_bytes, settings.server.body_seconds
    body = decode(_decoder, await exchange.body(limit=limit, seconds=seconds))
    async with call_limit(orchestrator):
        corrected = await memory_edits.correct_fact(
            orchestrator.engine.store, owner, fact, body.text, settings=settings.memory
        )
    await exchange.answer(memory_edits.fact_fields(corrected))


async def delete_fact(orchestrator: "Orchestrator", exchange: Exchange, fact: str) -> None:
    """`DELETE /v1/memory/{id}`: delete a fact.

    Raises:
        NotFound: There is none of this id about the caller.
    """
    owner = await _owner(orchestrator, exchange)
    async with call_limit(orchestrator):
        await memory_edits.delete_fact(
            orchestrator.engine.store, owner, fact, by="subject", name=owner.subject
        )
    await exchange.no_content()


async def delete_memory(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    """`DELETE /v1/memory`: delete all facts about the caller."""
    owner = await _owner(orchestrator, exchange)
    async with call_limit(orchestrator):
        await memory_edits.delete_all_facts(
            orchestrator.engine.store, owner, by="subject", name=owner.subject
        )
    await exchange.no_content()


async def _owner(orchestrator: "Orchestrator", exchange: Exchange) -> Principal:
    """The caller.

    Raises:
        Unauthenticated: The credential is missing or invalid.
        Forbidden: It is one of all callers without a credential.
    """
    owner = await authenticated_owner(orchestrator, exchange)
    if is_anonymous(owner):
        raise Forbidden("Callers without a credential have no memory: they are one subject.")
    return owner
