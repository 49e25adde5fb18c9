"""Bedrock AgentCore Runtime: a virtual machine for each session, billed by consumption."""

import math

from msgspec import Struct, structs

from seawall.plan.decision.answer import (
    Configuration,
    PlatformAnswer,
    PlatformName,
    SessionConfiguration,
)
from seawall.plan.decision.bill import Bill, Used
from seawall.plan.decision.numbers import amount
from seawall.plan.decision.places.limits import duration_reasons, missing_prices
from seawall.plan.decision.places.port import (
    Candidate,
    Cloud,
    Evaluation,
    Family,
    Search,
    Variation,
)
from seawall.plan.decision.windows import Month, Window
from seawall.plan.inputs.platforms import Lambda, Platform
from seawall.plan.inputs.question import Question
from seawall.plan.inputs.question_file import Deployed
from seawall.plan.inputs.service import Service

__all__ = ["AGENTCORE"]

# https://docs.aws.amazon.com/bedrock-agentcore/latest/devguide/bedrock-agentcore-limits.html, as of
# 2026-10: all but memory and durations can be raised.
_SESSIONS = {"us-east-1": 5_000, "us-west-2": 5_000}
_OTHER_SESSIONS = 2_500
_NEW_SESSIONS = 25.0  # a second, of code deployed directly; containers: 400 a minute
_CALLS = 200.0  # a second, for each agent
_MOST_MB = 8_192
_STREAM_SECONDS = 3_600.0
_ANSWER_MB = 100.0
_LEAST_IDLE = 60.0  # of idleRuntimeSessionTimeout; 15 minutes by default
_LEAST_MB = 128.0
_SLACK = 1.25  # of memory, over the known need


def _memory_mb(service: Service) -> float:
    """Memory that a session uses at most, in MB; it serves one request at a time."""
    needed = _SLACK * (service.memory_mb + service.memory_kb_in_flight / 1_024.0)
    return max(_LEAST_MB, needed)


class AgentCoreRuntime(Struct, frozen=True, kw_only=True):
    """Sessions on AgentCore Runtime.

    Each request is assumed to open a session of its own, which ends when it has been idle for a
    minute, the least that can be set: later turns of a conversation within it cost less than here.
    """

    name: PlatformName = "agentcore"
    title: str = "Bedrock AgentCore Runtime"
    short: str = "AgentCore Runtime"
    family: Family = "functions"
    cloud: Cloud = "aws"

    def reasons_against(self, question: Question, month: Month) -> tuple[str, ...]:
        """See `Place`."""
        found = missing_prices(question, "agentcore.vcpu_hours", "agentcore.gb_hours")
        found += duration_reasons(question, _STREAM_SECONDS, self.title)
        needed = _memory_mb(question.workload.service)
        if needed > _MOST_MB:
            found.append(f"a session needs {needed:,.0f} MB; it has {_MOST_MB:,} MB at most")
        answer = question.each.kb_to_callers / 1_024.0
        if answer > _ANSWER_MB:
            found.append(f"answers have {amount(answer)} MB; they may have {amount(_ANSWER_MB)} MB")
        return tuple(found)

    def _candidate(self, question: Question, month: Month) -> Candidate:
        service = question.workload.service
        memory = _memory_mb(service)
        # Idle sessions count: those of the spike, and those of a minute before it.
        rate = month.usual / service.mean_seconds
        sessions = month.peak + _LEAST_IDLE * rate
        if month.judged.event:
            sessions += month.judged.size
        quota = _SESSIONS.get(question.prices.region, _OTHER_SESSIONS)
        quota = max(quota, math.ceil(1.1 * sessions / 100.0) * 100)
        platform = Lambda(
            memory_mb=1_769,  # a processor: up to two are available
            account_limit=quota,
            start_rate=_NEW_SESSIONS,
            start_burst=_NEW_SESSIONS,
            invocations_per_concurrency=_CALLS / quota,
            idle_seconds=0.0,  # no other session may use it
            timeout=_STREAM_SECONDS,
            longest=_STREAM_SECONDS,
        )
        configuration = SessionConfiguration(
            memory_mb=math.ceil(memory),
            idle_seconds=_LEAST_IDLE,
            active_sessions=quota,
            new_sessions=_NEW_SESSIONS,
        )
        return Candidate(
            place=self,
            size=quota,
            peak=platform,
            rest=platform,
            configuration=configuration,
            at_once=month.peak,
        )

    def find(self, search: Search, near: Candidate | None) -> Evaluation:
        """There is one configuration."""
        return search.evaluate(self._candidate(search.question, search.month))

    def larger(self, question: Question, month: Month, candidate: Candidate) -> Candidate | None:
        """See `Place`."""
        return None

    def settled(self, candidate: Candidate, window: Window) -> Platform:
        """Sessions start all the time: their rate stays limited, but is not used up at first."""
        return structs.replace(candidate.rest, start_burst=10.0 * _NEW_SESSIONS)

    def bill(self, lines: Bill, candidate: Candidate, used: Used) -> None:
        """Processor time that is used, and memory for as long as a session lives."""
        service = lines.question.workload.service
        starts = used.billed_start_seconds
        busy = used.invocations * sum(stage.cpu_ms for stage in service.stages) / 1e3 + starts
        lines.add("agentcore.vcpu_hours", "processor time used", busy / 3_600.0)
        alive = used.billed_seconds + starts + used.invocations * _LEAST_IDLE
        gb = _memory_mb(service) / 1_024.0
        lines.add("agentcore.gb_hours", "memory of sessions", gb * alive / 3_600.0)
        lines.log(used)

    def words(self, configuration: Configuration) -> tuple[str, ...]:
        """See `Place`."""
        assert isinstance(configuration, SessionConfiguration)
        return (
            f"a session each, {configuration.memory_mb:,} MB, {configuration.architecture}",
            f"{configuration.new_sessions:g} new sessions a second at most",
            f"quota of {configuration.active_sessions:,} active sessions",
        )

    def notes(
        self, question: Question, month: Month, answer: PlatformAnswer, *, chosen: bool
    ) -> list[str]:
        """See `Place`."""
        if not chosen:
            return []
        quotas = "Quotas of new sessions and calls are the defaults; they can be raised."
        billed = "Each request is billed as a session that is idle for a minute before it ends."
        return [f"{billed} {quotas}"]

    def variations(self, question: Question) -> list[Variation]:
        """See `Place`."""
        return []

    def deployed(self, question: Question, month: Month, deployed: Deployed) -> Candidate:
        """See `Place`."""
        return self._candidate(question, month)


AGENTCORE = AgentCoreRuntime()
