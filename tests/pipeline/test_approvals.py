"""Calls that need approval: the turn pauses, is decided once, and goes on."""

import asyncio
import time
from typing import Any

import msgspec
import pytest

from seawall import Orchestrator
from seawall.errors import (
    AlreadyDecided,
    EffectUnknown,
    Forbidden,
    InvalidField,
    Problem,
    TurnNotFound,
)
from seawall.events import ApprovalRequested, Event, ToolReturned, TurnPaused
from seawall.identity import Trusted
from seawall.pipeline.decisions import Verdict, decide_call, resolve_effect
from seawall.pipeline.live import LiveTurn
from seawall.requests import new_request
from seawall.settings import SessionSettings
from seawall.storage.audit import verify
from seawall.tools.policy import Approval
from seawall.turn import Decision, Principal, ToolCall, ToolMessage
from tests.pipeline.shop import (
    ANN,
    STAFF,
    Outcome,
    RefundService,
    Script,
    ask,
    refund,
    shop,
    stored,
    waits,
)

APPROVE = Verdict(decision="approve")
BY_STAFF = Approval("amount > 100", role="staff")


async def _decide(
    app: Orchestrator,
    turn: str,
    verdict: Verdict = APPROVE,
    *,
    call: str = "c1",
    by: Principal = ANN,
) -> list[Event]:
    """Decide, and follow the turn to its end or next pause."""
    _, live = await app.engine.pipeline.decide(by, turn, call, verdict)
    assert isinstance(live, LiveTurn)
    return [event async for _, event in live.follow()]


async def _events(app: Orchestrator, turn: str, after: int = 0) -> list[tuple[int, Event]]:
    return [each async for each in app.engine.events(ANN, turn, after=after)]


async def test_a_turn_pauses_and_goes_on_when_it_is_approved(place: SessionSettings) -> None:
    service = RefundService()
    async with shop(place, Script((refund("o1", 150),)), service, approve=BY_STAFF) as app:
        paused = await ask(app)
        assert paused.problem is None
        requested, last = paused.events[-2:]
        assert isinstance(requested, ApprovalRequested)
        assert (requested.name, requested.role) == ("refund", "staff")
        assert isinstance(last, TurnPaused)
        assert not service.calls
        turn = paused.request.id
        resumed = await _decide(app, turn, by=STAFF)
        assert service.done == ["o1"]
        assert resumed[: len(paused.events)] == paused.events
        assert [each for _, each in await _events(app, turn)][:-1] == resumed[:-1]
        audit = (await app.engine.store.audit(limit=10)).records
        assert [(each.kind, each.status) for each in audit] == [
            ("decision", "approve"),
            ("effect", "done"),
        ]
        assert audit[1].decision is not None
        assert audit[1].decision.by == "sam"
        assert verify(audit) is None
        assert not await waits(app)


async def test_a_stream_is_followed_from_where_it_paused(place: SessionSettings) -> None:
    service = RefundService()
    async with shop(place, Script((refund("o1"),)), service, approve="always") as app:
        paused = await ask(app)
        turn = paused.request.id
        before = await _events(app, turn)
        assert [each for _, each in before] == paused.events
        await _decide(app, turn)
        rest = await _events(app, turn, after=before[-1][0])
        whole = await _events(app, turn)
        assert before + rest == whole
        assert [position for position, _ in whole] == sorted({position for position, _ in whole})


async def test_a_rejection_is_read_by_the_model(place: SessionSettings) -> None:
    service, script = RefundService(), Script((refund("o1"),))
    async with shop(place, script, service, approve="always") as app:
        turn = (await ask(app)).request.id
        await _decide(app, turn, Verdict(decision="reject", note="too late"))
        assert not service.calls
        result = next(
            each for each in script.requests[-1].messages if isinstance(each, ToolMessage)
        )
        assert result.failed
        assert "too late" in result.content


async def test_edited_arguments_are_validated_and_used(place: SessionSettings) -> None:
    service = RefundService()
    async with shop(place, Script((refund("o1", 150),)), service, approve="always") as app:
        turn = (await ask(app)).request.id
        wrong = Verdict(decision="edit", arguments={"order": "o1", "amount": "much"})
        with pytest.raises(InvalidField, match="amount"):
            await app.engine.pipeline.decide(ANN, turn, "c1", wrong)
        right = Verdict(decision="edit", arguments={"order": "o1", "amount": "20.0"})
        events = await _decide(app, turn, right)
        assert service.calls[0][:2] == ("o1", 20)
        for each in (await app.engine.store.audit(limit=10)).records:
            assert each.arguments == '{"amount":20,"order":"o1","reason":""}'
        returned = next(each for each in events if isinstance(each, ToolReturned))
        assert '"amount":20' in returned.content


