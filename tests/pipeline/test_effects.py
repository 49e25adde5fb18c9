"""Turns with effects: journaled, continued and interrupted; effects happen once."""

import asyncio
import gc
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from seawall import Orchestrator, ScriptedModel
from seawall.agents import AgentLimits
from seawall.config import AgentSettings, Settings
from seawall.errors import (
    ConfigError,
    InternalError,
    ServerStopping,
    SessionConflict,
    StoreUnavailable,
    TurnLimitReached,
)
from seawall.events import Event, UsageReported
from seawall.identity import Trusted
from seawall.pipeline.decisions import Verdict
from seawall.requests import fingerprint, new_request
from seawall.settings import SessionSettings
from seawall.storage.audit import verify
from seawall.storage.port import BackgroundJob, Begin, JournalWrite
from seawall.tools.policy import Approval
from seawall.tools.port import ToolContext, ToolError
from seawall.turn import SessionKey, ToolCall, ToolMessage, TurnRequest
from tests.pipeline.shop import (
    ANN,
    RefundService,
    Script,
    ask,
    refund,
    shop,
    statuses,
    stored,
    waits,
)


async def test_an_effect_is_recorded_in_its_turn_and_in_the_audit(place: SessionSettings) -> None:
    service = RefundService()
    async with shop(place, Script((refund("o1"),)), service) as app:
        outcome = await ask(app)
        assert outcome.problem is None
        assert service.done == ["o1"]
        (turn,) = await stored(app, outcome.request.session)
        assert (turn.status, statuses(turn)) == (
            "completed",
            ["done"],
        )
        audit = (await app.engine.store.audit(limit=10)).records
        assert [(each.kind, each.status, each.outcome) for each in audit] == [
            ("effect", "done", "refunded o1 5")
        ]
        assert verify(audit) is None
        assert not await waits(app)


async def test_a_turn_without_effects_has_no_journal(place: SessionSettings) -> None:
    look_up = ToolCall("c1", "look_up", '{"order": "o1"}')
    async with shop(place, Script((look_up,)), RefundService()) as app:
        outcome = await ask(app)
        (turn,) = await stored(app, outcome.request.session)
        assert b"journal" not in msgspec.json.encode(turn)


async def test_a_retry_continues_and_does_not_ask_the_model_for_finished_steps(
    place: SessionSettings,
) -> None:
    service, script = RefundService(), Script((refund("o1"),), failures=1)
    async with shop(place, script, service) as app:
        failed = await ask(app, idempotency_key="k")
        assert failed.problem is not None
        assert failed.problem.code == "upstream-failed"
        assert [each["status"] for each in failed.problem.effects] == ["done"]
        script.steps = ((refund("o1", reason="reworded"),),)
        asked = len(script.requests)
        again = await ask(app, idempotency_key="k")
        assert again.problem is None
        assert len(script.requests) == asked + 1
        assert len(service.calls) == 1
        assert again.kinds.count("TurnResumed") == 1
        replayed = await ask(app, idempotency_key="k")
        assert replayed.events[:-1] == again.events[:-1]
        assert [each.status for each in await stored(app, failed.request.session)] == ["completed"]


async def test_the_next_turn_is_shown_what_was_done(
    place: SessionSettings,
) -> None:
    service, script = RefundService(), Script((refund("o1"),), failures=1)
    async with shop(place, script, service) as app:
        failed = await ask(app)
        script.steps = ()
        after = await ask(app, "Is it refunded?", session=failed.request.session)
        assert after.problem is None
        shown = script.requests[-1].messages
        assert [each.content for each in shown if isinstance(each, ToolMessage)] == [
            "refunded o1 5"
        ]
        turns = await stored(app, failed.request.session)
        assert [each.status for each in turns] == ["interrupted", "completed"]
        late = await ask(app, "Refund it", session=failed.request.session)
        assert late.problem is None


async def test_a_late_retry_of_an_interrupted_turn_is_refused(place: SessionSettings) -> None:
    service, script = RefundService(), Script((refund("o1"),), failures=1)
    async with shop(place, script, service) as app:
        failed = await ask(app, idempotency_key="k")
        script.steps = ()
        await ask(app, "Is it refunded?", session=failed.request.session)
        late = await ask(app, idempotency_key="k")
        assert late.problem is not None
        assert late.problem.code == "turn-interrupted"
        assert [each["tool"] for each in late.problem.effects] == ["refund"]


