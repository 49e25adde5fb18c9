"""Answer cache: reuses an agent's answer to the same question.

Only agents that are declared cacheable are cached, and only if every tool that they, or agents
that they may hand over to, have is declared cacheable too. The key always has the tenant in it,
and the subject as well, unless the agent's scope is the tenant.
"""

import asyncio
import hashlib
import unicodedata
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from seawall.agents import Agent
from seawall.agents.calls import AgentTurn, Answer, Emit
from seawall.agents.loop import run_agent
from seawall.caches import BoundedCache, SingleFlight, Sink
from seawall.errors import ConfigError, DeadlineExceeded
from seawall.events import Event, TextDelta, TurnQueued
from seawall.settings import AnswerCacheSettings, CacheLimits
from seawall.turn import ToolMessage, UserMessage

__all__ = ["AnswerCache"]

_OVERHEAD_BYTES = 1_024


class _AnswerKey(Struct, frozen=True):
    """The cache key. `subject` is empty for the scope "tenant"; `digest` is that of the agents."""

    tenant: str
    subject: str
    shared: bool
    agent: str
    digest: str
    text: str


class _CachedAnswer(Struct, frozen=True):
    """An answer with its events."""

    answer: Answer
    events: tuple[Event, ...]


class AnswerCache:
    """The answer cache of one process."""

    def __init__(
        self,
        declared: Mapping[str, AnswerCacheSettings],
        agents: Mapping[str, Agent],
        limits: CacheLimits,
        *,
        seconds: float,
    ) -> None:
        """Create an empty cache.

        Args:
            declared: Settings of the cacheable agents, by name.
            agents: All agents, by name.
            limits: Bounds of memory.
            seconds: The longest that producing an answer may take, whichever turns wait for it.

        Raises:
            ConfigError: An agent is declared cacheable and has a tool that is not.
        """
        self._agents = agents
        self._seconds = seconds
        self._settings = declared
        self._declared: dict[str, tuple[AnswerCacheSettings, str]] = {}
        self.follow_agents()
        self._cache: BoundedCache[_AnswerKey, _CachedAnswer] = BoundedCache(
            limits.entries, limits.bytes
        )
        self._single_flight: SingleFlight[Event, Answer] = SingleFlight()

    def follow_agents(self) -> None:
        """Take the agents as they are now; answers of other ones are not reused.

        Raises:
            ConfigError: As when it is created; nothing is cached then.
        """
        self._declared = {}
        self._declared = {
            name: (settings, _digest(_checked(name, settings, self._agents)))
            for name, settings in self._settings.items()
        }

    async def answer(
        self, agent: str, turn: AgentTurn, emit: Emit, answer: Answer | None = None
    ) -> Answer:
        """Like `run_agent`, with the same events, and from the cache if possible.

        An answer that was produced for another turn is `cached` and has no usage.

        Raises:
            DeadlineExceeded: The turn's deadline passed.
            Problem: What `run_agent` raises.
        """
        key = self._key(agent, turn)
        if key is None:
            return await run_agent(self._agents, agent, turn, emit, answer)
        clock = asyncio.get_running_loop().time
        first_text_at: float | None = None

        async def take(*events: Event) -> None:
            nonlocal first_text_at
            events = _as_of_now(events, turn.turn)
            for event in events:
                if first_text_at is None and type(event) is TextDelta:
                    first_text_at = clock()
            if events:
                await emit(*events)

        async def produce(pass_on: Sink[Event]) -> Answer:
            return await self._produce(key, turn, pass_on)

        kept = self._cache.get(key, at=clock())
        if kept is not None:
            await take(*kept.events)
            return _as_cached(kept.answer, first_text_at)
        try:
            async with asyncio.timeout_at(turn.deadline):
                found, is_owner = await self._single_flight.join(key, produce, take)
        except TimeoutError as error:
            raise DeadlineExceeded("The answer was not ready in time.", field="deadline") from error
        return found if is_owner else _as_cached(found, first_text_at)

    def _key(self, agent: str, turn: AgentTurn) -> _AnswerKey | None:
        """The cache key; None if the answer depends on more than the question."""
        found = self._declared.get(agent)
        question = turn.history[-1]
        alone = len(turn.history) == 1 and not turn.state
        if found is None or not alone or not isinstance(question, UserMessage):
            return None
        settings, digest = found
        owner = turn.principal
        shared = settings.scope == "tenant"
        subject = "" if shared else owner.subject
        return _AnswerKey(owner.tenant, subject, shared, agent, digest, _normal(question.text))

    async def _produce(self, key: _AnswerKey, turn: AgentTurn, pass_on: Sink[Event]) -> Answer:
        clock = asyncio.get_running_loop().time
        events: list[Event] = []

        async def emit(*happened: Event) -> None:
            for event in happened:
                if type(event) is TurnQueued:
                    continue
                last = events[-1] if events else None
                if type(event) is TextDelta and type(last) is TextDelta:
                    events[-1] = TextDelta(last.text + event.text)
                else:
                    events.append(event)
            await pass_on(*happened)

        # Not the deadline of the first turn: others may have more time. Nor its sink: they, and
        # the cache, get all of the text.
        unhurried = msgspec.structs.replace(turn, deadline=clock() + self._seconds, sink=None)
        answer = await run_agent(self._agents, key.agent, unhurried, emit)
        failed = any(each.failed for each in answer.messages if isinstance(each, ToolMessage))
        if not failed and not turn.state and answer.finish_reason == "stop":
            size = (
                len(msgspec.json.encode((key, answer.messages)))
                + len(msgspec.json.encode(events))
                + _OVERHEAD_BYTES
            )
            until = clock() + self._declared[key.agent][0].seconds
            self._cache.put(key, _CachedAnswer(answer, tuple(events)), size=size, until=until)
        return answer


