"""Messages of people to whom a conversation was handed over."""

from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
from msgspec import Struct, field

from seawall.hosts.http.bodies import decode, idempotency_key
from seawall.hosts.http.effects import shown_wait
from seawall.hosts.http.exchange import Exchange
from seawall.hosts.http.sessions import authenticated_owner, read_page
from seawall.pipeline.decisions import hand_back, list_waits, may_decide
from seawall.pipeline.handover import add_message

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["PersonMessage", "list_handovers", "post_message"]

_MAX_TEXT_CHARACTERS = 16_384
_MAX_NOTE_CHARACTERS = 2_000
_BACK = "The person has handed the conversation back."


class PersonMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person says in a conversation that was handed over, or when handing it back.

    Attributes:
        turn: Id of the turn that waits, as in the notification.
        returns: Written `return`; whether the assistant continues.
        text: For the user; with `return`, what the model reads as the result of its call.
        note: With `return`: kept in the record; the model does not see it.
    """

    turn: str
    returns: bool = field(name="return", default=False)
    text: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if not (self.returns or self.text.strip()):
            raise ValueError("text must not be blank")
        if self.note and not self.returns:
            raise ValueError("a note goes with return")
        if "\0" in self.text:
            raise ValueError("text must not contain NUL")
        if len(self.text) > _MAX_TEXT_CHARACTERS:
            raise ValueError(f"text has more than {_MAX_TEXT_CHARACTERS} characters")
        if len(self.note) > _MAX_NOTE_CHARACTERS:
            raise ValueError(f"note has more than {_MAX_NOTE_CHARACTERS} characters")


_decoder = msgspec.json.Decoder(PersonMessage)


async def list_handovers(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    """`GET /v1/handovers?limit=&cursor=`: conversations of the caller, or that it may answer."""
    caller = await authenticated_owner(orchestrator, exchange)
    limit, cursor = read_page(exchange)
    page = await list_waits(
        orchestrator.engine.pipeline.ports,
        caller,
        kinds=("person",),
        operator="",
        limit=limit,
        cursor=cursor,
    )
    listed = [
        shown_wait(each)
        | {
            "role": each.role,
            "expires_at": each.expires_at,
            "may_answer": may_decide(caller, each),
            "messages": f"/v1/sessions/{quote(each.key.session, safe='')}/messages",
        }
        for each in page.waits
    ]
    await exchange.answer({"handovers": listed, "cursor": page.cursor})


async def post_message(orchestrator: "Orchestrator", exchange: Exchange, session: str) -> None:
    """`POST /v1/sessions/{id}/messages`: a person's message to the user, or the hand-back.

    Raises:
        TurnNotFound: No such turn of the session waits for a person, or not for this caller.
        Forbidden: The caller does not have the role, or is the user.
        AlreadyDecided: The conversation was handed back before, or it was too late.
        Problem: See `add_message`.
    """
    key = idempotency_key(exchange.headers.get(b"idempotency-key"))
    caller = await authenticated_owner(orchestrator, exchange)
    server = orchestrator.settings.server
    received = await exchange.body(limit=server.max_body_bytes, seconds=server.body_seconds)
    body = decode(_decoder, received)
    pipeline = orchestrator.engine.pipeline
    if not body.returns:
        said = await add_message(pipeline.ports, caller, session, body.turn, body.text, key=key)
        await exchange.answer(
            {
                "session": session,
                "turn": body.turn,
                "status": "stored",
                "message": {"id": said.id, "number": said.number, "created_at": said.created_at},
            }
        )
        return
    wait = await hand_back(
        pipeline.ports, caller, session, body.turn, text=body.text or _BACK, note=body.note
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
