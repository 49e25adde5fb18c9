"""Calls of a client's tools: the ids under which they go out, and the results that come back.

An id says which turn the call is of. So the request that has the results, with or without a
session, continues its turn on any server. A result is taken once; the same request again gets what
the turn did then.
"""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from msgspec import UNSET, Struct

from seawall.agents.options import check_client_options
from seawall.errors import AlreadyDecided, InvalidField, Problem, TurnNotFound, UnknownAgent
from seawall.events import ApprovalRequested, Event, TurnPaused
from seawall.hosts.http.conversations import next_attempt, resumed_with
from seawall.hosts.http.sessions import call_limit
from seawall.pipeline.decisions import MAX_RESULT_BYTES, return_result, same_result
from seawall.pipeline.replay import attempt_offset, find_older
from seawall.requests import session_of
from seawall.storage.port import Wait
from seawall.turn import (
    AnswerOptions,
    Effect,
    Principal,
    SessionKey,
    TurnRecord,
    Usage,
)

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = [
    "Result",
    "ReturnedResults",
    "effect_of",
    "effect_of_call",
    "events_after_results",
    "find_turn",
    "public_call_id",
    "return_call_results",
    "return_results",
]

_NEWEST_TURNS = 8
_ATTEMPTS = 5
_public = re.compile(r"call_([0-9]{1,6})_([0-9a-f]{1,64})_([A-Za-z0-9_-]{1,64})\Z")


class Result(Struct, frozen=True):
    """The result of a call, as a client returns it.

    Attributes:
        effect: Id of the call that is unique in the tenant; see `effect_of`.
        content: For the model.
        field: Path of the content in the body.
        failed: Whether it is an error.
        named: Path of the id in the body.
    """

    effect: str
    content: str
    field: str
    failed: bool = False
    named: str = ""


class ReturnedResults(Struct, frozen=True):
    """A turn whose results were returned.

    Attributes:
        turn: Its id.
        session: Its session.
        attempt: Number of the attempt that goes on.
        agent: The agent that had called.
        after: The position behind which its further events are.
        before: Tokens of the turn until then.
        calls: Ids of the calls.
    """

    turn: str
    session: str
    attempt: int
    agent: str
    after: int
    before: Usage
    calls: frozenset[str]


def public_call_id(effect: str) -> str:
    """The id under which a call goes out in a format whose clients know no turns.

    It has letters, digits, `_` and `-`, and is at most 142 characters long.

    Args:
        effect: Id of the call that is unique in the tenant.
    """
    turn, _, number = effect.rpartition(".")
    session, _, own = turn.removeprefix("trn_").rpartition(".")
    return f"call_{number}_{own}_{session}"


def effect_of(call: str) -> str:
    """The id that `public_call_id` was made of; empty if it is not one."""
    found = _public.match(call)
    return f"trn_{found[3]}.{found[2]}.{found[1]}" if found is not None else ""


async def return_results(
    orchestrator: "Orchestrator",
    owner: Principal,
    results: Sequence[Result],
    *,
    options: AnswerOptions | None = None,
    all_at_once: bool = False,
    wake: bool = True,
) -> ReturnedResults:
    """Return results of calls that a turn waits for; the turn continues.

    Args:
        orchestrator: Whose turn it is.
        owner: Who returns them: the turn's own subject.
        results: At least one; all of one turn.
        options: Of the answer, from here on; None for those of before.
        all_at_once: Whether it is an error to leave out one that the turn waits for.
        wake: Whether the turn continues now; decisions that follow at once continue it else.

    Raises:
        TurnNotFound: No such call waits, or not for this caller.
        AlreadyDecided: Another result was returned before, or it is too late.
        InvalidField: A result is too long, missing, or of another turn; or the agent does not take
            the options.
    """
    turn = _checked_turn(results)
    record = await find_turn(orchestrator, owner, turn, results[0].named)
    called = _client_calls(record)
    for each in results:
        if each.effect not in called:
            raise _unknown(each.named)
    _check_options(orchestrator, record.agent, options)
    for _ in range(_ATTEMPTS):
        try:
            wait = await _take(
                orchestrator, owner, record, results, options=options, all_at_once=all_at_once
            )
        except TurnNotFound:  # the turn went on behind a call since it was read
            record = await find_turn(orchestrator, owner, turn, results[0].named)
        else:
            break
    else:
        raise AlreadyDecided("Its time is over.", field=results[0].field)
    if wait is not None and wake:
        await orchestrator.engine.pipeline.wake(wait)
    called = _client_calls(record)
    attempt, before = _continued_at(record, [called[each.effect] for each in results])
    return ReturnedResults(
        turn=turn,
        session=session_of(turn) or "",
        attempt=attempt,
        agent=record.agent,
        after=attempt_offset(attempt),
        before=before,
        calls=frozenset(called[each.effect].call for each in results),
    )


