"""What the console of one worker consists of: recorder, sampler, peers and feed."""

import asyncio
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from seawall.console.feed import NowFeed, Samples
from seawall.console.logins import Logins, SeenLogin, SeenLogins
from seawall.console.now import Sampler
from seawall.console.peers import Peers, Question
from seawall.console.recording import TurnRecorder
from seawall.console.shown import ShownTurn, ShownTurns, TurnDetails, TurnRow, search, show_turn
from seawall.console.surge import ShownSurge, ShownSurges, Surges

if TYPE_CHECKING:
    from seawall.composition import Engine
    from seawall.config import Settings
    from seawall.orchestrator import Orchestrator
    from seawall.storage.counters import Counters

__all__ = ["ConsoleService", "open_service", "shared_folder"]

_MAX_ROWS = 200
_MAX_TENANTS = 20  # whose budgets are shown


def shared_folder() -> Path | None:
    """The folder that the workers of a server share; None for a process by itself."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None


class ConsoleService:
    """The console of one worker.

    Attributes:
        feed: What happens now.
        surges: Surges that are started from the page.
        logins: Which logins are accepted.
    """

    def __init__(
        self, engine: "Engine", recorder: TurnRecorder, settings: "Settings", worker: int | None
    ) -> None:
        """Create the service.

        Args:
            engine: What is shown.
            recorder: Its recent turns.
            settings: The configuration.
            worker: Index of this worker, if there are several.
        """
        self._engine = engine
        self._recorder = recorder
        self._settings = settings
        self._counters: Counters | None = None
        self._sampler = Sampler(recorder)
        folder = shared_folder() if worker is not None else None
        self.surges = Surges(settings.console.surge, settings.console.reports, folder)
        self._peers = Peers(worker or 0, folder, self._answer)
        self.logins = Logins(self._open_counters, seconds=settings.turn.session)
        self.feed = NowFeed(
            self._peers,
            viewers=settings.console.viewers,
            sample=self.sample,
            read_budgets=self._read_budgets,
        )

    async def open(self) -> None:
        """Answer the questions of other workers from now on."""
        await self._peers.open()

    async def close(self) -> None:
        """Stop."""
        await self.surges.close()
        await self.feed.close()
        await self._peers.close()

    def sample(self) -> None:
        """Take the sample of this second, unless it was taken; called every second."""
        self._sampler.sample(self._engine)

    async def search(self, wanted: dict[str, str]) -> tuple[list[TurnRow], int]:
        """Recent turns of all workers, newest first, and how many are kept.

        Args:
            wanted: See `shown.search`.
        """
        answers = await self._peers.ask(Question(search=wanted), ShownTurns)
        rows = [row for each in answers.values() for row in each.turns]
        rows.sort(key=lambda row: row.began_at, reverse=True)
        return rows[:_MAX_ROWS], sum(each.kept for each in answers.values())

    async def turn(self, turn: str, *, content: bool) -> TurnDetails | None:
        """A recent turn of any worker; None if none knows it.

        Args:
            turn: Its id.
            content: Whether its events are included.
        """
        answers = await self._peers.ask(Question(turn=turn, content=content), ShownTurn)
        return _newest(answers.values())

    async def seen_logins(self, *, anew: bool = False) -> list[SeenLogin]:
        """The logins that the workers have seen, those used last first.

        Args:
            anew: Have all workers ask the store which have ended.
        """
        answers = await self._peers.ask(Question(logins="anew" if anew else ""), SeenLogins)
        newest: dict[str, SeenLogin] = {}
        for each in sorted((x for a in answers.values() for x in a.logins), key=_seen_at):
            newest[each.login.id] = each
        return list(reversed(newest.values()))

    async def surge(self, stop: str = "") -> ShownSurge | None:
        """The newest surge of all workers; None without any.

        Args:
            stop: Id of one that is to be stopped.
        """
        answers = await self._peers.ask(Question(surge=stop), ShownSurges)
        surges = [each.surge for each in answers.values() if each.surge is not None]
        shown = max(surges, key=lambda each: each.began_at, default=None)
        newest = self.surges.newest()  # its worker may be late, or have ended
        return newest if newest is not None and (shown is None or shown.id != newest.id) else shown

    def _answer(self, question: Question) -> Struct:
        if question.logins is not None:
            if question.logins:
                self.logins.forget_answers()
            return self.logins.seen()
        if question.surge is not None:
            if question.surge:
                self.surges.stop(question.surge)
            return self.surges.shown()
        if question.search is not None:
            return search(self._recorder, question.search)
        if question.turn is not None:
            return show_turn(self._recorder, question.turn, content=question.content)
        self.sample()
        return Samples(self._sampler.after(question.after or 0))

    async def _open_counters(self) -> "Counters":
        if self._counters is None:
            counters = self._engine.store.counters()
            await counters.open()
            self._counters = counters
        return self._counters

    async def _read_budgets(self) -> list[Struct]:
        """The state of the budgets of the tenants that the configuration names."""
        budgets = self._settings.budgets
        if not budgets.tenants:
            return []
        from seawall.budgets.budgets import read_budgets  # noqa: PLC0415 - only where there are

        counters = await self._open_counters()
        states: list[Struct] = []
        async with asyncio.timeout(self._settings.turn.session):
            for tenant in sorted(budgets.tenants)[:_MAX_TENANTS]:
                states += await read_budgets(budgets, counters, tenant, time.time())
        return states


def _seen_at(seen: SeenLogin) -> float:
    return seen.seen_at


def open_service(orchestrator: "Orchestrator", worker: int | None = None) -> ConsoleService:
    """The service of an orchestrator whose turns are recorded.

    Args:
        orchestrator: Is open.
        worker: Index of this worker, if there are several.
    """
    engine = orchestrator.engine
    assert engine.recorder is not None  # noqa: S101 - the console is on
    return ConsoleService(engine, engine.recorder, orchestrator.settings, worker)


def _newest(answers: Iterable[ShownTurn]) -> TurnDetails | None:
    """Of a turn that was continued by another worker, the last part."""
    known = [each.turn for each in answers if each.turn is not None]
    return max(known, key=lambda each: each.row.began_at, default=None)