async def test_an_unknown_outcome_is_listed_and_not_repeated(
    place: SessionSettings,
) -> None:
    service = RefundService()
    service.faults = [ConnectionError("reset")]
    async with shop(place, Script((refund("o1"),)), service) as app:
        for _ in range(2):
            outcome = await ask(app, idempotency_key="k")
            assert outcome.problem is not None
            assert outcome.problem.code == "effect-unknown"
            assert [each["status"] for each in outcome.problem.effects] == ["unknown"]
        assert len(service.calls) == 1
        (wait,) = await waits(app)
        assert (wait.kind, wait.tool) == ("unknown", "refund")


async def test_a_tool_error_is_no_unknown_outcome(place: SessionSettings) -> None:
    service = RefundService()
    service.faults = [ToolError("No such order.")]
    async with shop(place, Script((refund("o1"),)), service) as app:
        outcome = await ask(app)
        assert outcome.problem is None
        assert not await waits(app)


async def test_a_service_that_keeps_keys_is_called_again(
    place: SessionSettings,
) -> None:
    service = RefundService()
    service.faults = [ConnectionError("reset")]
    async with shop(place, Script((refund("o1"),)), service, retry="key") as app:
        outcome = await ask(app)
        assert outcome.problem is None
        assert len(service.calls) == 2
        assert len({key for _, _, key in service.calls}) == 1


async def test_a_check_settles_an_unknown_outcome(place: SessionSettings) -> None:
    service = RefundService()
    service.faults = [ConnectionError("reset")]
    script = Script((refund("o1"),))
    async with shop(place, script, service, check=service.find_refund) as app:
        outcome = await ask(app)
        assert outcome.problem is None
        assert (len(service.calls), service.checks) == (1, 1)
        results = [each for each in script.requests[-1].messages if isinstance(each, ToolMessage)]
        assert results[0].content == "found o1"


async def test_effects_run_in_the_order_of_their_calls(place: SessionSettings) -> None:
    service = RefundService()
    service.gate.clear()
    calls = tuple(refund(f"o{number}", call=f"c{number}") for number in range(3))
    async with shop(place, Script(calls), service) as app:
        running = asyncio.create_task(ask(app))
        await service.entered.wait()
        await asyncio.sleep(0.1)
        assert [order for order, _, _ in service.calls] == ["o0"]
        service.gate.set()
        assert (await running).problem is None
        assert service.done == ["o0", "o1", "o2"]


async def test_independent_effects_run_at_the_same_time(place: SessionSettings) -> None:
    service = RefundService()
    service.gate.clear()
    calls = tuple(refund(f"o{number}", call=f"c{number}") for number in range(3))
    async with shop(place, Script(calls), service, independent=True) as app:
        running = asyncio.create_task(ask(app))
        async with asyncio.timeout(10):
            while len(service.calls) < 3:  # noqa: ASYNC110 - three calls, one event
                await asyncio.sleep(0.01)
        service.gate.set()
        assert (await running).problem is None


async def test_duplicates_in_one_step_are_refused_or_allowed(
    place: SessionSettings,
) -> None:
    calls = (refund("o1", call="c1"), refund("o1", call="c2"))
    service = RefundService()
    async with shop(place, Script(calls), service) as app:
        outcome = await ask(app)
        assert outcome.problem is None
        assert len(service.calls) == 1
    allowed = RefundService()
    async with shop(place, Script(calls), allowed, duplicates="allow") as app:
        assert (await ask(app)).problem is None
        assert len(allowed.calls) == 2
        assert len({key for _, _, key in allowed.calls}) == 2


async def test_a_client_that_leaves_does_not_cut_an_effect_off(place: SessionSettings) -> None:
    service = RefundService()
    service.gate.clear()
    calls = (refund("o1", call="c1"), refund("o2", call="c2"))
    async with shop(place, Script(calls), service) as app:
        running = asyncio.create_task(ask(app))
        await service.entered.wait()
        running.cancel()
        await asyncio.sleep(0.05)
        assert not running.done()
        service.gate.set()
        await asyncio.wait((running,))
        assert running.cancelled()
        assert service.done == ["o1"]
        page = await app.engine.store.sessions(ANN, limit=5)
        (turn,) = await stored(app, page.sessions[0].key.session)
        assert turn.status == "interrupted"
        assert statuses(turn) == ["done", "planned"]


