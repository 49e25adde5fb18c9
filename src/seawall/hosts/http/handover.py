"""Answers of people to whom a conversation was handed over."""

from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
from msgspec import Struct, field

from seawall.hosts.http.bodies import decode
from seawall.hosts.http.exchange import Exchange
from seawall.hosts.http.sessions import authenticated_owner
from seawall.pipeline.decisions import hand_back

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["PersonMessage", "post_message"]

_MAX_TEXT_CHARACTERS = 16_384
_MAX_NOTE_CHARACTERS = 2_000
_BACK = "The person has handed the conversation back."


class PersonMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person says about a conversation, and hands back.

    Attributes:
        turn: Id of the turn that waits, as in the notification.
        returns: Written `return`; must be true: the assistant continues.
        text: What its model reads as the result of its call.
        note: Kept in the record; the model does not see it.
    """

    turn: str
    returns: bool = field(name="return")
    text: str = _BACK
    note: str = ""

    def __post_init__(self) -> None:
        if not self.returns:
            raise ValueError("return must be true")
        if len(self.text) > _MAX_TEXT_CHARACTERS:
            raise ValueError(f"text has more than {_MAX_TEXT_CHARACTERS} characters")
        if len(self.note) > _MAX_NOTE_CHARACTERS:
            raise ValueError(f"note has more than {_MAX_NOTE_CHARACTERS} characters")


_decoder = msgspec.json.Decoder(PersonMessage)


async def post_message(orchestrator: "Orchestrator", exchange: Exchange, session: str) -> None:
    """`POST /v1/sessions/{id}/messages`: hand a conversation back; its turn continues.

    Raises:
        TurnNotFound: No such turn of the session waits for a person, or not for this caller.
        Forbidden: The caller does not have the role, or is the customer.
        AlreadyDecided: Another person was first, or it was too late.
    """
    caller = await authenticated_owner(orchestrator, exchange)
    server = orchestrator.settings.server
    received = await exchange.body(limit=server.max_body_bytes, seconds=server.body_seconds)
    body = decode(_decoder, received)
    pipeline = orchestrator.engine.pipeline
    wait = await hand_back(
        pipeline.ports, caller, session, body.turn, text=body.text, note=body.note
    )
    await pipeline.wake(wait)
    await exchange.answer(
        {
            "session": session,
            "turn": wait.turn,
            "status": "returned",
            "events": f"/v1/turns/{quote(wait.turn, safe='')}/events",
        }
    )
