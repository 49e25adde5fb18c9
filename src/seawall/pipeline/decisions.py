"""Decisions about turns that wait: approvals, and the reconciliation of unknown effects.

A decision is taken once, by a caller who may, and is recorded. It wakes the turn, which continues
here or on another server.
"""

import asyncio
import os
import re
import time
from collections.abc import Awaitable
from typing import Literal, TypeVar

import msgspec
from msgspec import UNSET, Struct, structs

from seawall.errors import (
    AlreadyDecided,
    DeadlineExceeded,
    Forbidden,
    InvalidField,
    NotFound,
    SessionBusy,
    TurnNotFound,
)
from seawall.pipeline.context import Ports
from seawall.pipeline.journal import decision_record, effect_record
from seawall.pipeline.leases import best_effort
from seawall.pipeline.replay import find_older
from seawall.requests import session_of
from seawall.storage.port import (
    BackgroundJob,
    Begin,
    JournalWrite,
    SessionStore,
    Snapshot,
    Wait,
    WaitPage,
)
from seawall.tools.policy import redacted
from seawall.tools.port import ToolError, truncate
from seawall.turn import (
    AnswerOptions,
    Decision,
    Effect,
    Principal,
    ToolMessage,
    TurnRecord,
)

__all__ = [
    "MAX_RESULT_BYTES",
    "Verdict",
    "claim_woken",
    "decide_call",
    "find_effect",
    "hand_back",
    "list_waits",
    "may_decide",
    "resolve_effect",
    "return_result",
    "same_result",
    "waiting_person",
]

MAX_RESULT_BYTES = 32_768
"""Of the result of a call that a client or a person returns, for the model."""

_MAX_NOTE_CHARACTERS = 2_000
_MAX_WAITS = 1_000
_MAX_PAGES = 20
_LEASE_SECONDS = 10.0

T = TypeVar("T")

# Parts of msgspec's messages about arguments.
_place = re.compile(r" - at `\$\.(.+?)`$")
_named = re.compile(r"(?:unknown|required) field `(.+?)`")