async def test_an_unknown_outcome_after_the_client_left_is_no_unhandled_error(
    place: SessionSettings,
) -> None:
    """Regression: the log had a traceback of a task whose exception was never retrieved."""
    reported: list[str] = []

    async def scenario() -> None:
        service = RefundService()
        service.gate.clear()
        service.faults = [ConnectionError("reset")]
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(context["message"])
        )
        async with shop(place, Script((refund("o1"),)), service) as app:
            running = asyncio.create_task(ask(app))
            await service.entered.wait()
            running.cancel()
            await asyncio.sleep(0.05)
            service.gate.set()
            await asyncio.wait((running,))
            assert running.cancelled()
            assert [each.kind for each in await waits(app)] == ["unknown"]

    await asyncio.to_thread(asyncio.run, scenario())  # all that it leaves is collected
    gc.collect()
    assert not reported


class _Order(str):
    """Text to Python, and nothing that an encoder takes."""

    __slots__ = ()


class _Noting(RefundService):
    """A refund service whose tool writes a note."""

    def __init__(self, note: Any) -> None:
        super().__init__()
        self.note = note

    async def refund(
        self, order: str, amount: float, context: ToolContext, reason: str = ""
    ) -> str:
        """Refund an order."""
        context.state["last"] = _Order(order)
        context.state["times"] = self.note
        return await super().refund(order, amount, context, reason)


@pytest.mark.parametrize("note", [7, object(), "x" * 2_000])
async def test_a_note_that_cannot_be_stored_ends_its_turn_only(
    place: SessionSettings, note: Any
) -> None:
    """Regression: a number was stored with the turn, and the session could not be read again."""
    service, script = _Noting(note), Script((refund("o1"),))
    async with shop(place, script, service) as app:
        outcome = await ask(app)
        assert isinstance(outcome.problem, TurnLimitReached)
        session = outcome.request.session
        script.steps = ()
        assert (await ask(app, "Hello", session=session)).problem is None
        script.steps, service.note = ((refund("o2"),),), "once"
        assert (await ask(app, session=session)).problem is None
        turns = await stored(app, session)
        assert [each.status for each in turns] == ["interrupted", "completed", "completed"]
        assert [statuses(turns[0]), statuses(turns[2])] == [["done"], ["done"]]
        loaded = await app.engine.store.load(SessionKey("shop", "ann", session), turns=1)
        assert loaded.session is not None
        assert loaded.session.state == {"last": "o2", "times": "once"}


async def test_a_defect_after_an_effect_names_the_effect(place: SessionSettings) -> None:
    """Regression: the caller was not shown that anything was done, nor in which session."""

    async def emit(*happened: Event) -> None:
        if any(isinstance(each, UsageReported) for each in happened):
            raise RuntimeError("defect")

    async with shop(place, Script((refund("o1"),)), RefundService()) as app:
        request = new_request("Refund it")
        with pytest.raises(InternalError) as caught:
            await app.engine.execute(request, Trusted(ANN), emit)
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert [each["status"] for each in caught.value.effects] == ["done"]
        (turn,) = await stored(app, request.session)
        assert (turn.status, statuses(turn)) == ("interrupted", ["done"])


async def test_an_effect_that_takes_longer_than_the_lease(place: SessionSettings) -> None:
    service = RefundService()
    service.gate.clear()
    script, quick = Script((refund("o1"),)), {"lease_seconds": 0.6}
    async with shop(place, script, service, sessions=quick) as app:
        for key in ("k", None):
            running = asyncio.create_task(ask(app, idempotency_key=key))
            await asyncio.sleep(1.0)
            service.gate.set()
            assert (await running).problem is None
            service.gate.clear()
        assert len(service.done) == 2


async def test_a_renewal_during_the_first_write_is_no_conflict(place: SessionSettings) -> None:
    """The write binds the key: a renewal that was sent before it finds the key's lease gone."""
    service = RefundService()
    service.gate.clear()
    sent, journaled = asyncio.Event(), asyncio.Event()

    async def look_up(order: str) -> str:
        """Look an order up, until a renewal was sent."""
        await sent.wait()
        return order

    service.look_up = look_up  # type: ignore[method-assign]
    script = Script((ToolCall("c0", "look_up", '{"order": "o1"}'),), (refund("o1"),))
    async with shop(place, script, service, sessions={"lease_seconds": 0.3}) as app:
        store: Any = app.engine.store
        renew, journal = store.renew, store.journal

        async def late_renewal(begin: Begin) -> bool:
            if begin.idempotency_key is not None:
                sent.set()
                await journaled.wait()
            return bool(await renew(begin))

        async def early_journal(write: JournalWrite) -> None:
            await journal(write)
            journaled.set()

        store.renew, store.journal = late_renewal, early_journal
        running = asyncio.create_task(ask(app, idempotency_key="k"))
        await service.entered.wait()
        await asyncio.sleep(0.2)
        service.gate.set()
        assert (await running).problem is None
        assert service.done == ["o1"]


