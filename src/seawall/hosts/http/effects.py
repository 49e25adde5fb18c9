"""Approvals of paused turns, effects to be reconciled, and cancellation of turns."""

import time
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import msgspec
from msgspec import Struct

from seawall.errors import Forbidden, TurnNotFound
from seawall.events import ApprovalRequested
from seawall.hosts.http.bodies import decode
from seawall.hosts.http.exchange import Exchange
from seawall.hosts.http.sessions import authenticated_owner, call_limit, read_page
from seawall.pipeline.decisions import Verdict, find_effect, list_waits, may_decide, resolve_effect
from seawall.storage.port import Wait
from seawall.turn import Decision, Principal, Question

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = [
    "ResolutionBody",
    "ResultBody",
    "cancel_turn",
    "decide_call",
    "list_approvals",
    "list_effects",
    "requested_approval",
    "requested_result",
    "resolve",
    "return_call_result",
    "show_effect",
    "shown_wait",
]

_MAX_NOTE_CHARACTERS = 2_000
_MAX_RESULT_CHARACTERS = 16_384


class ResultBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The result of a call that the client runs.

    Attributes:
        content: For the model.
        failed: Whether it is an error.
    """

    content: str
    failed: bool = False


class ResolutionBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of an effect of unknown outcome.

    Attributes:
        outcome: Whether it has changed something.
        result: Of "done": the result of the call, for the model.
        note: Kept in the record.
    """

    outcome: Literal["done", "not-done"]
    result: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if len(self.note) > _MAX_NOTE_CHARACTERS:
            raise ValueError(f"note has more than {_MAX_NOTE_CHARACTERS} characters")
        if len(self.result) > _MAX_RESULT_CHARACTERS:
            raise ValueError(f"result has more than {_MAX_RESULT_CHARACTERS} characters")
        if self.result and self.outcome != "done":
            raise ValueError('a result goes with the outcome "done" only')


_verdict_decoder = msgspec.json.Decoder(Verdict)
_result_decoder = msgspec.json.Decoder(ResultBody)
_resolution_decoder = msgspec.json.Decoder(ResolutionBody)


async def decide_call(
    orchestrator: "Orchestrator", exchange: Exchange, turn: str, call: str
) -> None:
    """`POST /v1/turns/{turn}/approvals/{call}`: decide about a call, or answer what it asks.

    The turn continues.

    See `Pipeline.decide` for what it raises.
    """
    caller = await authenticated_owner(orchestrator, exchange)
    verdict = decode(_verdict_decoder, await _body(orchestrator, exchange))
    wait, _ = await orchestrator.engine.pipeline.decide(caller, turn, call, verdict)
    await exchange.answer(
        {
            "turn": wait.turn,
            "call": wait.call,
            "decision": _decision(wait.decision),
            "events": f"/v1/turns/{quote(wait.turn, safe='')}/events",
        }
    )


async def return_call_result(
    orchestrator: "Orchestrator", exchange: Exchange, turn: str, call: str
) -> None:
    """`POST /v1/turns/{turn}/tools/{call}`: the result of a call that the client runs.

    The turn continues once it waits for nothing else. The same again changes nothing.

    See `return_call_results` for what it raises.
    """
    from seawall.hosts.http.client_calls import return_call_results  # noqa: PLC0415 - seldom

    caller = await authenticated_owner(orchestrator, exchange)
    body = decode(_result_decoder, await _body(orchestrator, exchange))
    results = {call: (body.content, body.failed, "content")}
    await return_call_results(orchestrator, caller, turn, results, named="turn")
    events = f"/v1/turns/{quote(turn, safe='')}/events"
    await exchange.answer({"turn": turn, "call": call, "events": events})


