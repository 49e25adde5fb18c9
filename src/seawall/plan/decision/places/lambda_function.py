"""Lambda functions that start environments on demand: classic, and with SnapStart."""

import math

from msgspec import Struct, structs

from seawall.errors import ConfigError
from seawall.plan.decision.answer import (
    CapacityChange,
    Configuration,
    LambdaConfiguration,
    PlatformAnswer,
    PlatformName,
)
from seawall.plan.decision.bill import Bill, Used
from seawall.plan.decision.places.account import (
    limit_note,
    limit_of,
    limit_variation,
    reserved_of,
)
from seawall.plan.decision.places.balancer import add_entry
from seawall.plan.decision.places.port import (
    Candidate,
    Cloud,
    Evaluation,
    Family,
    Place,
    Search,
    Variation,
)
from seawall.plan.decision.text import scheduled_words
from seawall.plan.decision.windows import Month, Window
from seawall.plan.inputs.platforms import Lambda, Platform
from seawall.plan.inputs.question import MONTH, Question
from seawall.plan.inputs.question_file import Deployed
from seawall.plan.inputs.service import Service

__all__ = [
    "CLASSIC",
    "PLATFORM_LOG_KB",
    "SNAPSTART",
    "add_function",
    "function",
    "function_notes",
    "function_words",
    "memories",
    "settled_function",
]

PLATFORM_LOG_KB = 0.5  # START, END and REPORT of an invocation
_FREE_STREAMED_KB = 6 * 1_024.0  # of each answer
_FULL_MB = 1_769
_QUOTA = 1_000


def memories(service: Service) -> list[int]:
    """Memory sizes of a function to try, rising, from 1.5 times the need of the process.

    Beyond 1,769 MB there is a second processor, which one process does not use.
    """
    least = 1.5 * service.memory_mb + service.memory_kb_in_flight / 1_024.0 + 64.0
    sizes = [size for size in (256, 512, 1_024, _FULL_MB) if size >= least]
    return sizes or [min(10_240, math.ceil(least / 64.0) * 64)]


def function(
    question: Question, month: Month, place: Place, *, memory_mb: int, provisioned: int = 0
) -> Candidate:
    """A function: classic, with SnapStart or with provisioned concurrency.

    Initialisation is processor time (assumed; measured on one processor): below 1,769 MB it takes
    longer in proportion.
    """
    options, limit = question.options, limit_of(question, month)
    timeout = min(900.0, max(60.0, question.workload.clients.patience))
    announced = options.announced and provisioned > 0 and month.judged.event
    peak = Lambda(
        memory_mb=memory_mb,
        snapstart=place is SNAPSTART,
        provisioned=provisioned,
        account_limit=limit,
        timeout=timeout,
    )
    lead = options.lead_minutes * 60.0
    configuration = LambdaConfiguration(
        memory_mb=memory_mb,
        architecture=options.architecture,
        timeout_seconds=math.ceil(timeout),
        provisioned=0 if announced else provisioned,
        schedule=(CapacityChange(-lead, provisioned), CapacityChange(lead, 0)) if announced else (),
        snapstart=peak.snapstart,
        reserved_concurrency=reserved_of(limit, month.peak, provisioned),
        account_concurrency=limit,
        entry=options.entry,
        streams=options.entry in ("function-url", "rest-api"),
    )
    rest = structs.replace(peak, provisioned=0) if announced else peak
    factor = _FULL_MB / memory_mb if memory_mb < _FULL_MB else 1.0
    return Candidate(
        place=place,
        size=provisioned or memory_mb,
        peak=peak,
        rest=rest,
        configuration=configuration,
        at_once=month.peak,
        start_factor=factor,
    )


def settled_function(candidate: Candidate) -> Platform:
    """Between spikes a function has started the environments that it needs."""
    return structs.replace(candidate.rest, start_rate=math.inf, start_burst=math.inf)


def add_function(lines: Bill, configuration: LambdaConfiguration, used: Used) -> None:
    """Add a function's compute, requests and entry to a bill."""
    arch, gb = configuration.architecture, configuration.memory_mb / 1_024.0
    lines.add(f"lambda.gb_seconds.{arch}", "compute", gb * used.billed_seconds)
    if used.billed_start_seconds:
        what = "restores, compute" if configuration.snapstart else "initialisations, compute"
        lines.add(f"lambda.gb_seconds.{arch}", what, gb * used.billed_start_seconds)
    lines.add("lambda.requests", "requests", used.invocations / 1e6)
    if configuration.streams:
        beyond = max(0.0, lines.question.each.kb_to_callers - _FREE_STREAMED_KB) / 1_048_576.0
        lines.add("lambda.streamed_gb", "answers beyond 6 MB", used.invocations * beyond)
    add_entry(lines, configuration.entry, used)