async def _take(
    orchestrator: "Orchestrator",
    owner: Principal,
    record: TurnRecord,
    results: Sequence[Result],
    *,
    options: AnswerOptions | None,
    all_at_once: bool,
) -> Wait | None:
    """Record results that are waited for; check that others are those of before.

    Args:
        orchestrator: Whose turn it is.
        owner: Who returns them.
        record: The turn.
        results: At least one.
        options: As of `return_results`.
        all_at_once: As of `return_results`.

    Returns:
        One of what the turn waited for; None if nothing was waited for.

    Raises:
        TurnNotFound: The turn does not wait for a call any more that waits in the record.
        AlreadyDecided: Another result was returned before, or it is too late.
        InvalidField: One is missing.
    """
    called = _client_calls(record)
    waiting = {name for name, each in called.items() if each.status == "waiting"}
    if all_at_once:
        await _check_complete(orchestrator, owner, record.id, waiting, results)
    for each in results:  # before anything is recorded
        if each.effect not in waiting:
            _check_same(called[each.effect], each)
    wait: Wait | None = None
    for each in results:
        if each.effect in waiting:
            wait = await _record(orchestrator, owner, called[each.effect], each, options)
            options = None  # once
    return wait


async def return_call_results(
    orchestrator: "Orchestrator",
    owner: Principal,
    turn: str,
    results: Mapping[str, tuple[str, bool, str]],
    *,
    options: AnswerOptions | None = None,
    wake: bool = True,
    named: str,
) -> ReturnedResults:
    """As `return_results`, of calls by their ids in a turn.

    Args:
        orchestrator: Whose turn it is.
        owner: Who returns them.
        turn: Id of the turn.
        results: By id of the call: the content, whether it is an error, and its path in the body.
        options: As of `return_results`.
        wake: As of `return_results`.
        named: Path of the turn's id in the body.

    Raises:
        Problem: As `return_results`.
    """
    record = await find_turn(orchestrator, owner, turn, named)
    made: list[Result] = []
    for call, (content, failed, field) in results.items():
        effect = effect_of_call(record, call)
        if not effect:
            raise TurnNotFound("No such call waits for its client.", field=field)
        made.append(Result(effect, content, field, failed=failed, named=field))
    return await return_results(orchestrator, owner, made, options=options, wake=wake)


async def events_after_results(
    orchestrator: "Orchestrator",
    owner: Principal,
    returned: ReturnedResults,
    *,
    past_decisions: bool = False,
) -> AsyncGenerator[Event, None]:
    """The events of a turn from its results on, to its next pause or its end.

    Args:
        orchestrator: Whose turn it is.
        owner: The turn's own subject.
        returned: The results.
        past_decisions: Go on behind a pause for decisions that were taken since, to the next one
            for the client's results.

    Raises:
        Problem: The turn failed.
    """
    position, goes_on = returned.after, True
    while goes_on:
        goes_on = False
        requested: list[ApprovalRequested] = []
        events = orchestrator.engine.events(owner, returned.turn, after=position)
        async with aclosing(events):
            async for position, event in events:  # noqa: B007 - continued behind the last one
                if type(event) is ApprovalRequested:
                    requested.append(event)
                elif type(event) is not TurnPaused:
                    yield event
                elif returned.calls.issuperset(event.waits):  # their results came after the first
                    requested, goes_on = [], True
                else:
                    for each in requested:
                        yield each
                    yield event
                    if not past_decisions or any(each.kind == "client" for each in requested):
                        return
                    requested = []


def effect_of_call(record: TurnRecord | None, call: str) -> str:
    """The id of a call that is unique in the tenant; empty for none that a client runs.

    Args:
        record: The turn; None for none.
        call: Id of the call in it.
    """
    if record is None:
        return ""
    calls = _client_calls(record)
    return next((name for name, each in reversed(calls.items()) if each.call == call), "")