async def list_approvals(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    """`GET /v1/approvals?limit=&cursor=`: calls of the caller, or that it may decide about."""
    caller = await authenticated_owner(orchestrator, exchange)
    limit, cursor = read_page(exchange)
    page = await list_waits(
        orchestrator.engine.pipeline.ports,
        caller,
        kinds=("approval", "input"),
        operator="",
        limit=limit,
        cursor=cursor,
    )
    listed = [shown_wait(each) | _asked(each, caller) for each in page.waits]
    await exchange.answer({"approvals": listed, "cursor": page.cursor})


async def list_effects(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    """`GET /v1/effects?limit=&cursor=`: effects of unknown outcome.

    The caller's own; with the operator's role, all of its tenant.
    """
    caller = await authenticated_owner(orchestrator, exchange)
    limit, cursor = read_page(exchange)
    page = await list_waits(
        orchestrator.engine.pipeline.ports,
        caller,
        kinds=("unknown",),
        operator=(role := orchestrator.settings.effects.operator_role),
        limit=limit,
        cursor=cursor,
    )
    may = bool(role) and role in caller.roles
    listed = [_effect(each) | {"may_resolve": may} for each in page.waits]
    await exchange.answer({"effects": listed, "cursor": page.cursor})


async def show_effect(orchestrator: "Orchestrator", exchange: Exchange, effect: str) -> None:
    """`GET /v1/effects/{id}`: an effect of unknown outcome.

    Raises:
        NotFound: There is none of this id, or not for this caller.
    """
    caller = await authenticated_owner(orchestrator, exchange)
    await exchange.answer(_effect(await _found(orchestrator, caller, effect)))


async def resolve(orchestrator: "Orchestrator", exchange: Exchange, effect: str) -> None:
    """`POST /v1/effects/{id}/resolution`: record what became of an effect.

    Raises:
        NotFound: There is none of this id, or not for this caller.
        Forbidden: The caller does not have the operator's role.
        SessionBusy: A turn of the session is in progress.
        AlreadyDecided: It was resolved meanwhile.
    """
    caller = await authenticated_owner(orchestrator, exchange)
    body = decode(_resolution_decoder, await _body(orchestrator, exchange))
    wait = await _found(orchestrator, caller, effect)
    role = orchestrator.settings.effects.operator_role
    if not role:
        raise Forbidden("Effects are not reconciled over HTTP here: no role is configured for it.")
    if role not in caller.roles:
        raise Forbidden(f"This needs the role {role!r}.")
    decision = Decision(body.outcome, caller.subject, time.time(), body.note, result=body.result)
    async with call_limit(orchestrator):
        await resolve_effect(orchestrator.engine.store, wait, decision)
    await exchange.answer({"effect": wait.id, "turn": wait.turn, "decision": _decision(decision)})


async def cancel_turn(orchestrator: "Orchestrator", exchange: Exchange, turn: str) -> None:
    """`POST /v1/turns/{id}/cancel`: end a turn that runs in this process.

    An effect in progress ends before, and is recorded.

    Raises:
        TurnNotFound: It does not run here, or not for this caller.
    """
    caller = await authenticated_owner(orchestrator, exchange)
    await exchange.body(limit=0, seconds=orchestrator.settings.server.body_seconds)
    if not await orchestrator.engine.pipeline.live.cancel(turn, caller):
        raise TurnNotFound
    await exchange.no_content()


def requested_approval(event: ApprovalRequested) -> dict[str, object]:
    """A requested approval or answer, as in the answer to a turn that pauses."""
    return {
        "call": event.id,
        "tool": event.name,
        "arguments": event.arguments,
        "role": event.role,
        "kind": event.kind,
        "expires_at": event.expires_at,
        "decide": _decide_path(event.turn, event.id),
    } | _question(event.question)


def requested_result(event: ApprovalRequested) -> dict[str, object]:
    """A call that the client runs, as in the answer to a turn that pauses."""
    path = f"/v1/turns/{quote(event.turn, safe='')}/tools/{quote(event.id, safe='')}"
    return {
        "call": event.id,
        "tool": event.name,
        "arguments": event.arguments,
        "expires_at": event.expires_at,
        "return": path,
    }


def _question(question: Question | None) -> dict[str, object]:
    return {} if question is None else {"question": question}


async def _body(orchestrator: "Orchestrator", exchange: Exchange) -> bytes:
    settings = orchestrator.settings.server
    return await exchange.body(limit=settings.max_body_bytes, seconds=settings.body_seconds)


async def _found(orchestrator: "Orchestrator", caller: Principal, effect: str) -> Wait:
    role = orchestrator.settings.effects.operator_role
    ports = orchestrator.engine.pipeline.ports
    return await find_effect(ports, caller, effect, operator=role)


def shown_wait(wait: Wait) -> dict[str, object]:
    """What waits, whatever it waits for."""
    return {
        "turn": wait.turn,
        "session": wait.key.session,
        "subject": wait.key.subject,
        "call": wait.call,
        "tool": wait.tool,
        "agent": wait.agent,
        "arguments": wait.arguments,
        "created_at": wait.created_at,
    }


def _asked(wait: Wait, caller: Principal) -> dict[str, object]:
    return {
        "role": wait.role,
        "kind": wait.kind,
        "expires_at": wait.expires_at,
        "decide": _decide_path(wait.turn, wait.call),
        "may_decide": may_decide(caller, wait),
    } | _question(wait.question)


def _effect(wait: Wait) -> dict[str, object]:
    return {"effect": wait.id, **shown_wait(wait)}


def _decide_path(turn: str, call: str) -> str:
    return f"/v1/turns/{quote(turn, safe='')}/approvals/{quote(call, safe='')}"


def _decision(decision: Decision | None) -> dict[str, object]:
    assert decision is not None  # noqa: S101 - it has just been taken
    shown: dict[str, object] = {"verdict": decision.verdict, "by": decision.by, "at": decision.at}
    if decision.note:
        shown["note"] = decision.note
    return shown