async def test_no_effect_runs_whose_journal_was_refused(place: SessionSettings) -> None:
    """The write that records an outcome also begins the next effect."""
    service = RefundService()
    calls = (refund("o1", call="c1"), refund("o2", call="c2"))
    async with shop(place, Script(calls), service) as app:
        store: Any = app.engine.store
        journal, writes = store.journal, 0

        async def lost(write: JournalWrite) -> None:
            nonlocal writes
            writes += 1
            if writes > 1:
                raise SessionConflict("Another attempt has continued the turn.")
            await journal(write)

        store.journal = lost
        outcome = await ask(app, idempotency_key="k")
        assert isinstance(outcome.problem, SessionConflict)
        assert service.done == ["o1"]


async def test_an_attempt_that_was_stopped_runs_no_effect_of_another(
    place: SessionSettings,
) -> None:
    """Regression: a process was stopped between the write that begins an effect and its call.

    Another server found that it was not made, and made it; then the first went on and made it too.
    """
    service, script = RefundService(), Script((refund("o1"),))
    quick = {"lease_seconds": 0.3}
    async with (
        shop(place, script, service, sessions=quick, check=service.find_refund) as first,
        shop(place, script, service, sessions=quick, check=service.find_refund) as second,
    ):
        store: Any = first.engine.store
        journal, renew = store.journal, store.renew
        others: list[Any] = []

        async def stopped(write: JournalWrite) -> None:
            await journal(write)
            if others:
                return
            store.renew = _unavailable
            others.append(await ask(second, idempotency_key="k"))
            store.renew = renew

        store.journal = stopped
        outcome = await ask(first, idempotency_key="k")
        assert others[0].problem is None
        assert isinstance(outcome.problem, SessionConflict)
        assert service.done == ["o1"]
        (turn,) = await stored(second, outcome.request.session)
        assert (turn.status, statuses(turn)) == ("completed", ["done"])


async def test_an_effect_runs_after_a_pause_in_which_nothing_took_the_session_over(
    place: SessionSettings,
) -> None:
    service = RefundService()
    calls = (refund("o1"),)
    async with shop(place, Script(calls), service, sessions={"lease_seconds": 0.3}) as app:
        store: Any = app.engine.store
        journal, renew = store.journal, store.renew

        async def stopped(write: JournalWrite) -> None:
            await journal(write)
            if not service.calls:
                store.renew = _unavailable
                await asyncio.sleep(0.4)
                store.renew = renew

        store.journal = stopped
        assert (await ask(app, idempotency_key="k")).problem is None
        assert service.done == ["o1"]


async def test_no_effect_runs_while_it_is_not_known_whether_the_lease_is_lost(
    place: SessionSettings,
) -> None:
    service, script = RefundService(), Script((refund("o1"),))
    quick = {"lease_seconds": 0.3}
    async with shop(place, script, service, sessions=quick, check=service.find_refund) as app:
        store: Any = app.engine.store
        journal, renew = store.journal, store.renew

        async def stopped(write: JournalWrite) -> None:
            await journal(write)
            store.renew = _unavailable
            await asyncio.sleep(0.4)

        store.journal = stopped
        assert isinstance((await ask(app, idempotency_key="k")).problem, StoreUnavailable)
        assert not service.calls
        store.journal, store.renew = journal, renew
        assert (await ask(app, idempotency_key="k")).problem is None  # it continues the turn
        assert service.done == ["o1"]


async def _unavailable(*_: object, **__: object) -> None:
    raise StoreUnavailable("not now")