def _continued_at(record: TurnRecord, returned: Sequence[Effect]) -> tuple[int, Usage]:
    """The attempt that was or will be the first to have all results of the newest step.

    Args:
        record: The turn, as it was before they were returned.
        returned: The calls; of earlier steps as well, if the client sends their results again.

    Returns:
        Its number, and the tokens of the turn before.
    """
    step = max(each.step for each in returned)
    newest = [each for each in returned if each.step == step]
    resumed = resumed_with(record, {each.call for each in newest})
    paused_again = record.status == "paused" and any(each.status == "waiting" for each in newest)
    if resumed is None or paused_again:
        return next_attempt(record), record.usage
    return resumed.attempt, resumed.usage


def _checked_turn(results: Sequence[Result]) -> str:
    """The turn of results, each of which is a text within the limits."""
    turn = results[0].effect.rpartition(".")[0]
    for each in results:
        if each.effect.rpartition(".")[0] != turn:
            raise InvalidField("This is a call of another turn.", field=each.named)
        if len(each.content.encode("utf-8", "replace")) > MAX_RESULT_BYTES:
            raise InvalidField(f"Must be at most {MAX_RESULT_BYTES} bytes.", field=each.field)
        if "\0" in each.content:  # which no message of a client may have
            raise InvalidField("The text must not contain NUL characters.", field=each.field)
    return turn


def _check_options(orchestrator: "Orchestrator", agent: str, options: AnswerOptions | None) -> None:
    agents = orchestrator.engine.agents
    if agent not in agents:
        raise UnknownAgent(f"The agent {agent} of this turn is not configured any more.")
    if options is not None:
        check_client_options(agents, agent, options)


def _client_calls(record: TurnRecord) -> dict[str, Effect]:
    effects = record.journal.effects if record.journal is not UNSET else ()
    return {
        each.id: each
        for each in effects
        if each.request is not None and each.request.kind == "client"
    }


def _unknown(field: str) -> TurnNotFound:
    return TurnNotFound("No call of this id was made for this caller.", field=field)


async def find_turn(
    orchestrator: "Orchestrator", owner: Principal, turn: str, field: str
) -> TurnRecord:
    """A turn as it is stored.

    Args:
        orchestrator: Whose turn it is.
        owner: The turn's own subject.
        turn: Id of the turn.
        field: Path of the id in the body, for the error.

    Raises:
        TurnNotFound: There is none for this caller.
        DeadlineExceeded: The store did not answer in time.
    """
    session = session_of(turn)
    if session is None:
        raise _unknown(field)
    key, store = SessionKey(owner.tenant, owner.subject, session), orchestrator.engine.store
    try:
        async with call_limit(orchestrator):
            page = await store.turns(key, limit=_NEWEST_TURNS)
        for each in page.turns:
            if each.id == turn:
                return each
        seconds = orchestrator.settings.turn.session
        return await find_older(store, key, turn, seconds)
    except Problem as problem:
        if problem.status == 404:
            raise _unknown(field) from problem
        raise


async def _check_complete(
    orchestrator: "Orchestrator",
    owner: Principal,
    turn: str,
    waiting: set[str],
    results: Sequence[Result],
) -> None:
    """Check that nothing that waits for a result is left out."""
    missing = waiting - {each.effect for each in results}
    if not missing or missing == waiting:
        return
    async with call_limit(orchestrator):
        page = await orchestrator.engine.store.waits(owner.tenant, turn=turn, limit=1_000)
    missing &= {each.id for each in page.waits if each.decision is None}
    if missing:
        names = ", ".join(sorted(map(public_call_id, missing)))
        raise InvalidField(f"The results of these calls are missing: {names}.", field="messages")


def _check_same(effect: Effect, result: Result) -> None:
    """Check that a result is the one that was returned before."""
    request = effect.request
    decision = request.decision if request is not None else None
    if decision is None or not same_result(decision, result.content, failed=result.failed):
        late = decision is None or decision.verdict == "expire"
        detail = "Its time is over." if late else "Another result was returned before."
        raise AlreadyDecided(detail, field=result.field)


async def _record(
    orchestrator: "Orchestrator",
    owner: Principal,
    effect: Effect,
    result: Result,
    options: AnswerOptions | None,
) -> Wait:
    ports = orchestrator.engine.pipeline.ports
    turn, again = effect.id.rpartition(".")[0], True
    while True:
        try:
            return await return_result(
                ports,
                owner,
                turn,
                effect.call,
                result.content,
                failed=result.failed,
                options=options,
            )
        except AlreadyDecided as problem:
            if not again:
                raise AlreadyDecided(problem.detail, field=result.field) from problem
            again = False  # of two requests with it at once, the second finds it returned
