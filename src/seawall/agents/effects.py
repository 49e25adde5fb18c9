"""Steps with effects: journaled before an effect runs, each outcome recorded as it comes.

Reads of a step run concurrently. Its effects run in the order of their calls, unless their tool
declares them independent. An effect that needs approval, and all after it in order, wait: the turn
pauses. So does a call whose server asks the user something before it does anything; one that only
reads is journaled then. An effect that has begun is never cut off; one that began in an earlier
attempt and has no outcome is settled by what its tool declares.
"""

import asyncio
import random
import time
from contextlib import suppress

from msgspec import Struct, structs

from seawall.agents import Agent
from seawall.agents.calls import (
    AgentTurn,
    Answer,
    Emit,
    Step,
    TurnPausing,
    call_tool,
    effect_key,
    tool_context,
)
from seawall.agents.questions import asking, questions_asked, with_answer
from seawall.errors import ClientAbsent, DeadlineExceeded, EffectUnknown, Problem
from seawall.events import ToolCalled, ToolReturned
from seawall.spans import Span, within_span
from seawall.tools.policy import redacted
from seawall.tools.port import PreparedCall, Tool, ToolContext, ToolError, ToolOutcome, truncate
from seawall.turn import ApprovalRequest, Effect, PendingInput, ToolCall

__all__ = ["DecidedMeanwhile", "run_step", "settle_step"]

_REPEATS = 2  # of a call whose service keeps its idempotency key
_FIRST_PAUSE_SECONDS = 0.2
_MAX_EFFECTS = 32  # of a step: all may end with one write, of which a store has a bound
_DUPLICATE = (
    "This call is the same as an earlier one of this step, so it was not executed. "
    "If it is meant to happen twice, call it again after the first."
)
_TOO_MANY = "There are too many changes in one step; this one was not executed. Ask again."
_MAX_QUESTIONS = 8  # of a call
_TOO_MANY_QUESTIONS = "It asked the user too many questions, and was given up. Nothing was changed."
_NOT_ENDED = ("begun", "planned", "unknown", "waiting")


class DecidedMeanwhile(Exception):
    """The turn cannot pause: one of the decisions that it waits for has just been taken."""


class _Planned(Struct):
    """A call; with tool and arguments if it is journaled and can run."""

    call: ToolCall
    tool: Tool | None = None
    prepared: PreparedCall | None = None


async def run_step(
    agent: Agent, step: Step, turn: AgentTurn, answer: Answer, emit: Emit
) -> list[ToolOutcome]:
    """Run the calls of a step, or those that an earlier attempt has left; in their order.

    Args:
        agent: The agent that has the conversation.
        step: New, with the outcomes of calls that cannot run; or from the journal.
        turn: The turn; it has a journal.
        answer: The result so far, which ends with the model's message of this step.
        emit: Receives events.

    Returns:
        The outcomes of all calls.

    Raises:
        TurnPausing: Calls wait for decisions.
        EffectUnknown: The outcome of an effect is not known.
        ClientAbsent: A client has not returned the result of a call in time.
        DeadlineExceeded: The turn's time was over before all could begin.
        Problem: The journal could not be written, or the turn's lease was lost.
    """
    run = _StepRun(agent, step, turn, answer)
    if step.resumed:
        await run.take_decisions()
    elif step.asking:
        await run.ask()
    else:
        await run.plan()
        shown = {each.call: each.shown for each in step.effects if each.shown}
        theirs = {
            each.call
            for each in step.effects
            if each.request is not None and each.request.kind == "client"
        }
        await emit(
            *(
                ToolCalled(
                    each.id, each.name, shown.get(each.id, each.arguments), each.id in theirs
                )
                for each in step.calls
            )
        )
    while True:
        outcomes = await run.run(emit)
        if len(outcomes) == len(step.calls):
            return outcomes
        if all(each.status != "waiting" for each in step.effects):
            raise DeadlineExceeded("The turn's time is over; not all tools were called.")
        try:
            await run.save(pausing=True)
        except DecidedMeanwhile:
            await run.take_decisions()
            continue
        raise TurnPausing


async def settle_step(agent: Agent, step: Step, turn: AgentTurn, answer: Answer) -> None:
    """Settle effects that an earlier attempt has begun; begin no other.

    Args:
        agent: As of `run_step`.
        step: From the journal.
        turn: As of `run_step`.
        answer: As of `run_step`.

    Raises:
        Problem: The journal could not be written.
    """
    with suppress(EffectUnknown):
        await _StepRun(agent, step, turn, answer).settle()


