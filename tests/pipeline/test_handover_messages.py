"""A conversation that a person has: what both say, and what the assistant reads afterwards."""

import asyncio
import json
from typing import Any

import pytest
from msgspec import UNSET, structs

from seawall import Orchestrator
from seawall.errors import AlreadyDecided, Forbidden, KeyReused, TurnNotFound
from seawall.events import TextDelta, TurnCompleted, TurnPaused
from seawall.identity import Trusted
from seawall.pipeline.decisions import hand_back
from seawall.pipeline.handover import add_message
from seawall.settings import SessionSettings
from seawall.turn import (
    Message,
    Principal,
    SessionKey,
    ToolCall,
    ToolMessage,
    TurnRecord,
    UserMessage,
)
from tests.pipeline.shop import ANN, STAFF, Script, ask, stored
from tests.pipeline.test_handover import ASK_PERSON, Receiver, desk, resume, settled


async def say(app: Orchestrator, turn: str, text: str, **more: Any) -> TurnRecord:
    """A message of the person."""
    session = turn.removeprefix("trn_").rpartition(".")[0]
    return await add_message(app.engine.pipeline.ports, STAFF, session, turn, text, **more)


async def back(app: Orchestrator, turn: str, text: str = "It is solved.") -> None:
    """The hand-back; the turn ends."""
    session = turn.removeprefix("trn_").rpartition(".")[0]
    wait = await hand_back(app.engine.pipeline.ports, STAFF, session, turn, text=text)
    assert isinstance((await resume(app, wait))[-1], TurnCompleted)


def said(message: Message) -> str:
    """A message in short."""
    if isinstance(message, UserMessage):
        return f"user: {message.text}"
    if isinstance(message, ToolMessage):
        return f"tool: {message.content}"
    calls = "".join(f" {each.name}" for each in message.tool_calls)
    return f"{message.by or 'assistant'}: {message.text}{calls}"


FOLDED = (
    'tool: {"conversation":[{"from":"person","text":"Hello, I am Sam."},'
    '{"from":"user","text":"It is \\"broken\\"."},'
    '{"from":"person","text":"I send a new one."}],"result":"It is solved."}'
)