async def test_long_edited_arguments_are_cut_for_the_model(place: SessionSettings) -> None:
    service = RefundService()
    async with shop(place, Script((refund("o1"),)), service, approve="always") as app:
        turn = (await ask(app)).request.id
        new: dict[str, object] = {"order": "o1", "amount": 20, "reason": "x" * 60_000}
        events = await _decide(app, turn, Verdict(decision="edit", arguments=new))
        returned = next(each for each in events if isinstance(each, ToolReturned))
        assert len(returned.content) < 8_192
        assert returned.content.endswith("refunded o1 20")


async def test_who_may_decide(place: SessionSettings) -> None:
    service = RefundService()
    async with shop(place, Script((refund("o1", 150),)), service, approve=BY_STAFF) as app:
        turn = (await ask(app)).request.id
        cases: list[tuple[Principal, type[Problem]]] = [
            (Principal("other", "sam", ("staff",)), TurnNotFound),
            (Principal("shop", "bob"), TurnNotFound),
            (ANN, Forbidden),
            (Principal("shop", "ann", ("staff",)), Forbidden),
        ]
        for caller, problem in cases:
            with pytest.raises(problem):
                await app.engine.pipeline.decide(caller, turn, "c1", APPROVE)
        assert not service.calls
        await _decide(app, turn, by=STAFF)
        assert service.done == ["o1"]