async def test_a_turn_left_open_is_continued_by_a_retry(place: SessionSettings) -> None:
    service, script = RefundService(), Script((refund("o1"),))
    service.gate.clear()
    quick = {"lease_seconds": 0.5}
    path = place
    async with (
        shop(path, script, service, sessions=quick, retry="key") as first,
        shop(path, script, service, sessions=quick, retry="key") as second,
    ):
        running = asyncio.create_task(ask(first, idempotency_key="k"))
        await service.entered.wait()
        _stop_writing(first)
        service.gate.set()
        again = await ask(second, idempotency_key="k")
        assert again.problem is None
        assert len({key for _, _, key in service.calls}) == 1
        assert again.kinds.count("TurnResumed") == 1
        running.cancel()
        await asyncio.wait((running,))


async def test_a_turn_left_open_is_settled_before_the_next(
    place: SessionSettings,
) -> None:
    service, script = RefundService(), Script((refund("o1"),))
    service.gate.clear()
    quick = {"lease_seconds": 0.5}
    path = place
    async with (
        shop(path, script, service, sessions=quick) as first,
        shop(path, Script(), service, sessions=quick) as second,
    ):
        running = asyncio.create_task(ask(first))
        await service.entered.wait()
        _stop_writing(first)
        page = await second.engine.store.sessions(ANN, limit=5)
        session = page.sessions[0].key.session
        after = await ask(second, "Hello?", session=session)
        assert after.problem is None
        turns = await stored(second, session)
        assert [each.status for each in turns] == ["interrupted", "completed"]
        assert statuses(turns[0]) == ["unknown"]
        assert [each.kind for each in await waits(second)] == ["unknown"]
        service.gate.set()
        running.cancel()
        await asyncio.wait((running,))


def _stop_writing(app: object) -> None:
    """From now on the orchestrator is as good as dead: nothing of it reaches the store."""

    async def refuse(*_: object, **__: object) -> None:
        raise ServerStopping("dead")

    store = app.engine.store  # type: ignore[attr-defined]
    for name in ("journal", "commit", "renew", "release"):
        setattr(store, name, refuse)


async def test_a_job_continues_the_turn_of_another_with_its_key(place: SessionSettings) -> None:
    """Regression: an acknowledgement was lost, and the client sent the turn again.

    The second request bound the key, and its server died. Each attempt of the first one's job
    continued that turn, and was refused, because the turn's job was not its own.
    """
    service, script = RefundService(), Script()
    quick = {"lease_seconds": 0.5}
    async with (
        shop(place, script, service, sessions=quick, retry="key") as first,
        shop(place, script, service, sessions=quick, retry="key") as second,
    ):
        session = (await ask(second, "Hello")).request.session
        store, script.steps = second.engine.store, ((refund("o1"),),)
        job = BackgroundJob(
            key=SessionKey("shop", "ann", session),
            request=_in_background(session),
            accepted_at=time.time(),
            ends_at=time.time() + 60,
        )
        await store.begin(
            Begin(
                key=job.key,
                turn=job.request.id,
                turns=1,
                until=time.time() + 0.1,
                idempotency_key="k",
                fingerprint=fingerprint(job.request),
                background_job=job,
            )
        )
        await asyncio.sleep(0.2)
        service.gate.clear()
        again = first.engine.pipeline.start(_in_background(session), Trusted(ANN))
        await service.entered.wait()
        _stop_writing(first)
        service.gate.set()
        assert second.engine.orphan_recovery is not None
        async with asyncio.timeout(15):
            while (await stored(second, session))[-1].status != "completed":
                await second.engine.orphan_recovery.recover_orphaned_turns()
                await asyncio.sleep(0.2)
        assert (await stored(second, session))[-1].id == again.id
        assert len({key for _, _, key in service.calls}) == 1
        await again.wait(cancel=True)


async def test_an_attempt_is_not_superseded_by_an_earlier_one(place: SessionSettings) -> None:
    """Regression: it took the lease of its own turn for that of another request."""
    service, script = RefundService(), Script()
    async with shop(place, script, service) as app:
        session = (await ask(app, "Hello")).request.session
        store, script.steps = app.engine.store, ((refund("o1"),),)
        request = _in_background(session)
        key, now = SessionKey("shop", "ann", session), time.time()
        job = BackgroundJob(key=key, request=request, accepted_at=now, ends_at=now + 60)
        first = Begin(
            key=key,
            turn=request.id,
            turns=1,
            until=now + 0.3,
            idempotency_key="k",
            fingerprint=fingerprint(request),
            background_job=job,
        )
        await store.begin(first)
        await asyncio.sleep(0.4)
        second = await store.claim_job(job, until=time.time() + 0.3)
        assert second is not None
        await asyncio.sleep(0.4)
        late = structs.replace(first, until=time.time() + 1.0, background_job=None)
        assert (await store.begin(late)).session_lease is None
        third = await store.claim_job(second, until=time.time() + 20)
        assert third is not None
        live = app.engine.pipeline.run_job(third)
        events = [event async for _, event in live.follow()]
        assert type(events[-1]).__name__ == "TurnCompleted"
        assert service.done == ["o1"]