class Verdict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a caller decides about a call that waits for approval, or for an answer.

    Attributes:
        decision: "approve", "reject", or "edit" to approve with other arguments. Of a question
            "accept", "decline", or "cancel" for neither.
        arguments: Of "edit": all arguments of the tool.
        note: Shown to the model if the call is rejected; kept in the record.
        question: Number of the question that is answered.
        content: Of "accept": the values of the form.
    """

    decision: Literal["approve", "reject", "edit", "accept", "decline", "cancel"]
    arguments: dict[str, object] | None = None
    note: str = ""
    question: int | None = None
    content: dict[str, object] | None = None

    def __post_init__(self) -> None:
        if len(self.note) > _MAX_NOTE_CHARACTERS:
            raise ValueError(f"note has more than {_MAX_NOTE_CHARACTERS} characters")
        if (self.arguments is not None) != (self.decision == "edit"):
            raise ValueError('arguments go with the decision "edit", and only with it')
        if (self.question is not None) != (self.decision in ("accept", "decline", "cancel")):
            raise ValueError(
                'question goes with the decisions "accept", "decline" and "cancel", and only with '
                "them"
            )
        if self.content is not None and self.decision != "accept":
            raise ValueError('content goes with the decision "accept" only')


async def decide_call(
    ports: Ports, caller: Principal, turn: str, call: str, verdict: Verdict
) -> Wait:
    """Decide about a call of a paused turn, or answer what its server asks.

    Args:
        ports: The pipeline's.
        caller: Who decides.
        turn: Id of the turn.
        call: Id of the tool call.
        verdict: The decision.

    Returns:
        The call, with the decision.

    Raises:
        TurnNotFound: No such call waits, or not for this caller.
        Forbidden: The caller does not have the role, or may not decide about its own request.
        AlreadyDecided: Another decision was first, or it was too late.
        InvalidField: The new arguments, or the values of a form, are not valid.
    """
    kind = "approval" if verdict.question is None else "input"
    wait = await _waiting_call(ports, caller.tenant, turn, call, kind)
    _check_permission(caller, wait)
    now = time.time()
    question = wait.question
    another = question is not None and question.number != verdict.question
    if another or wait.decision is not None or now >= wait.expires_at:
        raise AlreadyDecided("This was decided before, or its time is over.")
    decision = Decision(verdict.decision, caller.subject, now, verdict.note)
    if question is not None and verdict.decision == "accept":
        from seawall.tools.questions import checked_answer  # noqa: PLC0415 - seldom

        decision = structs.replace(decision, arguments=checked_answer(question, verdict.content))
    record = decision_record(wait, decision)
    if verdict.arguments is not None:
        arguments, shown = _edited(ports, wait, verdict.arguments)
        record = decision_record(
            structs.replace(wait, arguments=shown), structs.replace(decision, arguments=shown)
        )
        decision = structs.replace(decision, arguments=arguments)
    if not await _limited(ports, ports.store.decide(wait, decision, record)):
        raise AlreadyDecided("Another decision was first.")
    return structs.replace(wait, decision=decision)


async def hand_back(
    ports: Ports, caller: Principal, session: str, turn: str, *, text: str, note: str = ""
) -> Wait:
    """Return a conversation from a person to the assistant; the same again changes nothing.

    Args:
        ports: The pipeline's.
        caller: The person.
        session: Id of the session.
        turn: Id of the turn that waits.
        text: What its model reads as the result of the call.
        note: Kept in the record.

    Returns:
        The wait, with the decision.

    Raises:
        TurnNotFound: No such turn waits for a person, or not for this caller.
        Forbidden: The caller does not have the role, or it is the customer.
        AlreadyDecided: Another person was first, or it was too late.
    """
    wait = await waiting_person(ports, caller, session, turn)
    return await _return(ports, caller, wait, text, note)


async def waiting_person(ports: Ports, caller: Principal, session: str, turn: str) -> Wait:
    """The hand-over of a conversation to a person, who is the caller.

    Args:
        ports: The pipeline's.
        caller: The person.
        session: Id of the session.
        turn: Id of the turn that waits.

    Raises:
        TurnNotFound: No such turn waits for a person, or not for this caller.
        Forbidden: The caller does not have the role, or it is the user.
    """
    wait = await _waiting_call(ports, caller.tenant, turn, None, "person")
    if wait.key.session != session:
        raise TurnNotFound
    _check_permission(caller, wait)
    return wait


async def return_result(
    ports: Ports,
    caller: Principal,
    turn: str,
    call: str,
    result: str,
    *,
    failed: bool = False,
    options: AnswerOptions | None = None,
) -> Wait:
    """Return the result of a tool that the client runs; the same again changes nothing.

    Args:
        ports: The pipeline's.
        caller: The turn's own subject.
        turn: Id of the turn.
        call: Id of the tool call.
        result: For the model.
        failed: Whether it is an error.
        options: Of the answer, from here on; None for those of before.

    Returns:
        The wait, with the decision.

    Raises:
        TurnNotFound: No such call waits for its client, or the turn is of another subject.
        AlreadyDecided: Another result was returned before, or it was too late.
    """
    wait = await _waiting_call(ports, caller.tenant, turn, call, "client")
    if (caller.tenant, caller.subject) != (wait.key.tenant, wait.key.subject):
        raise TurnNotFound
    return await _return(ports, caller, wait, result, "", failed=failed, options=options)


def same_result(decision: Decision, result: str, *, failed: bool) -> bool:
    """Whether a decision is the return of a result.

    Args:
        decision: As it was taken.
        result: As it is returned now.
        failed: Whether it is an error.
    """
    returned = (decision.verdict, decision.result, decision.failed)
    return returned == ("return", truncate(result, MAX_RESULT_BYTES), failed)


async def _return(
    ports: Ports,
    caller: Principal,
    wait: Wait,
    result: str,
    note: str,
    *,
    failed: bool = False,
    options: AnswerOptions | None = None,
) -> Wait:
    now = time.time()
    decision = Decision(
        "return",
        caller.subject,
        now,
        note,
        result=truncate(result, MAX_RESULT_BYTES),
        failed=failed,
        options=options,
    )
    before = wait.decision
    same = before is not None and same_result(before, result, failed=failed)
    if before is not None and same and (before.by, before.note) == (decision.by, note):
        return wait  # a retry: its answer was lost
    if before is not None or now >= wait.expires_at:
        raise AlreadyDecided("This call was answered before, or its time is over.")
    if not await _limited(
        ports, ports.store.decide(wait, decision, decision_record(wait, decision))
    ):
        raise AlreadyDecided("Another answer was first.")
    return structs.replace(wait, decision=decision)


async def _waiting_call(
    ports: Ports, tenant: str, turn: str, call: str | None, kind: str = "approval"
) -> Wait:
    """A call of this kind, one that is not decided first; None for any call."""
    if session_of(turn) is None:
        raise TurnNotFound
    page = await _limited(ports, ports.store.waits(tenant, turn=turn, limit=_MAX_WAITS))
    found = [each for each in page.waits if call in (None, each.call) and each.kind == kind]
    if not found:
        raise TurnNotFound
    return min(found, key=lambda each: each.decision is not None)


def _check_permission(caller: Principal, wait: Wait) -> None:
    requester = (caller.tenant, caller.subject) == (wait.key.tenant, wait.key.subject)
    if wait.role is None:
        if not requester:
            raise TurnNotFound
        return
    if wait.role not in caller.roles:
        if not requester:
            raise TurnNotFound
        raise Forbidden(f"This needs the role {wait.role!r}.")
    if requester and not wait.own:
        raise Forbidden("A request of one's own is decided by another subject.")


def _edited(ports: Ports, wait: Wait, arguments: dict[str, object]) -> tuple[str, str]:
    """The new arguments in canonical JSON, and redacted."""
    agent = ports.agents.get(wait.agent)
    tool = agent.tools.get(wait.tool) if agent is not None else None
    if tool is None:
        raise InvalidField(f"The tool {wait.tool} is not configured any more.", field="arguments")
    try:
        prepared = tool.prepare(msgspec.json.encode(arguments).decode())
    except ToolError as refusal:
        found = (pattern.search(str(refusal)) for pattern in (_place, _named))
        path = ".".join(("arguments", *(each[1] for each in found if each is not None)))
        raise InvalidField(str(refusal), field=path) from refusal
    plain = prepared.canonical.decode()
    return plain, redacted(tool.policy, plain) if tool.policy is not None else plain


async def claim_woken(ports: Ports, wait: Wait) -> BackgroundJob | None:
    """Claim the turn that a decision has woken, to continue it here.

    Args:
        ports: The pipeline's.
        wait: The call that was decided.

    Returns:
        The turn; None if another server was first.
    """
    owner = Principal(wait.key.tenant, wait.key.subject)
    job = await _limited(ports, ports.store.find_job(owner, wait.turn))
    if not isinstance(job, BackgroundJob):
        return None
    until = time.time() + (ports.sessions.lease_seconds or _LEASE_SECONDS)
    return await _limited(ports, ports.store.claim_job(job, until=until))


async def list_waits(
    ports: Ports,
    caller: Principal,
    *,
    kinds: tuple[str, ...],
    operator: str,
    limit: int,
    cursor: str | None,
) -> WaitPage:
    """What waits and concerns a caller: their own, and what their roles may decide.

    Args:
        ports: The pipeline's.
        caller: The caller.
        kinds: As in `Wait`.
        operator: The role that reconciles; empty for none.
        limit: At most so many.
        cursor: Where to continue.
    """
    found: list[Wait] = []
    now = time.time()
    for _ in range(_MAX_PAGES):
        room = limit - len(found)
        page = await _limited(ports, ports.store.waits(caller.tenant, limit=room, cursor=cursor))
        found += [
            each
            for each in page.waits
            if each.kind in kinds
            and each.decision is None
            and (each.kind == "unknown" or now < each.expires_at)
            and _concerns(caller, each, operator)
        ]
        cursor = page.cursor
        if cursor is None or len(found) >= limit:
            break
    return WaitPage(tuple(found), cursor)


def may_decide(caller: Principal, wait: Wait) -> bool:
    """Whether a caller whom it concerns may decide about a call, or answer in its place."""
    own = caller.subject == wait.key.subject
    if wait.role is None:
        return own
    return wait.role in caller.roles and (wait.own or not own)


def _concerns(caller: Principal, wait: Wait, operator: str) -> bool:
    if caller.subject == wait.key.subject:
        return True
    role = operator if wait.kind == "unknown" else wait.role
    return bool(role) and role in caller.roles


async def find_effect(ports: Ports, caller: Principal, effect: str, *, operator: str) -> Wait:
    """An effect that waits to be reconciled.

    Raises:
        NotFound: There is none of this id for this caller.
    """
    wait = await _limited(ports, ports.store.find_wait(caller.tenant, effect))
    if wait is None or wait.kind != "unknown" or not _concerns(caller, wait, operator):
        raise NotFound("There is no such effect to be reconciled.", field="effect")
    return wait


async def resolve_effect(store: SessionStore, wait: Wait, decision: Decision) -> None:
    """Record what became of an effect of unknown outcome, in its turn and in the audit.

    A retry of the turn continues with this outcome; so does the session's next turn.

    Args:
        store: The session store.
        wait: The effect.
        decision: "done" with the result for the model, or "not-done".

    Raises:
        SessionBusy: A turn of the session is in progress.
        AlreadyDecided: It was resolved meanwhile.
    """
    owner = f"resolve-{os.urandom(8).hex()}"
    begin = Begin(key=wait.key, turn=owner, turns=8, until=time.time() + _LEASE_SECONDS)
    snapshot = await store.begin(begin)
    if snapshot.session_lease is not None:
        raise SessionBusy("A turn of the session is in progress.", retry_after=2.0)
    try:
        turn = await _turn_of(store, wait, snapshot)
        write = _resolution(wait, decision, turn, snapshot, owner) if turn is not None else None
        if write is not None:
            await store.journal(write)
        elif not await store.decide(wait, decision, decision_record(wait, decision)):
            raise AlreadyDecided("It was resolved meanwhile.")
    finally:
        if snapshot.session is not None:
            await best_effort(store.release(begin))


async def _turn_of(store: SessionStore, wait: Wait, snapshot: Snapshot) -> TurnRecord | None:
    for each in snapshot.turns:
        if each.id == wait.turn:
            return each
    if snapshot.session is None:
        return None
    try:
        return await find_older(store, wait.key, wait.turn, _LEASE_SECONDS)
    except TurnNotFound:
        return None


def _resolution(
    wait: Wait, decision: Decision, turn: TurnRecord, snapshot: Snapshot, owner: str
) -> JournalWrite | None:
    """The write that puts the outcome into the turn; None if the turn does not have the effect."""
    journal, session = turn.journal, snapshot.session
    if journal is UNSET or session is None:
        return None
    found = next((each for each in journal.effects if each.id == wait.id), None)
    if found is None:
        return None
    if found.status != "unknown":
        raise AlreadyDecided("It was resolved meanwhile.")
    settled = _settled(found, decision)
    done = decision.verdict == "done"
    text = decision.result or (
        f"{found.tool} was executed." if done else f"{found.tool} has changed nothing."
    )
    record = structs.replace(
        turn,
        journal=structs.replace(
            journal,
            revision=journal.revision + 1,
            writer=owner,
            effects=tuple(settled if each.id == wait.id else each for each in journal.effects),
            outcomes=(*journal.outcomes, ToolMessage(found.call, found.tool, text, not done)),
        ),
    )
    return JournalWrite(
        key=wait.key,
        turn=record,
        lease_owner=owner,
        until=None,
        agent=session.agent,
        state=None,
        expires_at=session.expires_at,
        opened_at=session.created_at,
        ended=(wait.id,),
        audit=(decision_record(wait, decision), effect_record(settled, wait.key, record)),
    )


def _settled(effect: Effect, decision: Decision) -> Effect:
    status = "done" if decision.verdict == "done" else "failed"
    return structs.replace(effect, status=status, ended_at=decision.at)


async def _limited(ports: Ports, call: Awaitable[T]) -> T:
    """A call of the store, within its limit."""
    seconds = ports.limits.session
    try:
        async with asyncio.timeout(seconds):
            return await call
    except TimeoutError as error:
        raise DeadlineExceeded(f"The session store did not answer within {seconds:g} s.") from error