def _as_of_now(events: tuple[Event, ...], turn: str) -> tuple[Event, ...]:
    """Events for a turn that joins another, perhaps late: how long it waited is of no interest."""
    if not any(type(each) is TurnQueued for each in events):
        return events
    last = events[-1]
    kept = tuple(each for each in events if type(each) is not TurnQueued)
    return (*kept, msgspec.structs.replace(last, turn=turn)) if type(last) is TurnQueued else kept


def _as_cached(answer: Answer, first_text_at: float | None) -> Answer:
    return Answer(
        answer.agent,
        answer.messages,
        first_text_at=first_text_at,
        cached=True,
        finish_reason=answer.finish_reason,
    )


def _normal(text: str) -> str:
    """Normalised text: equal for texts that differ only in encoding and white space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _checked(name: str, settings: AnswerCacheSettings, agents: Mapping[str, Agent]) -> list[Agent]:
    """The agent and all agents that it may hand over to, if all their tools are cacheable."""
    reached, waiting = {name: agents[name]}, [name]
    while waiting:
        for other in agents[waiting.pop()].handoffs:
            if other not in reached:
                reached[other] = agents[other]
                waiting.append(other)
    for agent in reached.values():
        for tool in agent.tools.values():
            if tool.cache_seconds is None:
                raise ConfigError(
                    f"agents.{name}.cache: tool {tool.name} of agent {agent.name} is not declared "
                    "cacheable; answers that may depend on it cannot be reused"
                )
            if settings.scope == "tenant" and not tool.shared:
                raise ConfigError(
                    f"agents.{name}.cache.scope: tool {tool.name} of agent {agent.name} is not "
                    "declared shared; its results belong to one subject"
                )
    return list(reached.values())


def _digest(agents: list[Agent]) -> str:
    """A digest of all known inputs that determine the answers."""
    parts = [
        (each.name, each.prompt.instructions, each.prompt.tools, each.temperature, each.limits)
        for each in agents
    ]
    models = [repr(each.model) for each in agents]
    return hashlib.sha256(msgspec.json.encode((parts, models))).hexdigest()