def _in_background(session: str) -> TurnRequest:
    return new_request("Refund it", session=session, idempotency_key="k", background=True)


async def test_retries_while_the_model_is_down_use_up_no_step(place: SessionSettings) -> None:
    service, script = RefundService(), Script((refund("o1"),), failures=15)
    async with shop(place, script, service) as app:
        for _ in range(15):
            failed = await ask(app, idempotency_key="k")
            assert failed.problem is not None
            assert failed.problem.code == "upstream-failed"
        assert (await ask(app, idempotency_key="k")).problem is None
        assert len(service.calls) == 1


async def test_calls_of_one_step_with_the_same_id(place: SessionSettings) -> None:
    calls = tuple(
        refund(f"o{number}", call=call) for number, call in enumerate(("x", "x", "x_1", "x"))
    )
    service = RefundService()
    async with shop(place, Script(calls), service) as app:
        outcome = await ask(app)
        assert outcome.problem is None
        assert service.done == ["o0", "o1", "o2", "o3"]


async def test_calls_of_several_steps_with_the_same_id(place: SessionSettings) -> None:
    service = RefundService()
    script = Script((refund("o1", call="x"),), (refund("o2", call="x"),))
    async with shop(place, script, service, approve="always") as app:
        first = await ask(app)
        turn = first.request.id
        _, live = await app.engine.pipeline.decide(ANN, turn, "x", Verdict(decision="approve"))
        assert live is not None
        second = [event async for _, event in live.follow()]
        assert second[: len(first.events)] == first.events
        (waiting,) = await waits(app)
        assert waiting.call == "x_1"
        _, live = await app.engine.pipeline.decide(ANN, turn, "x_1", Verdict(decision="approve"))
        assert live is not None
        third = [event async for _, event in live.follow()]
        assert third[: len(second)] == second
        assert service.done == ["o1", "o2"]


async def test_arguments_that_no_record_could_hold_are_refused(place: SessionSettings) -> None:
    most = len('{"amount":5,"order":"o1","reason":""}')
    for reason, calls in (("\u6c49" * 50_000, 0), ('"' * ((65_536 - most) // 2), 1)):
        service, script = RefundService(), Script((refund("o1", reason=reason),))
        async with shop(place, script, service) as app:
            outcome = await ask(app)
            assert outcome.problem is None
            assert len(service.calls) == calls
            script.steps = ()
            assert (await ask(app, "next", session=outcome.request.session)).problem is None


async def test_all_effects_of_a_step_can_end_at_once(place: SessionSettings) -> None:
    calls = tuple(refund(f"o{number}", call=f"c{number}") for number in range(60))
    service, limits = RefundService(), AgentLimits(tool_calls=100)
    brief = Approval(expires_seconds=1.0)
    async with shop(place, Script(calls), service, limits=limits, approve=brief) as app:
        outcome = await ask(app)
        assert outcome.kinds[-1] == "TurnPaused"
        await asyncio.sleep(1.1)
        (job,) = await app.engine.store.orphaned_jobs(limit=1)
        claimed = await app.engine.store.claim_job(job, until=time.time() + 20)
        assert claimed is not None
        live = app.engine.pipeline.run_job(claimed)
        assert type([event async for _, event in live.follow()][-1]).__name__ == "TurnCompleted"
        assert not service.calls


async def test_effects_need_leases(tmp_path: Path) -> None:
    place = SessionSettings(path=str(tmp_path / "sessions.db"), lease_seconds=0)
    app = Orchestrator(Settings(sessions=place))
    app.model("m", ScriptedModel(Script()))
    app.tool(RefundService().look_up)
    app.agent("a", AgentSettings(instructions="x", model="m", tools=("look_up",)))
    async with app:
        assert (await ask(app)).problem is None
    with pytest.raises(ConfigError, match=r"sessions\.lease_seconds: .* the tool refund of the a"):
        async with shop(place, Script(), RefundService()):
            pass