async def test_the_conversation_is_stored_and_read_in_order(
    place: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, script = Receiver(), Script((ASK_PERSON,))
    async with receiver.open() as url, desk(place, script, url, monkeypatch) as app:
        turn = (await ask(app, "A person!")).request
        await say(app, turn.id, "Hello, I am Sam.")
        silent = await ask(app, 'It is "broken".', session=turn.session)
        assert isinstance(silent.events[-1], TurnCompleted)
        assert silent.events[-1].finish_reason == "person"
        assert silent.events[-1].version == 3
        assert not any(isinstance(each, TextDelta) for each in silent.events)
        await say(app, turn.id, "I send a new one.")
        assert len(script.requests) == 1
        turns = await stored(app, turn.session)
        assert [said(each) for one in turns for each in one.messages] == [
            "user: A person!",
            "assistant:  hand_over_to_person",
            "sam: Hello, I am Sam.",
            'user: It is "broken".',
            "sam: I send a new one.",
        ]
        assert [each.during for each in turns] == [UNSET, *[f"{turn.id}.1"] * 3]
        await back(app, turn.id)
        assert [said(each) for each in script.requests[-1].messages] == [
            "user: A person!",
            "assistant:  hand_over_to_person",
            FOLDED,
        ]
        await ask(app, "Thanks", session=turn.session)
        assert [said(each) for each in script.requests[-1].messages] == [
            "user: A person!",
            "assistant:  hand_over_to_person",
            FOLDED,
            "assistant: Done.",
            "user: Thanks",
        ]
        (first, *_) = await stored(app, turn.session)
        assert said(first.messages[2]) == "tool: It is solved."  # nothing is stored twice
        notices = await receiver.until(4)
        assert sorted(each["type"] for each in notices) == [
            "handover.ended",
            "handover.requested",
            "handover.requested",  # "Thanks" was handed over, too
            "message.received",
        ]
        (received,) = (each for each in notices if each["type"] == "message.received")
        message = received["message"]
        assert (received["turn"], received["wait"]) == (turn.id, f"{turn.id}.1")
        assert (message["id"], message["number"]) == (silent.request.id, 3)
        assert (message["text"], received["subject"]) == ('It is "broken".', "ann")


async def test_a_notice_answers_the_user(
    place: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, script = Receiver(), Script((ASK_PERSON,))
    async with (
        receiver.open() as url,
        desk(place, script, url, monkeypatch, notice="A colleague answers.") as app,
    ):
        turn = (await ask(app)).request
        silent = await ask(app, "Hello?", session=turn.session, idempotency_key="k")
        assert TextDelta("A colleague answers.") in silent.events
        again = await ask(app, "Hello?", session=turn.session, idempotency_key="k")
        assert again.events[:-1] == silent.events[:-1]
        assert isinstance(again.events[-1], TurnCompleted)
        assert again.events[-1].replayed
        live = app.engine.start(
            structs.replace(
                again.request, id=f"{again.request.id}b", background=True, idempotency_key=None
            ),
            Trusted(ANN),
        )
        events = [event async for _, event in live.follow()]
        assert isinstance(events[-1], TurnCompleted)
        assert await app.engine.store.find_job(ANN, live.id) is None
        replayed = [each async for _, each in app.engine.events(ANN, live.id, after=0)]
        assert replayed[:-1] == events[:-1]
        await back(app, turn.id)
        result = script.requests[-1].messages[-1]
        assert isinstance(result, ToolMessage)
        assert [each["from"] for each in json.loads(result.content)["conversation"]] == [
            "user",
            "assistant",
        ] * 2
        await settled(app)
        assert len(receiver.received) == 4


async def test_a_person_s_message_is_stored_once(
    place: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, script = Receiver(), Script((ASK_PERSON,))
    async with receiver.open() as url, desk(place, script, url, monkeypatch) as app:
        turn = (await ask(app)).request
        ports = app.engine.pipeline.ports
        for caller, problem in (
            (Principal("other", "sam", ("staff",)), TurnNotFound),
            (Principal("shop", "bob"), TurnNotFound),
            (ANN, Forbidden),
            (Principal("shop", "ann", ("staff",)), Forbidden),
        ):
            with pytest.raises(problem):
                await add_message(ports, caller, turn.session, turn.id, "no")
        with pytest.raises(TurnNotFound):
            await add_message(ports, STAFF, "ses_other", turn.id, "no")
        both = await asyncio.gather(*(say(app, turn.id, "Hi", key="k") for _ in range(3)))
        assert len({each.id for each in both}) == 1
        with pytest.raises(KeyReused):
            await say(app, turn.id, "Other", key="k")
        # The keys of persons and users do not meet.
        assert (await ask(app, "Hi", session=turn.session, idempotency_key="k")).problem is None
        assert len(await stored(app, turn.session)) == 3
        session = turn.session
        wait = await hand_back(ports, STAFF, session, turn.id, text="It is solved.")
        assert (await say(app, turn.id, "Hi", key="k")).id == both[0].id
        for key in ("other", None):
            with pytest.raises(AlreadyDecided):
                await say(app, turn.id, "Too late", key=key)
        await resume(app, wait)
        replay = [each async for _, each in app.engine.events(ANN, both[0].id, after=0)]
        assert TextDelta("Hi") in replay
        with pytest.raises(TurnNotFound):
            await say(app, turn.id, "Too late")


async def test_messages_of_both_at_once_are_all_stored(
    place: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, script = Receiver(), Script((ASK_PERSON,))
    async with receiver.open() as url, desk(place, script, url, monkeypatch) as app:
        turn = (await ask(app)).request
        await asyncio.gather(
            *(say(app, turn.id, f"p{each}") for each in range(4)),
            *(ask(app, f"u{each}", session=turn.session) for each in range(4)),
        )
        turns = await stored(app, turn.session)
        assert [each.number for each in turns] == list(range(1, 10))
        texts = [each.messages[0].text for each in turns[1:]]  # type: ignore[union-attr]
        assert sorted(texts) == [f"{who}{each}" for who in "pu" for each in range(4)]


async def test_nothing_is_added_after_the_hand_back(
    place: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages that meet the hand-back are read by the assistant, or come after it."""
    receiver, script = Receiver(), Script((ASK_PERSON,))
    async with receiver.open() as url, desk(place, script, url, monkeypatch) as app:
        turn = (await ask(app)).request
        store, decided = app.engine.store, asyncio.Event()
        journal = store.journal

        async def late(write: Any) -> None:
            """The hand-back comes between the lease and the write."""
            if write.undecided and not decided.is_set():
                decided.set()
                ports = app.engine.pipeline.ports
                await hand_back(ports, STAFF, turn.session, turn.id, text="It is solved.")
            await journal(write)

        monkeypatch.setattr(store, "journal", late)
        refused = await ask(app, "Hello?", session=turn.session)
        assert refused.problem is not None
        assert (refused.problem.code, refused.problem.status) == ("turn-paused", 409)
        with pytest.raises(AlreadyDecided):
            await say(app, turn.id, "Too late")
        assert len(await stored(app, turn.session)) == 1
        answers = await asyncio.gather(
            ask(app, "Hello?", session=turn.session), _woken(app, turn.id)
        )
        assert answers[0].problem is None
        texts = [said(each) for each in script.requests[-1].messages]
        assert texts[-3:] == ["tool: It is solved.", "assistant: Done.", "user: Hello?"]


async def _woken(app: Orchestrator, turn: str) -> None:
    (wait,) = (await app.engine.store.waits("shop", turn=turn, limit=9)).waits
    await asyncio.sleep(0.2)  # the message is there first, and waits
    await resume(app, wait)


async def test_a_long_conversation_stays_with_the_person(
    place: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the turn that handed over is not among those that are loaded any more."""
    receiver, script = Receiver(), Script((ASK_PERSON,))
    short = structs.replace(place, history_turns=3)
    async with receiver.open() as url, desk(short, script, url, monkeypatch) as app:
        turn = (await ask(app)).request
        for each in range(3):
            assert (await ask(app, f"u{each}", session=turn.session)).problem is None
            await say(app, turn.id, f"p{each}")
        assert len(script.requests) == 1
        await back(app, turn.id)
        result = script.requests[-1].messages[-1]
        assert isinstance(result, ToolMessage)
        conversation = json.loads(result.content)["conversation"]
        assert [each["text"] for each in conversation] == [
            "p1",
            "u2",
            "p2",
        ]  # the window's three turns
        await ask(app, "Thanks", session=turn.session)
        assert [said(each) for each in script.requests[-1].messages] == [
            "assistant: [A person wrote this in your place:] p2",
            "user: Thanks",
        ]


async def test_a_turn_may_hand_over_twice(
    place: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = ToolCall("c1", ASK_PERSON.name, '{"reason": "once more"}')  # the same id again
    receiver, script = Receiver(), Script((ASK_PERSON,), (second,))
    async with receiver.open() as url, desk(place, script, url, monkeypatch) as app:
        turn = (await ask(app)).request
        await say(app, turn.id, "One")
        session, ports = turn.session, app.engine.pipeline.ports
        wait = await hand_back(ports, STAFF, session, turn.id, text="First.")
        assert isinstance((await resume(app, wait))[-1], TurnPaused)
        await say(app, turn.id, "Two")
        await back(app, turn.id, "Second.")
        results = [
            json.loads(each.content)
            for each in script.requests[-1].messages
            if isinstance(each, ToolMessage)
        ]
        assert [each["result"] for each in results] == ["First.", "Second."]
        assert [each["conversation"][0]["text"] for each in results] == ["One", "Two"]


async def test_no_model_and_no_budget_is_used_meanwhile(
    place: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, script, judge = Receiver(), Script((ASK_PERSON,)), Script()
    async with (
        receiver.open() as url,
        desk(place, script, url, monkeypatch, judge=judge) as app,
    ):
        turn = (await ask(app)).request
        assert len(judge.requests) == 1
        reports: list[Any] = []
        app.observe(reports.append)
        await ask(app, "Hello?", session=turn.session)
        assert (len(judge.requests), len(script.requests)) == (1, 1)
        (report,) = reports
        assert (report.outcome, report.usage.model_calls, report.agent) == ("person", 0, "a")


async def test_everything_is_erased_with_the_subject(
    place: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, script = Receiver(*[500] * 9), Script((ASK_PERSON,))
    async with receiver.open() as url, desk(place, script, url, monkeypatch) as app:
        turn = (await ask(app)).request
        await ask(app, "Hello?", session=turn.session)
        await say(app, turn.id, "Hello")
        await settled(app)
        store = app.engine.store
        await store.erase(ANN)
        assert await store.due_notifications(limit=9) == ()
        assert (await store.waits("shop", limit=9)).waits == ()
        assert (await store.load(SessionKey("shop", "ann", turn.session), turns=9)).turns == ()
