"""Calls that a client runs: continued on any server, whatever dies; none parted from its result."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET

from seawall.config import ServerSettings
from seawall.errors import InvalidField, StoreUnavailable
from seawall.hosts.http.chat_body import ChatBody, chat_request
from seawall.hosts.http.client_calls import effect_of, public_call_id
from seawall.requests import new_session_id, new_turn_id
from seawall.settings import SessionSettings
from seawall.turn import AssistantMessage, Message, SessionKey, ToolMessage
from tests.hosts.client_tools import WEATHER, Clients, asking, serving, steps
from tests.pipeline.conftest import PLACES
from tests.properties import examples, halved

KIEL = ("weather", {"city": "Kiel"})
ROME = ("weather", {"city": "Rome"})
ORDER = ("look_up", {"order": "#W1"})
QUICK = {"lease_seconds": 0.3, "orphan_scan_seconds": 0.1}


def body(messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"model": "open", "tools": [WEATHER], "messages": messages, **more}


def with_results(messages: list[dict[str, Any]], answer: Any) -> list[dict[str, Any]]:
    message = answer.json()["choices"][0]["message"]
    calls = message["tool_calls"]
    returned = [
        {"role": "tool", "tool_call_id": each["id"], "content": each["function"]["arguments"]}
        for each in calls
    ]
    return [*messages, message, *returned]


async def asked(clients: Clients, messages: list[dict[str, Any]], **more: Any) -> Any:
    return await clients.post("/v1/chat/completions", body(messages, **more))


def parted(messages: Sequence[Message]) -> list[str]:
    """Calls without their result right behind, and results without their call."""
    wrong: list[str] = []
    expected: list[str] = []
    for each in messages:
        if isinstance(each, ToolMessage):
            if not expected or expected.pop(0) != each.call_id:
                wrong.append(each.call_id)
            continue
        wrong += expected
        expected = [c.id for c in each.tool_calls] if isinstance(each, AssistantMessage) else []
    return wrong + expected


@pytest.mark.parametrize("stream", [False, True])
async def test_another_server_continues(place: SessionSettings, stream: bool) -> None:
    messages = [{"role": "user", "content": steps([KIEL, ORDER], [ROME])}]
    async with serving(place) as first:
        messages = with_results(messages, await asked(first, messages))
        assert first.looked_up == ["#W1"]
    async with serving(place) as second:
        answer = await asked(second, messages, stream=stream)
        assert answer.status_code == 200, answer.text
        if stream:
            assert '"finish_reason":"tool_calls"' in answer.text
        again = await asked(second, messages)
        messages = with_results(messages, again)
    async with serving(place) as third:
        final = await asked(third, messages)
        text = final.json()["choices"][0]["message"]["content"]
        assert text == 'Results: {"city":"Kiel"}; #W1 is delivered; {"city":"Rome"}'
        assert second.looked_up == third.looked_up == []
        assert len(third.model.requests) == 1


class Death:
    """Cuts a server off from its store before or after one of its journal writes."""

    def __init__(self, clients: Clients, phase: str, number: int) -> None:
        self.happened = asyncio.Event()
        self._point, self._count = (phase, number), 0
        store = clients.app.engine.store
        self._journal = store.journal
        for name in ("commit", "renew", "release", "begin", "claim_job", "hand_over_job"):
            setattr(store, name, self._guarded(getattr(store, name)))
        store.journal = self._write  # type: ignore[method-assign]

    def _guarded(self, method: Any) -> Any:
        async def call(*arguments: object, **named: object) -> object:
            if self.happened.is_set():
                raise StoreUnavailable("dead")
            return await method(*arguments, **named)

        return call

    async def _write(self, write: Any) -> None:
        number, self._count = self._count, self._count + 1
        await self._reach("before", number)
        await self._journal(write)
        await self._reach("after", number)

    async def _reach(self, phase: str, number: int) -> None:
        if (phase, number) == self._point:
            self.happened.set()
        if self.happened.is_set():
            await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("phase", "number", "place"),
    halved(("before", "after"), range(3), PLACES),
    indirect=["place"],
)
async def test_a_server_dies_between_the_results_and_the_next_pause(
    place: SessionSettings, phase: str, number: int
) -> None:
    """Its writes: the results taken, a step of own calls before them and the pause behind them."""
    place = msgspec.structs.replace(place, **QUICK)
    messages = [{"role": "user", "content": steps([KIEL], [ORDER, ROME])}]
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(serving(place))
        messages = with_results(messages, await asked(first, messages))
        death = Death(first, phase, number)
        pipeline = first.app.engine.pipeline
        limits = msgspec.structs.replace(pipeline.ports.limits, commit=1.0)
        pipeline.ports = msgspec.structs.replace(pipeline.ports, limits=limits)
        lost = asyncio.create_task(asked(first, messages))
        dying = asyncio.create_task(death.happened.wait())
        await asyncio.wait((lost, dying), return_when="FIRST_COMPLETED")
        second = await stack.enter_async_context(serving(place))
        async with asyncio.timeout(20):
            retried = await asked(second, messages)
        assert retried.status_code == 200, retried.text
        assert retried.json()["choices"][0]["finish_reason"] == "tool_calls"
        messages = with_results(messages, retried)
        async with asyncio.timeout(20):
            final = await asked(second, messages)
        text = final.json()["choices"][0]["message"]["content"]
        assert text == 'Results: {"city":"Kiel"}; #W1 is delivered; {"city":"Rome"}'
        for each in (lost, dying):
            each.cancel()
        await asyncio.wait((lost, dying))


KINDS: dict[str, tuple[str, Any]] = {
    "client": ("weather", {"city": "Kiel"}),
    "other": ("weather", {"city": "Rome"}),
    "own": ORDER,
    "unknown": ("no_such_tool", {}),
    "broken": ("weather", "{"),
    "list": ("weather", "[1]"),
}
a_step = st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4)
CHAT = ("chat", [0, 1, 2, 3], False)
a_way = st.tuples(
    st.sampled_from(["chat", "stream", "turns"]), st.permutations(range(4)), st.booleans()
)


@examples(12, 150)
@example(  # chat joins a turn that goes on from results which came one by one
    [["client", "client"], ["client"]], [("turns", [0, 1, 2, 3], False)] + [CHAT] * 3
)
@given(st.lists(a_step, min_size=1, max_size=4), st.lists(a_way, min_size=4, max_size=4))
def test_no_order_of_calls_and_results_parts_them(
    tmp_path_factory: pytest.TempPathFactory, chosen: list[list[str]], ways: list[Any]
) -> None:
    asyncio.run(_answer_in_turn(tmp_path_factory.mktemp("calls"), chosen, ways))


async def _answer_in_turn(folder: Path, chosen: list[list[str]], ways: list[Any]) -> None:
    expected: list[str] = []
    async with asyncio.timeout(30), asking(folder) as clients:
        text = steps(*([KINDS[each] for each in step] for step in chosen))
        messages: list[dict[str, Any]] = [{"role": "user", "content": text}]
        answer = (await asked(clients, messages)).json()
        message = answer["choices"][0]["message"]
        for way, order, failed in ways:
            calls = message.get("tool_calls") or []
            if not calls:
                break
            contents = {each["id"]: f"result {len(expected) + n}" for n, each in enumerate(calls)}
            shown = [f"{'!' * (failed and way == 'turns')}{contents[each['id']]}" for each in calls]
            expected += shown
            returned = [
                {"role": "tool", "tool_call_id": name, "content": contents[name]}
                for name in (calls[each]["id"] for each in order if each < len(calls))
            ]
            if way == "turns":
                turn = effect_of(calls[0]["id"]).rpartition(".")[0]
                await _return_one_by_one(clients, turn, returned, failed=failed)
            messages = [*messages, message, *returned]
            if way == "turns" and failed:  # chat cannot say so: it follows by the events
                message = await _next_message(clients, turn, len(expected))
            else:
                answered = await asked(clients, messages, stream=way == "stream")
                assert answered.status_code == 200, answered.text
                if way == "stream":
                    answered = await asked(clients, messages)
                message = answered.json()["choices"][0]["message"]
        assert not message.get("tool_calls")
        for request in clients.model.requests:
            assert parted(request.messages) == []
        (turn_record,) = await _turns(clients, answer["id"])
        assert turn_record.status == "completed"
        assert parted(turn_record.messages) == []
        ours = [
            f"{'!' * each.failed}{each.content}"
            for each in turn_record.messages
            if isinstance(each, ToolMessage) and "result " in each.content
        ]
        assert ours == expected


async def _return_one_by_one(
    clients: Clients, turn: str, returned: list[dict[str, Any]], *, failed: bool
) -> None:
    (record,) = await _turns(clients, turn)
    assert record.journal is not UNSET
    by_effect = {each.id: each.call for each in record.journal.effects}
    for each in returned:
        call = by_effect[effect_of(each["tool_call_id"])]
        path = f"/v1/turns/{turn}/tools/{call}"
        answer = await clients.post(path, {"content": each["content"], "failed": failed})
        assert answer.status_code == 200, answer.text


async def _next_message(clients: Clients, turn: str, known: int) -> dict[str, Any]:
    """What the turn waits for next, or its answer, as a message of the assistant."""
    while True:
        (record,) = await _turns(clients, turn)
        assert record.journal is not UNSET
        waiting = [each for each in record.journal.effects if each.status == "waiting"]
        clients_calls = [each for each in record.journal.effects if each.request is not None]
        if record.status == "completed":
            return {"role": "assistant", "content": record.answer}
        if record.status == "paused" and len(clients_calls) == known + len(waiting):
            calls = [
                {"id": public_call_id(each.id), "type": "function", "function": {
                    "name": each.tool, "arguments": each.arguments}}
                for each in waiting
            ]  # fmt: skip
            return {"role": "assistant", "content": None, "tool_calls": calls}
        await asyncio.sleep(0.01)


async def _turns(clients: Clients, turn: str) -> Any:
    session = turn.removeprefix("trn_").partition(".")[0]
    return (await clients.app.engine.store.turns(SessionKey("acme", "ann", session), limit=9)).turns


ids = st.sampled_from(["a", "b", "c"])
a_call = st.builds(
    lambda name: {"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}}, ids
)
a_message = st.one_of(
    st.just({"role": "user", "content": "hi"}),
    st.just({"role": "system", "content": "x"}),
    st.just({"role": "assistant", "content": "hello"}),
    st.builds(
        lambda calls: {"role": "assistant", "content": None, "tool_calls": calls},
        st.lists(a_call, min_size=1, max_size=3),
    ),
    st.builds(lambda name: {"role": "tool", "tool_call_id": name, "content": "r"}, ids),
)


@examples(300, 5_000)
@given(st.lists(a_message, max_size=8))
def test_a_history_is_refused_or_has_every_result(messages: list[dict[str, Any]]) -> None:
    sent = json.dumps({"model": "a", "messages": [*messages, {"role": "user", "content": "x"}]})
    decoded = msgspec.json.decode(sent, type=ChatBody)
    try:
        request = chat_request(decoded, session=None, key=None, settings=ServerSettings())
    except InvalidField as refusal:
        field = refusal.field
    else:
        field = ""
        _check_whole(request.history)
    assert field == "" or str(field).startswith("messages[")


def _check_whole(history: Sequence[Message]) -> None:
    called = [each.id for m in history for each in getattr(m, "tool_calls", ())]
    returned = [each.call_id for each in history if isinstance(each, ToolMessage)]
    assert len(called) == len(returned)
    open_calls: set[str] = set()
    for each in history:
        if isinstance(each, ToolMessage):
            assert each.call_id in open_calls
            open_calls.discard(each.call_id)
        else:
            assert not open_calls
            open_calls = {c.id for c in getattr(each, "tool_calls", ())}
    assert not open_calls


@given(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True), st.integers(1, 10_000))
def test_an_id_names_its_call(session: str, number: int) -> None:
    effect = f"{new_turn_id(session)}.{number}"
    public = public_call_id(effect)
    assert effect_of(public) == effect
    assert len(public) <= 142
    assert public.replace("_", "").replace("-", "").isalnum()


@given(st.one_of(st.text(max_size=200), st.from_regex(r"call_.{0,80}", fullmatch=True)))
def test_other_ids_name_nothing_or_a_call(public: str) -> None:
    effect = effect_of(public)
    assert not effect or public_call_id(effect) == public
    assert not effect_of(f"call_1_ab_{new_session_id()}/../x")
