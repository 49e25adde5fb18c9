"""Execution of tool calls: threads, abandoned calls that return, and what is left behind."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from seawall import Principal, ToolContext, tool
from seawall.tools.execution import CallExecutor, CallRefused


def _now() -> float:
    return asyncio.get_running_loop().time()


async def test_more_calls_than_threads_wait_and_share_them() -> None:
    used: set[int] = set()

    def work() -> None:
        used.add(threading.get_ident())
        time.sleep(0.01)

    calls = CallExecutor(max_threads=4)
    done = await asyncio.gather(*(calls.in_thread("t", work, _now() + 20) for _ in range(40)))
    assert all(each.error is None for each in done)
    assert 1 <= len(used) <= 8


async def test_a_tool_is_refused_until_its_calls_return() -> None:
    calls = CallExecutor(max_threads=2, max_hung=2)
    may = threading.Event()
    late = await asyncio.gather(
        *(calls.in_thread("t", may.wait, _now() + 0.1) for _ in range(2)),
        return_exceptions=True,
    )
    assert [type(each) for each in late] == [TimeoutError, TimeoutError]
    with pytest.raises(CallRefused, match="2 earlier calls have not returned"):
        await calls.in_thread("t", int, _now() + 5)
    may.set()
    for _ in range(100):
        with contextlib.suppress(CallRefused):
            assert (await calls.in_thread("t", lambda: "back", _now() + 5)).value == "back"
            return
        await asyncio.sleep(0.02)
    pytest.fail("it stayed refused")


async def test_a_call_without_a_thread_was_not_started() -> None:
    calls, may, begun = CallExecutor(max_threads=1), threading.Event(), []
    first = asyncio.create_task(calls.in_thread("t", may.wait, _now() + 20))
    await asyncio.sleep(0)
    with pytest.raises(CallRefused, match="was not started"):
        await calls.in_thread("t", lambda: begun.append(1), _now() + 0.05)
    left = asyncio.create_task(calls.in_thread("t", lambda: begun.append(1), _now() + 20))
    await asyncio.sleep(0.01)
    left.cancel()
    await asyncio.wait((left,))
    may.set()
    await first
    assert (await calls.in_thread("t", lambda: "free", _now() + 20)).value == "free"
    assert not begun


async def test_the_thread_of_a_cancelled_turn_is_in_use_until_the_deadline() -> None:
    calls, may = CallExecutor(max_threads=1), threading.Event()
    turn = asyncio.create_task(calls.in_thread("t", may.wait, _now() + 0.3))
    await asyncio.sleep(0.05)
    turn.cancel()
    await asyncio.wait((turn,))
    assert turn.cancelled()
    assert (await calls.in_thread("t", lambda: "next", _now() + 20)).value == "next"
    may.set()


def test_tools_serve_one_event_loop_after_another() -> None:
    calls = CallExecutor(max_threads=1)
    for _ in range(3):

        async def scenario() -> None:
            assert (await calls.in_thread("t", lambda: 1, _now() + 20)).value == 1

        asyncio.run(scenario())


def _context() -> ToolContext:
    return ToolContext(
        principal=Principal("shop", "ann"),
        session="s",
        turn="t",
        agent="a",
        call="c",
        idempotency_key="k",
        deadline=_now() + 5.0,
        state={},
    )


class Refusing(msgspec.Struct):
    """A parameter's type that runs code of its own."""

    number: int

    def __post_init__(self) -> None:
        raise SystemExit(self.number)


def _nested(depth: int) -> str:
    return '{"what":' + "[" * depth + "]" * depth + "}"


@tool
def refusing(what: Refusing) -> str:
    """Never called."""
    return str(what)


@tool
def anything(what: Any, context: ToolContext) -> str:
    """Take it."""
    return context.call if what else ""


@pytest.mark.parametrize(
    ("called", "arguments"),
    [
        (refusing, '{"what":{"number":3}}'),
        (anything, _nested(30_000)),
        (anything, _nested(990)),
        (anything, '{"what":' + "1" * 60_000 + "}"),
        (anything, '{"what":1e999}'),
    ],
)
async def test_arguments_that_break_parsers_are_reported(called: Any, arguments: str) -> None:
    outcome = await called.call(arguments, _context())
    assert outcome.failed
    assert len(outcome.content) < 5_000


async def test_no_exception_of_a_tool_ends_the_event_loop() -> None:
    raised: list[Callable[[], BaseException]] = [
        lambda: SystemExit(1),
        asyncio.CancelledError,
        lambda: BaseExceptionGroup("all", [KeyboardInterrupt()]),
    ]

    for make in raised:

        @tool
        async def later() -> str:
            await asyncio.sleep(0)
            raise make()  # noqa: B023 - called before the next is made

        assert (await later.call("{}", _context())).content == "later failed."

        @tool
        async def cancels_itself() -> str:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(1)
            return "never"

        assert (await cancels_itself.call("{}", _context())).failed
