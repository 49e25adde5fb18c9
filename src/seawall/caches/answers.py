"""Answers that may be given again: to the same question, where nothing else goes into them.

An agent's answers are only kept where the agent is declared cacheable, and that is refused unless
every tool that it, or an agent that it may hand over to, has is declared cacheable too. The key
has the tenant in it, always, and the subject, unless the agent says that a tenant may share.
"""

import asyncio
import hashlib
import unicodedata
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from seawall.agents.definition import Agent
from seawall.agents.loop import AgentTurn, Answer, Emit, run_agent
from seawall.caches.bounded import BoundedCache
from seawall.caches.settings import AnswerCacheSettings, CacheLimits
from seawall.caches.single_flight import SingleFlight, Sink
from seawall.errors import ConfigError, DeadlineExceeded
from seawall.events import Event, TextDelta
from seawall.turn import ToolMessage, UserMessage

__all__ = ["AnswerCache", "open_answers"]

_OVERHEAD_BYTES = 1_024


class _AnswerKey(Struct, frozen=True):
    """What an answer depends on. subject: empty where a tenant shares. agent: name and digest."""

    tenant: str
    subject: str
    shared: bool
    agent: str
    digest: str
    text: str


class _CachedAnswer(Struct, frozen=True):
    """An answer with the events that told it."""

    answer: Answer
    events: tuple[Event, ...]


class AnswerCache:
    """Of one process.

    seconds: the longest that an answer may take to produce, whoever waits for it.

    Raises:
        ConfigError: an agent is declared cacheable and has a tool that is not.
    """

    def __init__(
        self,
        declared: Mapping[str, AnswerCacheSettings],
        agents: Mapping[str, Agent],
        limits: CacheLimits,
        *,
        seconds: float,
    ) -> None:
        self._agents = agents
        self._seconds = seconds
        self._declared = {
            name: (settings, _digest(_checked(name, settings, agents)))
            for name, settings in declared.items()
        }
        self._cache: BoundedCache[_AnswerKey, _CachedAnswer] = BoundedCache(
            limits.entries, limits.bytes
        )
        self._single_flight: SingleFlight[Event, Answer] = SingleFlight()

    async def answer(self, agent: str, turn: AgentTurn, emit: Emit) -> Answer:
        """As `run_agent`, for the first turn of a session, and with the same events.

        The answer is `cached` and has no usage if it was produced for another turn.

        Raises:
            DeadlineExceeded: the turn's deadline passed.
            Problem: what `run_agent` raises.
        """
        key = self._key(agent, turn)
        if key is None:
            return await run_agent(self._agents, agent, turn, emit)
        clock = asyncio.get_running_loop().time
        first_text_at: float | None = None

        async def take(*events: Event) -> None:
            nonlocal first_text_at
            for event in events:
                if first_text_at is None and type(event) is TextDelta:
                    first_text_at = clock()
            await emit(*events)

        async def produce(pass_on: Sink[Event]) -> Answer:
            return await self._produce(key, turn, pass_on)

        kept = self._cache.get(key, at=clock())
        if kept is not None:
            await take(*kept.events)
            return _as_cached(kept.answer, first_text_at)
        try:
            async with asyncio.timeout_at(turn.deadline):
                answer, is_owner = await self._single_flight.join(key, produce, take)
        except TimeoutError as error:
            raise DeadlineExceeded("The answer was not there in time.", field="deadline") from error
        return answer if is_owner else _as_cached(answer, first_text_at)

    def _key(self, agent: str, turn: AgentTurn) -> _AnswerKey | None:
        """What the answer depends on; None where that is more than the question."""
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
                last = events[-1] if events else None
                if type(event) is TextDelta and type(last) is TextDelta:
                    events[-1] = TextDelta(last.text + event.text)
                else:
                    events.append(event)
            await pass_on(*happened)

        # Not the deadline of whoever happened to ask first: others may have more time.
        unhurried = msgspec.structs.replace(turn, deadline=clock() + self._seconds)
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


def open_answers(
    declared: Mapping[str, AnswerCacheSettings | None],
    agents: Mapping[str, Agent],
    limits: CacheLimits,
    *,
    seconds: float,
) -> AnswerCache | None:
    """The cache of those agents that are declared cacheable; None if there is none.

    Raises:
        ConfigError: see `AnswerCache`.
    """
    wanted = {name: each for name, each in declared.items() if each is not None}
    return AnswerCache(wanted, agents, limits, seconds=seconds) if wanted else None


def _as_cached(answer: Answer, first_text_at: float | None) -> Answer:
    return Answer(
        answer.agent,
        answer.messages,
        first_text_at=first_text_at,
        cached=True,
        finish_reason=answer.finish_reason,
    )


def _normal(text: str) -> str:
    """The same for texts that differ only in how they are encoded and spaced."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _checked(name: str, settings: AnswerCacheSettings, agents: Mapping[str, Agent]) -> list[Agent]:
    """The agent with all to whom the conversation may go; refused unless all tools allow it."""
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
                    "cacheable; answers that may depend on it cannot be given again"
                )
            if settings.scope == "tenant" and not tool.shared:
                raise ConfigError(
                    f"agents.{name}.cache.scope: tool {tool.name} of agent {agent.name} is not "
                    "declared shared; its answers are one subject's own"
                )
    return list(reached.values())


def _digest(agents: list[Agent]) -> str:
    """Of all that makes the agents' answers what they are, as far as it can be told apart."""
    parts = [
        (each.name, each.prompt.instructions, each.prompt.tools, each.temperature, each.limits)
        for each in agents
    ]
    models = [repr(each.model) for each in agents]
    return hashlib.sha256(msgspec.json.encode((parts, models))).hexdigest()
