"""Retail tasks with each of their changes interrupted once, and retried by another wording.

A turn is interrupted at a boundary of each effect: by the end of its process (nothing of it reaches
the store any more, and another orchestrator opens the same file), by cancellation, or by a failure
of the tool or the model. Each attempt's model words and groups the calls in its own way. In the
end the records are exactly those of the reference. In `make test` each task is interrupted at one
of the points, in `make test-long` at all.
"""

import asyncio
import functools
import json
import random
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
from examples.store.catalogue import Catalogue
from examples.store.tools import open_store
from hypothesis import given
from hypothesis import strategies as st

from seawall import Orchestrator, Principal, ScriptedModel, Settings, ToolContext, new_request
from seawall.agents import AgentLimits
from seawall.config import AgentSettings
from seawall.errors import Problem, ServerStopping, UpstreamFailed
from seawall.events import Event, ToolReturned, TurnCompleted, TurnPaused, TurnStarted
from seawall.identity import Trusted
from seawall.models import ModelRequest
from seawall.pipeline.decisions import Verdict
from seawall.pipeline.live import LiveTurn
from seawall.settings import SessionSettings
from seawall.storage.audit import verify
from seawall.storage.port import JournalWrite
from seawall.tools.toolset import FunctionTool
from seawall.turn import Message, ToolCall, ToolMessage
from tests.properties import examples, rotated, sampled
from tests.store.retail import FOLDER, Task, check_changes, documents, load_tasks

STAFF = Principal("store", "sam", ("staff",))
FINAL = ("done", "failed")
MAX_ATTEMPTS = 40
AT_ONCE = 6

Point = Literal["before the effect", "before its outcome", "before the next model call"]
POINTS: tuple[Point, ...] = (
    "before the effect",
    "before its outcome",
    "before the next model call",
)
KINDS = ("process", "cancel", "failure")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    load_tasks()
    path = tmp_path_factory.mktemp("retail") / "retail.db"
    catalogue = Catalogue(path)
    catalogue.fill(FOLDER / "db.json")
    catalogue.close()
    return path


class Interruption:
    """Interrupts each effect of a turn once, at one point, in one way.

    Attributes:
        point: Where.
        kind: How: one of KINDS.
        keys: Of the effects that were interrupted.
        dead: Whether the process is gone.
        stop: Cancels the turn that runs.
        pending_failure: Whether the next call of the model fails.
    """

    def __init__(self, point: Point, kind: str) -> None:
        self.point = point
        self.kind = kind
        self.keys: set[str] = set()
        self.dead = False
        self.stop: Callable[[], object] = lambda: None
        self.pending_failure = False

    def watch(self, app: Orchestrator) -> None:
        """Interrupt the turns of an orchestrator at what it writes."""
        store = app.engine.store
        write = store.journal
        self.dead = False

        async def journal(change: JournalWrite) -> None:
            if self.dead:
                raise ServerStopping("The process is gone.")
            found = self._reached(change)
            self.keys |= found
            late = self.point == "before its outcome"
            if found and late:
                self._interrupt()
            await write(change)
            if found and not late:
                self._interrupt()

        async def refuse(*_: object, **__: object) -> None:
            raise ServerStopping("The process is gone.")

        async def guarded(call: Any, *arguments: Any, **named: Any) -> Any:
            return await (refuse() if self.dead else call(*arguments, **named))

        store.journal = journal  # type: ignore[method-assign, assignment]
        for name in ("commit", "renew", "release", "fail_job", "hand_over_job"):
            setattr(store, name, functools.partial(guarded, getattr(store, name)))

    def _reached(self, change: JournalWrite) -> set[str]:
        """The effects that are at the point, and have not been interrupted."""
        assert change.turn.journal
        wanted = ("begun",) if self.point == "before the effect" else FINAL
        reached = {each.key for each in change.turn.journal.effects if each.status in wanted}
        return set() if self.kind == "failure" else reached - self.keys

    def _interrupt(self) -> None:
        if self.kind == "process":
            self.dead = True
            raise ServerStopping("The process is gone.")
        self.stop()

    def wrap(self, each: FunctionTool) -> Callable[..., Any]:
        """The function of a tool, with failures of the connection to its service."""

        @functools.wraps(each.function)
        def called(**arguments: Any) -> Any:
            context = arguments.get("context")
            if not isinstance(context, ToolContext) or not each.mutating or self.kind != "failure":
                return each.function(**arguments)
            if context.idempotency_key in self.keys:
                return each.function(**arguments)
            self.keys.add(context.idempotency_key)
            if self.point == "before the effect":
                raise ConnectionError("refused")
            result = each.function(**arguments)
            if self.point == "before its outcome":
                raise ConnectionError("reset")
            self.pending_failure = True
            return result

        return called