class _StepRun:
    """The calls of one step while they run."""

    def __init__(self, agent: Agent, step: Step, turn: AgentTurn, answer: Answer) -> None:
        assert turn.journal is not None  # noqa: S101 - steps with effects have one
        self._agent = agent
        self._step = step
        self._turn = turn
        self._answer = answer
        self._journal = turn.journal.open()
        journaled = len(step.effects) if step.resumed else 0
        self._effects_before = self._journal.effects_before - journaled
        self._writing = asyncio.Lock()
        self._stopping = False
        self._planned = {each.id: self._plan_call(each) for each in step.calls}
        self._begun_before = {each.id for each in step.effects if each.began_at}
        self._may_run = set(self._begun_before)  # effects that the journal has as begun
        loop = asyncio.get_running_loop()
        self._ended: dict[str, asyncio.Future[ToolOutcome]] = {
            each.id: loop.create_future() for each in step.calls
        }

    def _plan_call(self, call: ToolCall) -> _Planned:
        tool = self._agent.tools.get(call.name)
        if tool is None or call.id in self._step.outcomes:
            return _Planned(call)
        effect = next((each for each in self._step.effects if each.call == call.id), None)
        if effect is None and tool.policy is None:
            return _Planned(call)
        # What was journaled, and perhaps approved, is what runs.
        arguments = call.arguments if effect is None else effect.arguments
        try:
            return _Planned(call, tool, tool.prepare(arguments))
        except ToolError as refusal:
            if not self._step.resumed:
                self._step.outcomes[call.id] = ToolOutcome(str(refusal), failed=True)
            return _Planned(call)

    async def plan(self) -> None:
        """Journal the step: what it will do, under which keys, and what needs approval."""
        seen: set[tuple[str, bytes]] = set()
        step = self._step
        for index, call in enumerate(step.calls):
            planned = self._planned[call.id]
            tool, prepared = planned.tool, planned.prepared
            if tool is None or prepared is None or tool.policy is None:
                continue
            if len(step.effects) >= _MAX_EFFECTS:
                step.outcomes[call.id] = ToolOutcome(_TOO_MANY, failed=True)
                continue
            same = (tool.name, prepared.canonical)
            if same in seen and tool.policy.duplicates == "refuse":
                step.outcomes[call.id] = ToolOutcome(_DUPLICATE, failed=True)
                continue
            seen.add(same)
            key = effect_key(self._turn.effect_key, step.number, index)
            request = None
            approval = tool.policy.approval
            if approval is not None and await tool.needs_approval(
                prepared, tool_context(self._agent, call, self._turn, key, None)
            ):
                expires_at = time.time() + (approval.expires_seconds or self._turn.approval_seconds)
                request = ApprovalRequest(
                    expires_at, approval.role, approval.own, tool.policy.waits_for
                )
            step.effects.append(
                Effect(
                    id=self._next_id(),
                    key=key,
                    call=call.id,
                    tool=tool.name,
                    agent=self._agent.name,
                    arguments=(arguments := prepared.canonical.decode()),
                    step=step.number,
                    shown=redacted(tool.policy, arguments) if tool.policy.redact else "",
                    status="planned" if request is None else "waiting",
                    request=request,
                )
            )
        self._begin_next()
        begins = any(each.status != "waiting" for each in step.effects)
        if begins or len(step.effects) + len(step.outcomes) < len(step.calls):
            await self.save()  # else nothing is done before the turn pauses, which is written

    def _next_id(self) -> str:
        return f"{self._turn.turn}.{self._effects_before + len(self._step.effects) + 1}"

    async def ask(self) -> None:
        """Journal the calls of a step that only read, and whose servers ask something."""
        for index, call in enumerate(self._step.calls):
            if (pending := self._step.asking.get(call.id)) is not None:
                self._ask_for_read(index, call, pending)
        await self.save()

    def _ask_for_read(self, index: int, call: ToolCall, pending: PendingInput) -> None:
        """Make a call that only reads one that waits, if there is room for it."""
        tool, step = self._agent.tools[call.name], self._step
        if len(step.effects) >= _MAX_EFFECTS:
            self._finish(call.id, ToolOutcome(_TOO_MANY, failed=True))
            return
        effect = Effect(
            id=self._next_id(),
            key=effect_key(self._turn.effect_key, step.number, index),
            call=call.id,
            tool=tool.name,
            agent=self._agent.name,
            arguments=call.arguments,
            step=step.number,
            reads=True,
        )
        step.effects.append(asking(effect, pending, seconds=self._turn.approval_seconds))
        self._planned[call.id] = self._plan_call(call)

    async def take_decisions(self) -> None:
        """Continue a step of the journal: apply what was decided, and begin what may run now."""
        step = self._step
        waiting = [each for each in step.effects if each.status == "waiting"]
        decisions = await self._journal.decisions(waiting) if waiting else {}
        for index, effect in enumerate(step.effects):
            decision = decisions.get(effect.id)
            if decision is not None and effect.request is not None:
                if (question := effect.request.question) is not None:
                    seconds = self._turn.approval_seconds
                    step.effects[index] = with_answer(effect, question, decision, seconds=seconds)
                    continue
                kept = structs.replace(decision, options=None)  # the journal has them
                request = structs.replace(effect.request, decision=kept)
                step.effects[index] = self._decided(structs.replace(effect, request=request))
            elif effect.status == "unknown":  # it is settled again
                step.effects[index] = structs.replace(effect, status="begun")
        self._begin_next()
        await self.save()
        missed = [each.tool for each in step.effects if _is_missed(each)]
        if missed:  # no caller waits for an answer any more
            raise ClientAbsent(
                f"The client has not returned the result of {', '.join(missed)} in time."
            )

    def _decided(self, effect: Effect) -> Effect:
        request = effect.request
        assert request is not None  # noqa: S101 - it was decided
        assert request.decision is not None  # noqa: S101 - as above
        decision = request.decision
        if decision.verdict == "approve":
            return structs.replace(effect, status="planned")
        if decision.verdict == "edit":
            tool = self._planned[effect.call].tool
            policy = tool.policy if tool is not None else None
            effect = structs.replace(
                effect,
                status="planned",
                arguments=decision.arguments,
                shown=redacted(policy, decision.arguments) if policy and policy.redact else "",
                asked=effect.asked or effect.shown,
            )
            self._step.effects = [
                effect if each.id == effect.id else each for each in self._step.effects
            ]
            self._planned[effect.call] = self._plan_call(self._planned[effect.call].call)
            return effect
        if decision.verdict == "return":
            outcome = ToolOutcome(decision.result, decision.failed)
            self._step.outcomes[effect.call] = outcome
            return structs.replace(effect, status="done", ended_at=decision.at)
        note = f": {decision.note}" if decision.note else "."
        if decision.verdict == "expire":
            approval = request.kind == "approval"
            missed = "approved in time; not executed." if approval else "answered in time."
            return self._refused(effect, f"{effect.tool} was not {missed}")
        return self._refused(effect, truncate(f"{effect.tool} was rejected, not executed{note}"))

    def _refused(self, effect: Effect, text: str) -> Effect:
        self._step.outcomes[effect.call] = ToolOutcome(text, failed=True)
        return structs.replace(effect, status="rejected", ended_at=time.time())

    def _begin_next(self) -> None:
        """Mark effects that start as soon as this is written."""
        if self._stopping or asyncio.get_running_loop().time() >= self._turn.deadline:
            return
        blocked = False
        for index, effect in enumerate(self._step.effects):
            tool = self._planned[effect.call].tool
            policy = tool.policy if tool is not None else None
            independent = effect.reads or (policy is not None and policy.independent)
            if effect.status == "planned" and (independent or not blocked):
                begun = structs.replace(effect, status="begun", began_at=time.time())
                self._step.effects[index] = begun
            blocked = blocked or (not independent and effect.status in _NOT_ENDED)

    async def save(self, *, pausing: bool = False) -> None:
        """Write the step as it is now.

        Raises:
            DecidedMeanwhile: The turn was to pause.
            Problem: It is not written.
        """
        async with self._writing:
            begun = {each.id for each in self._step.effects if each.status == "begun"}
            await self._journal.save(self._step, self._answer, pausing=pausing)
            self._may_run |= begun

    async def run(self, emit: Emit) -> list[ToolOutcome]:
        """Run what can run; report outcomes in the order of the calls.

        Returns:
            The outcomes up to the first call that waits for a decision.
        """
        step = self._step
        for call_id, outcome in step.outcomes.items():
            self._finish(call_id, outcome)
        effects_of = {each.call for each in step.effects}
        reads = [
            asyncio.create_task(self._read(index, each))
            for index, each in enumerate(step.calls)
            if each.id not in step.outcomes and each.id not in effects_of
        ]
        effects = asyncio.create_task(self._run_effects())
        outcomes: list[ToolOutcome] = []
        try:
            for index, call in enumerate(step.calls):
                ended = await self._outcome_of(call, (effects, *reads))
                if ended is None:
                    break
                outcomes.append(ended)
                if index >= step.reported:
                    step.reported = index + 1
                    await emit(ToolReturned(call.id, call.name, ended.content, ended.failed))
        finally:
            if len(outcomes) < len(step.calls) and not effects.done():
                self._stopping = True
            await _end(effects, reads)
        effects.result()
        return outcomes

    async def settle(self) -> None:
        """See `settle_step`."""
        self._stopping = True
        await self._run_effects()

    async def _outcome_of(
        self, call: ToolCall, tasks: tuple[asyncio.Task[None], ...]
    ) -> ToolOutcome | None:
        """The outcome of a call; None if all else is done and it waits for a decision."""
        ended = self._ended[call.id]
        running: set[asyncio.Future[None]] = set(tasks)
        while not ended.done() and running:
            await asyncio.wait({ended, *running}, return_when="FIRST_COMPLETED")  # type: ignore[type-var]
            for task in [each for each in running if each.done()]:
                running.discard(task)
                task.result()
        return ended.result() if ended.done() else None

    async def _read(self, index: int, call: ToolCall) -> None:
        key = effect_key(self._turn.effect_key, self._step.number, index)
        outcome = await call_tool(self._agent, call, self._turn, key)
        if outcome.asks is not None:
            self._ask_for_read(index, call, outcome.asks)
        else:
            self._finish(call.id, outcome)

    def _finish(self, call: str, outcome: ToolOutcome) -> None:
        self._step.outcomes[call] = outcome
        if not self._ended[call].done():
            self._ended[call].set_result(outcome)

    async def _run_effects(self) -> None:
        """Run effects that have begun, until none is left that may begin.

        Raises:
            Problem: The first one, after all that were running have ended.
        """
        running: dict[str, asyncio.Task[None]] = {}
        begun: set[str] = set()
        problems: list[BaseException] = []
        while True:
            ready = [
                each
                for each in self._step.effects
                if each.status == "begun" and each.id not in begun and each.id in self._may_run
            ]
            begun |= {each.id for each in ready}
            if len(ready) == 1 and not running:  # another can begin only when this one has ended
                try:
                    await self._run_effect(ready[0])
                except Exception as failure:  # noqa: BLE001 - raised below
                    problems.append(failure)
                    self._stopping = True
                continue
            for each in ready:
                running[each.id] = asyncio.create_task(self._run_effect(each))
            if not running:
                break
            done, _ = await asyncio.wait(running.values(), return_when="FIRST_COMPLETED")
            running = {name: task for name, task in running.items() if task not in done}
            for task in done:
                if (problem := task.exception()) is not None:
                    problems.append(problem)
                    self._stopping = True
        if problems:
            raise next((each for each in problems if isinstance(each, Problem)), problems[0])

    async def _run_effect(self, effect: Effect) -> None:
        planned = self._planned[effect.call]
        with within_span(f"execute_tool {effect.tool}") as span:
            context = self._context(effect, span)
            outcome = await self._perform(planned, effect, context)
            if span is not None:
                span.put("gen_ai.operation.name", "execute_tool")
                span.put("gen_ai.tool.name", effect.tool)
                span.put("gen_ai.tool.call.id", effect.call)
                if outcome.failed or outcome.unknown:
                    span.end("tool_failed")
        if outcome.asks is not None:
            if questions_asked(effect) < _MAX_QUESTIONS:
                await self._wait_for_answer(effect, outcome.asks)
                return
            outcome = ToolOutcome(_TOO_MANY_QUESTIONS, failed=True)
        if _is_edited(effect):
            arguments = truncate(effect.shown or effect.arguments)
            note = f"[The arguments were changed before approval: {arguments}]\n"
            outcome = structs.replace(outcome, content=note + outcome.content)
        status = "unknown" if outcome.unknown else "failed" if outcome.failed else "done"
        index = self._step.effects.index(effect)
        self._step.effects[index] = structs.replace(
            effect, status=status, ended_at=time.time(), input=None
        )
        if outcome.unknown:
            self._stopping = True
            await self.save()
            raise EffectUnknown(
                f"{effect.tool} was called and its outcome is not known. It is not repeated; the "
                f"effect {effect.id} has to be reconciled."
            )
        self._step.outcomes[effect.call] = outcome
        self._begin_next()
        await self.save()
        self._finish(effect.call, outcome)

    async def _wait_for_answer(self, effect: Effect, pending: PendingInput) -> None:
        """Let an effect wait that has run, done nothing and asked something."""
        index = self._step.effects.index(effect)
        self._step.effects[index] = asking(effect, pending, seconds=self._turn.approval_seconds)
        self._may_run.discard(effect.id)
        self._begun_before.discard(effect.id)
        await self.save()

    def _context(self, effect: Effect, span: Span | None) -> ToolContext:
        call = self._planned[effect.call].call
        return tool_context(
            self._agent,
            call,
            self._turn,
            effect.key,
            span,
            may_ask=not self._stopping,
            given=effect.input,
        )

    async def _perform(
        self, planned: _Planned, effect: Effect, context: ToolContext
    ) -> ToolOutcome:
        """The outcome of an effect: of its call, or settled as its tool declares."""
        tool, prepared = planned.tool, planned.prepared
        again = effect.id in self._begun_before
        policy = tool.policy if tool is not None else None
        if tool is None or prepared is None or (policy is None and not effect.reads):
            unsure = again and not effect.reads  # it is not configured like this any more
            return ToolOutcome(f"{effect.tool} is not available.", failed=True, unknown=unsure)
        if policy is None:
            return await tool.call_prepared(prepared, context)
        unknown = ToolOutcome(f"The outcome of {tool.name} is not known.", True, unknown=True)
        if again and policy.retry != "key":
            found = await self._check(tool, prepared, context)
            if found is None or not found.failed:
                return found or unknown
            again = False
        clock = asyncio.get_running_loop().time
        for repeat in range(_REPEATS + 1):
            await self._journal.keep_lease()  # the process may have been stopped since the write
            called = await tool.call_prepared(prepared, context)
            if not (called.unknown if called.started else again or repeat):
                return called
            pause = _FIRST_PAUSE_SECONDS * 2**repeat * random.uniform(0.5, 1.0)  # noqa: S311
            if (
                policy.retry != "key"
                or repeat == _REPEATS
                or self._stopping
                or clock() + pause >= self._turn.deadline
            ):
                break
            await asyncio.sleep(pause)
            context = self._context(effect, None)
        found = await self._check(tool, prepared, context)
        if found is None or (found.failed and called.running):  # it may change something yet
            return unknown
        return found

    async def _check(
        self, tool: Tool, prepared: PreparedCall, context: ToolContext
    ) -> ToolOutcome | None:
        """See `Tool.check`; it has a call's time, also if the turn's or the call's is over."""
        seconds = self._agent.limits.tool_seconds
        deadline = asyncio.get_running_loop().time() + seconds
        return await tool.check(prepared, structs.replace(context, deadline=deadline))


def _is_missed(effect: Effect) -> bool:
    """Whether a client was to run it, and has not."""
    request = effect.request
    if request is None or request.kind != "client" or request.decision is None:
        return False
    return request.decision.verdict == "expire"


def _is_edited(effect: Effect) -> bool:
    """Whether its arguments are not those that the model wrote."""
    decisions = [each.decision for each in effect.requests if each.decision is not None]
    return any(each.verdict == "edit" for each in decisions)


async def _end(effects: asyncio.Task[None], reads: list[asyncio.Task[None]]) -> None:
    """Wait until an effect that runs has ended, also if this task is cancelled meanwhile."""
    for each in reads:
        each.cancel()
    cancelled: asyncio.CancelledError | None = None
    waiting = {each for each in (effects, *reads) if not each.done()}
    while waiting:
        try:
            _, waiting = await asyncio.wait(waiting)
        except asyncio.CancelledError as error:
            cancelled = error
            waiting = {each for each in waiting if not each.done()}
    for each in (effects, *reads):
        if not each.cancelled():
            each.exception()  # taken note of: if the turn was cancelled, only that counts
    if cancelled is not None:
        raise cancelled