def function_words(configuration: LambdaConfiguration) -> tuple[str, ...]:
    """A function in words."""
    lines = [f"{configuration.memory_mb:,} MB, {configuration.architecture}"]
    if configuration.snapstart:
        lines.append("SnapStart on published versions")
    if configuration.provisioned:
        lines.append(f"{configuration.provisioned:,} provisioned around the clock")
    lines += scheduled_words(configuration.schedule, "provisioned from")
    if configuration.account_concurrency > _QUOTA:
        lines.append(f"account quota of {configuration.account_concurrency:,} (1,000 by default)")
    lines.append(f"behind a {configuration.entry}".replace("-", " ").replace(" url", " URL"))
    return tuple(lines)


def function_notes(configuration: LambdaConfiguration) -> list[str]:
    """Notes if a function is the choice."""
    found = []
    if configuration.account_concurrency > _QUOTA:
        found.append(
            f"Request a Lambda concurrency quota of {configuration.account_concurrency:,}; "
            "an account has 1,000 by default, new ones less."
        )
    if not configuration.streams:
        found.append(
            f"Entry {configuration.entry} does not stream: clients wait for the whole answer."
        )
    found.append("AWS's own Python runtime does not stream; Seawall's does (docs/lambda.md).")
    return found


class OnDemandFunction(Struct, frozen=True, kw_only=True):
    """A function that starts environments on demand."""

    name: PlatformName
    title: str
    short: str
    snapstart: bool
    family: Family = "functions"
    cloud: Cloud = "aws"

    def reasons_against(self, question: Question, month: Month) -> tuple[str, ...]:
        """See `Place`."""
        return ()

    def find(self, search: Search, near: Candidate | None) -> Evaluation:
        """The smallest memory that meets; memory makes requests faster."""
        question, month = search.question, search.month
        sizes = memories(question.workload.service)
        best = function(question, month, self, memory_mb=sizes[0])
        lowest = search.excess(best)
        for size in sizes[1:]:
            # It does not help against refusals.
            if lowest == 0.0 or search.refuses(best):
                break
            candidate = function(question, month, self, memory_mb=size)
            over = search.excess(candidate)
            if over < lowest * 0.98:  # by enough to be worth the memory
                best, lowest = candidate, over
        return search.evaluate(best)

    def larger(self, question: Question, month: Month, candidate: Candidate) -> Candidate | None:
        """Nothing is provisioned, so there is nothing to enlarge."""
        return None

    def settled(self, candidate: Candidate, window: Window) -> Platform:
        """See `Place`."""
        return settled_function(candidate)

    def bill(self, lines: Bill, candidate: Candidate, used: Used) -> None:
        """See `Place`."""
        configuration = candidate.configuration
        assert isinstance(configuration, LambdaConfiguration)
        gb = configuration.memory_mb / 1_024.0
        if self.snapstart:
            lines.add("lambda.snapstart_cache", "snapshot, cached", gb * MONTH)
            lines.add("lambda.snapstart_restore", "snapshot, restored", gb * used.restores)
        add_function(lines, configuration, used)

    def logged_kb(self) -> float:
        """See `Place`."""
        return PLATFORM_LOG_KB

    def words(self, configuration: Configuration) -> tuple[str, ...]:
        """See `Place`."""
        assert isinstance(configuration, LambdaConfiguration)
        return function_words(configuration)

    def notes(
        self, question: Question, month: Month, answer: PlatformAnswer, *, chosen: bool
    ) -> list[str]:
        """See `Place`."""
        found = []
        if chosen:
            assert isinstance(answer.configuration, LambdaConfiguration)
            found += function_notes(answer.configuration)
        if not self.snapstart:
            found += limit_note(question, month)
            if not chosen and not answer.met and month.peak > _QUOTA:
                found.append(
                    "Lambda starts 1,000 environments at once and 100 a second after, of any "
                    "memory size."
                )
        return found

    def variations(self, question: Question) -> list[Variation]:
        """See `Place`."""
        return [limit_variation(question)]

    def deployed(self, question: Question, month: Month, deployed: Deployed) -> Candidate:
        """See `Place`."""
        if deployed.provisioned:
            raise ConfigError(f"deployed.provisioned: not with platform {self.name!r}")
        return function(question, month, self, memory_mb=deployed.memory_mb)


CLASSIC = OnDemandFunction(name="lambda", title="Lambda", short="Lambda", snapstart=False)
SNAPSTART = OnDemandFunction(
    name="lambda-snapstart", title="Lambda, SnapStart", short="Lambda, SnapStart", snapstart=True
)