class RewordingModel:
    """Asks for the actions of a task; whenever it is asked, it words and groups them differently.

    Changes and reads are not mixed in a step, and what finds the customer is one of its own.
    """

    def __init__(
        self, task: Task, mutating: set[str], interruption: Interruption, seed: str
    ) -> None:
        self.task = task
        self.mutating = mutating
        self.interruption = interruption
        self.random = random.Random(seed)
        self.shown: list[list[ToolMessage]] = []

    def __call__(self, request: ModelRequest) -> str | tuple[ToolCall, ...]:
        """The answer to a request."""
        if self.interruption.pending_failure:
            self.interruption.pending_failure = False
            raise UpstreamFailed("The model is down.")
        self.shown.append(_results(request.messages))
        rest = self.task.actions[len(self.shown[-1]) :]
        if not rest:
            return "Done."
        first = rest[0][0]
        count = 1
        if not first.startswith("find_user"):
            most = self.random.randint(1, 3)
            while count < min(most, len(rest)):
                name = rest[count][0]
                mixed = (name in self.mutating) != (first in self.mutating)
                if mixed or name.startswith("find_user"):
                    break
                count += 1
        return tuple(self._reworded(name, given) for name, given, _ in rest[:count])

    def _reworded(self, name: str, given: dict[str, Any]) -> ToolCall:
        items = list(given.items())
        self.random.shuffle(items)
        text = json.dumps(
            dict(items),
            ensure_ascii=self.random.random() < 0.5,
            indent=self.random.choice([None, 2]),
        )
        return ToolCall(f"call-{self.random.getrandbits(40):x}", name, text)


def _results(messages: tuple[Message, ...]) -> list[ToolMessage]:
    """The results that the model is shown, of all turns of the session."""
    return [each for each in messages if isinstance(each, ToolMessage)]


class Shop:
    """One task's customer with a shop of their own, whose processes come and go."""

    def __init__(self, task: Task, folder: Path, interruption: Interruption, seed: str) -> None:
        self.task = task
        self.interruption = interruption
        self.customer = Principal("store", task.customer or "guest")
        self.toolset = open_store(database=folder / "retail.db", as_reference=True)
        self.sessions = SessionSettings(
            path=str(folder / "sessions.db"), lease_seconds=1.0, orphan_scan_seconds=0
        )
        mutating = {each.name for each in self.toolset.tools if each.mutating}
        self.model = RewordingModel(task, mutating, interruption, seed)
        self.approved_by: set[str] = set()

    @asynccontextmanager
    async def process(self) -> AsyncGenerator[Orchestrator, None]:
        """An orchestrator on the shop's files."""
        app = Orchestrator(Settings(sessions=self.sessions))
        app.model("m", ScriptedModel(self.model))
        for each in self.toolset.tools:
            assert isinstance(each, FunctionTool)
            policy = each.policy
            options = (
                {"mutating": True, "retry": policy.retry, "approve": policy.approval}
                if policy is not None
                else {}
            )
            app.tool(self.interruption.wrap(each), **options)
        app.agent(
            "a",
            AgentSettings(
                instructions="x",
                model="m",
                tools=tuple(each.name for each in self.toolset.tools),
                limits=AgentLimits(steps=24),
            ),
        )
        async with app:
            self.interruption.watch(app)
            yield app

    async def serve(self) -> list[Event]:
        """Send the same request until it is answered; the events of the whole turn."""
        attempts = 0
        while attempts < MAX_ATTEMPTS:
            async with self.process() as app:
                while attempts < MAX_ATTEMPTS and not self.interruption.dead:
                    attempts += 1
                    events = await self._ask(app, self.task.text, idempotency_key="the-same")
                    last = events[-1] if events else None
                    if isinstance(last, TurnCompleted):
                        await self._check_audit(app)
                        return events
                    if isinstance(last, TurnPaused):
                        await self._approve(app, last)
        raise AssertionError(f"{self.task.id}: not answered in {MAX_ATTEMPTS} attempts")

    async def converse(self) -> int:
        """Send a new message whenever a turn is interrupted; how many turns it takes."""
        session, text = None, self.task.text
        async with self.process() as app:
            for turns in range(1, MAX_ATTEMPTS):
                events = await self._ask(app, text, session=session)
                while isinstance(events[-1], TurnPaused):
                    turn = events[-1].turn
                    await self._approve(app, events[-1])
                    events = await self._events(app, turn)
                if isinstance(events[-1], TurnCompleted):
                    await self._check_audit(app)
                    return turns
                started = events[0]
                assert isinstance(started, TurnStarted)
                session, text = started.session, "Is it done? If not, go on, please."
        raise AssertionError(f"{self.task.id}: not answered in {MAX_ATTEMPTS} turns")

    async def _events(self, app: Orchestrator, turn: str) -> list[Event]:
        events: list[Event] = []
        with suppress(Problem):
            async for _, event in app.engine.events(self.customer, turn):
                events.append(event)
        return events

    async def _ask(self, app: Orchestrator, text: str, **rest: Any) -> list[Event]:
        request = new_request(text, **rest)
        events: list[Event] = []

        async def emit(*happened: Event) -> None:
            events.extend(happened)

        running = asyncio.create_task(app.engine.execute(request, Trusted(self.customer), emit))
        self.interruption.stop = running.cancel
        (ended,) = await asyncio.gather(running, return_exceptions=True)
        if isinstance(ended, BaseException):
            assert isinstance(ended, Problem | asyncio.CancelledError), ended
        return events

    async def _approve(self, app: Orchestrator, paused: TurnPaused) -> None:
        """The customer and the shop's staff agree to everything that waits."""
        waits = (await app.engine.store.waits("store", limit=100)).waits
        assert {each.call for each in waits} >= set(paused.waits)
        for wait in waits:
            if wait.decision is not None:
                continue
            by = STAFF if wait.role else self.customer
            self.approved_by.add("staff" if wait.role else "customer")
            with suppress(Problem):
                _, live = await app.engine.pipeline.decide(
                    by, wait.turn, wait.call, Verdict(decision="approve")
                )
                if live is None:
                    continue
                await self._follow(live)

    async def _follow(self, live: LiveTurn) -> None:
        """Wait for a turn that goes on, until it ends or is interrupted."""
        stopping: list[asyncio.Task[None]] = []
        self.interruption.stop = lambda: stopping.append(
            asyncio.create_task(live.wait(cancel=True))
        )
        await live.wait(cancel=False)
        await asyncio.gather(*stopping)

    async def _check_audit(self, app: Orchestrator) -> None:
        records = (await app.engine.store.audit(limit=1_000)).records
        assert verify(records) is None
        last = {each.effect: each for each in records if each.kind == "effect"}
        wanted = [name for name, _, _ in self.task.actions if name in self.model.mutating]
        assert sorted(each.tool for each in last.values()) == sorted(wanted), self.task.id
        assert {each.status for each in last.values()} <= set(FINAL), self.task.id
        assert len(self.interruption.keys) == len(wanted), self.task.id
        assert not (await app.engine.store.waits("store", limit=10)).waits