async def test_of_two_deciders_one_wins(place: SessionSettings) -> None:
    service = RefundService()
    async with shop(place, Script((refund("o1"),)), service, approve="always") as app:
        turn = (await ask(app)).request.id
        reject = Verdict(decision="reject")
        results = await asyncio.gather(
            *(
                app.engine.pipeline.decide(ANN, turn, "c1", each)
                for each in (APPROVE, reject, APPROVE, reject)
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(each, AlreadyDecided) for each in results) == 3
        with pytest.raises((AlreadyDecided, TurnNotFound)):
            await app.engine.pipeline.decide(ANN, turn, "c1", APPROVE)


async def test_several_approvals_of_one_step_in_any_order(place: SessionSettings) -> None:
    service = RefundService()
    calls = tuple(refund(f"o{number}", call=f"c{number}") for number in range(3))
    look_up = ToolCall("c9", "look_up", '{"order": "o1"}')
    async with shop(place, Script((*calls, look_up)), service, approve="always") as app:
        paused = await ask(app)
        turn = paused.request.id
        assert paused.kinds.count("ApprovalRequested") == 3
        first = await _decide(app, turn, call="c1")
        assert isinstance(first[-1], TurnPaused)
        assert service.done == []
        await _decide(app, turn, Verdict(decision="reject"), call="c2")
        last = await _decide(app, turn, call="c0")
        assert type(last[-1]).__name__ == "TurnCompleted"
        assert service.done == ["o0", "o1"]
        assert [each for _, each in await _events(app, turn)][:-1] == last[:-1]
        assert not await waits(app)


async def test_what_is_not_decided_in_time_is_rejected(place: SessionSettings) -> None:
    service, script = RefundService(), Script((refund("o1"),))
    soon = Approval(expires_seconds=0.2)
    async with shop(place, script, service, approve=soon) as app:
        paused = await ask(app)
        await asyncio.sleep(0.3)
        with pytest.raises(AlreadyDecided):
            await app.engine.pipeline.decide(ANN, paused.request.id, "c1", APPROVE)
        await _recover(app)
        events = [each for _, each in await _events(app, paused.request.id)]
        assert type(events[-1]).__name__ == "TurnCompleted"
        assert not service.calls
        result = next(
            each for each in script.requests[-1].messages if isinstance(each, ToolMessage)
        )
        assert "in time" in result.content


async def test_a_paused_turn_survives_its_server(place: SessionSettings) -> None:
    service, script = RefundService(), Script((refund("o1"),))
    path = place
    async with shop(path, script, service, approve="always") as app:
        turn = (await ask(app, idempotency_key="k")).request.id
    async with shop(path, script, service, approve="always") as app:
        again = await ask(app, idempotency_key="k")
        assert again.kinds[-1] == "TurnPaused"
        await _decide(app, turn)
        assert service.done == ["o1"]
        done = await ask(app, idempotency_key="k")
        assert done.kinds[-1] == "TurnCompleted"


async def test_a_decided_turn_is_continued_by_another_server(place: SessionSettings) -> None:
    service, script = RefundService(), Script((refund("o1"),))
    path = place
    async with shop(path, script, service, approve="always") as app:
        turn = (await ask(app)).request.id
        pipeline = app.engine.pipeline
        await decide_call(pipeline.ports, ANN, turn, "c1", APPROVE)  # and then it is gone
    async with shop(path, script, service, approve="always") as app:
        await _recover(app)
        events = [each for _, each in await _events(app, turn)]
        assert type(events[-1]).__name__ == "TurnCompleted"
        assert service.done == ["o1"]


@pytest.mark.parametrize("policy", ["answer", "queue", "refuse"])
async def test_the_next_message_while_a_turn_is_paused(place: SessionSettings, policy: Any) -> None:
    service, script = RefundService(), Script((refund("o1"),))
    sessions = {"busy_seconds": 5.0}
    async with shop(place, script, service, sessions=sessions, approve="always") as app:
        pipeline = app.engine.pipeline
        pipeline.ports = _with_policy(pipeline.ports, policy)
        paused = await ask(app)
        session = paused.request.session
        script.steps = ()
        asking = asyncio.create_task(ask(app, "And?", session=session))
        await asyncio.sleep(0.2)
        if policy == "refuse":
            problem = (await asking).problem
            assert problem is not None
            assert problem.code == "turn-paused"
        elif policy == "answer":
            assert (await asking).problem is None
            shown = [each for each in script.requests[-1].messages if isinstance(each, ToolMessage)]
            assert "waits for approval" in shown[0].content
        else:
            assert not asking.done()
        await _decide(app, paused.request.id)
        answered: Outcome = await asking
        assert (answered.problem is None) == (policy != "refuse")
        turns = await stored(app, session)
        assert {each.status for each in turns} == {"completed"}
        assert len(turns) == (1 if policy == "refuse" else 2)


async def test_a_paused_turn_that_cannot_go_on_does_not_block_its_session(
    place: SessionSettings,
) -> None:
    """As when its agent was renamed: its job has failed, and nothing continues it."""
    script = Script((refund("o1"),))
    sessions, brief = {"background_seconds": 0.5}, Approval(expires_seconds=0.5)
    async with shop(place, script, RefundService(), sessions=sessions, approve=brief) as app:
        pipeline = app.engine.pipeline
        pipeline.ports = _with_policy(pipeline.ports, "refuse")
        session = (await ask(app)).request.session
        script.steps = ()
        problem = (await ask(app, "And?", session=session)).problem
        assert problem is not None
        assert problem.code == "turn-paused"
        await asyncio.sleep(1.1)
        assert (await ask(app, "And?", session=session)).problem is None


async def test_a_turn_that_is_interrupted_waits_no_more(place: SessionSettings) -> None:
    service = RefundService()
    service.faults = [ConnectionError("reset")]
    calls = (refund("o1", call="c1"), refund("o2", call="c2"))
    async with shop(place, Script(calls), service, approve="always") as app:
        turn = (await ask(app, idempotency_key="k")).request.id
        with pytest.raises(EffectUnknown):
            await _decide(app, turn, call="c1")
        (unknown,) = await waits(app)
        assert (unknown.kind, unknown.call) == ("unknown", "c1")
        with pytest.raises(TurnNotFound):
            await app.engine.pipeline.decide(ANN, turn, "c2", APPROVE)
        found = Decision("done", "olga", time.time(), result="refunded")
        await resolve_effect(app.engine.store, unknown, found)
        again = await ask(app, idempotency_key="k")
        assert again.kinds[-1] == "TurnPaused"
        assert [(each.kind, each.call) for each in await waits(app)] == [("approval", "c2")]
        await _decide(app, turn, call="c2")
        assert service.done == ["o1", "o2"]


async def test_a_background_turn_keeps_its_callers_roles(place: SessionSettings) -> None:
    """A rule may ask because of a role, so that a caller without roles would not be asked."""
    service, quick = RefundService(), {"lease_seconds": 0.5}
    blocked = asyncio.Event()

    async def wait(*_: object) -> None:
        blocked.set()
        await asyncio.sleep(60)

    policy: dict[str, Any] = {"approve": "'trial' in caller.roles"}
    script = Script((refund("o1"),))
    async with (
        shop(place, script, service, sessions=quick, **policy) as first,
        shop(place, script, service, sessions=quick, **policy) as second,
    ):
        store: Any = first.engine.store
        store.journal = wait
        request = new_request("Refund it", background=True)
        trial = Principal("shop", "ann", ("trial",))
        live = first.engine.pipeline.start(request, Trusted(trial))
        await blocked.wait()
        store.renew = wait
        await asyncio.sleep(0.6)
        await _recover(second)
        events = [each for _, each in await _events(second, request.id)]
        assert type(events[-1]).__name__ == "TurnPaused"
        assert not service.calls
        await live.wait(cancel=True)


async def _recover(app: Orchestrator) -> None:
    recovery = app.engine.orphan_recovery
    assert recovery is not None
    await recovery.recover_orphaned_turns()
    await app.engine.pipeline.live.close(10)


def _with_policy(ports: Any, policy: str) -> Any:
    return msgspec.structs.replace(ports, next_message=policy)