async def _run(
    task: Task, filled: Path, folder: Path, interruption: Interruption, seed: str
) -> set[str]:
    """Serve one task; who had to approve something."""
    shutil.copytree(filled.parent, folder)
    shop = Shop(task, folder, interruption, seed)
    try:
        events = await shop.serve()
    finally:
        shop.toolset.close()
    outcomes = [(each.name, not each.failed) for each in events if isinstance(each, ToolReturned)]
    assert outcomes == [(name, succeeds) for name, _, succeeds in task.actions], task.id
    check_changes(task, documents(filled), documents(folder / filled.name))
    shutil.rmtree(folder)
    return shop.approved_by


@pytest.mark.parametrize(("point", "part"), rotated(POINTS))
@examples(1, 6)
@given(seed=st.integers(0, 2**32))
async def test_tasks_interrupted_at_each_change(
    seed: int, point: Point, part: int, filled: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tasks = load_tasks()[part :: len(POINTS)]
    folder = tmp_path_factory.mktemp("tasks")
    free = asyncio.Semaphore(AT_ONCE)
    approved_by: set[str] = set()

    async def run(index: int, task: Task) -> None:
        async with free:
            kind = KINDS[(index + seed + POINTS.index(point)) % len(KINDS)]
            approved_by.update(
                await _run(
                    task,
                    filled,
                    folder / task.id,
                    Interruption(point, kind),
                    f"{seed} {task.id}",
                )
            )

    async with asyncio.TaskGroup() as group:
        for index, task in enumerate(tasks):
            group.create_task(run(index, task))
    assert approved_by == {"customer", "staff"}


@pytest.mark.parametrize("part", sampled(range(2), 2))
async def test_a_new_message_after_an_interruption_repeats_nothing(
    filled: Path, tmp_path: Path, part: int
) -> None:
    """After each change the model fails, and the customer asks something else."""
    free = asyncio.Semaphore(AT_ONCE)

    async def run(task: Task) -> None:
        async with free:
            folder = tmp_path / task.id
            shutil.copytree(filled.parent, folder)
            shop = Shop(task, folder, Interruption("before the next model call", "failure"), "0")
            try:
                turns = await shop.converse()
            finally:
                shop.toolset.close()
            changes = [name for name, _, succeeds in task.actions if succeeds]
            assert (turns > 1) == any(name in shop.model.mutating for name in changes), task.id
            outcomes = [(each.name, not each.failed) for each in shop.model.shown[-1]]
            assert outcomes == [(name, succeeds) for name, _, succeeds in task.actions], task.id
            for before, after in pairwise(shop.model.shown):
                assert after[: len(before)] == before, task.id
            check_changes(task, documents(filled), documents(folder / filled.name))
            shutil.rmtree(folder)

    async with asyncio.TaskGroup() as group:
        for task in load_tasks()[part::2]:
            group.create_task(run(task))
