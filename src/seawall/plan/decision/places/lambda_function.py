"""Lambda functions that start environments on demand: classic, and with SnapStart."""

import math
from collections.abc import Callable
from functools import partial

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
from seawall.plan.decision.numbers import seconds
from seawall.plan.decision.places.account import (
    limit_note,
    limit_of,
    limit_variation,
    reserved_of,
)
from seawall.plan.decision.places.balancer import add_entry
from seawall.plan.decision.places.limits import (
    ENTRIES,
    LAMBDA_MB,
    LAMBDA_SECONDS,
    entry_reasons,
    start_reasons,
)
from seawall.plan.decision.places.port import (
    Candidate,
    Cloud,
    Evaluation,
    Family,
    Place,
    Search,
    Variation,
)
from seawall.plan.decision.places.router import (
    ROUTERS,
    add_router,
    most_functions,
    router_notes,
    router_of,
)
from seawall.plan.decision.sizing import least
from seawall.plan.decision.text import scheduled_words
from seawall.plan.decision.windows import Month, Window
from seawall.plan.inputs.distributions import mean_of
from seawall.plan.inputs.platforms import Lambda, Platform
from seawall.plan.inputs.question import MONTH, Question
from seawall.plan.inputs.question_file import Deployed
from seawall.plan.inputs.service import Service

__all__ = [
    "CLASSIC",
    "SNAPSTART",
    "add_function",
    "check_deployed",
    "function",
    "function_notes",
    "function_reasons",
    "function_words",
    "init_variation",
    "memories",
    "settled_function",
]

_PLATFORM_LOG_KB = 0.5  # START, END and REPORT of an invocation
_FREE_STREAMED_KB = 6 * 1_024.0  # of each answer
_FULL_MB = 1_769
_QUOTA = 1_000


def _needed_mb(service: Service) -> float:
    """Memory of a process with one request, and of the runtime (assumed 64 MB)."""
    return service.memory_mb + service.memory_kb_in_flight / 1_024.0 + 64.0


def check_deployed(question: Question, memory_mb: int) -> None:
    """Raise ConfigError if a deployed function has too little memory for its process."""
    needed = _needed_mb(question.workload.service)
    if memory_mb < needed:
        raise ConfigError(f"deployed.memory_mb: {memory_mb:,}; the process takes {needed:,.0f} MB")


def memories(service: Service) -> list[int]:
    """Memory sizes of a function to try, rising, from 1.5 times the need of the process.

    Beyond 1,769 MB there is a second processor, which one process does not use. At most 10,240 MB;
    empty if the process needs more.
    """
    needed = _needed_mb(service)
    if needed > LAMBDA_MB:
        return []
    least = needed + 0.5 * service.memory_mb
    sizes = [size for size in (256, 512, 1_024, _FULL_MB) if size >= least]
    return sizes or [min(LAMBDA_MB, math.ceil(least / 64.0) * 64)]


def function_reasons(question: Question) -> list[str]:
    """Reasons against any function that serves one request at a time."""
    service, found = question.workload.service, entry_reasons(question)
    if not memories(service):
        found.append(
            f"a process takes {service.memory_mb:,.0f} MB; a function has {LAMBDA_MB:,} MB at most"
        )
    return found


def function(
    question: Question,
    month: Month,
    place: Place,
    *,
    memory_mb: int,
    provisioned: int = 0,
    functions: int = 1,
) -> Candidate:
    """A function: classic, with SnapStart or with provisioned concurrency; or several of them."""
    options, limit = question.options, limit_of(question, month)
    entry = ENTRIES[options.entry]
    timeout = min(LAMBDA_SECONDS, entry.seconds, max(60.0, question.workload.clients.patience))
    announced = options.announced and provisioned > 0 and month.judged.event
    peak = Lambda(
        memory_mb=memory_mb,
        snapstart=place is SNAPSTART,
        provisioned=provisioned,
        account_limit=limit,
        timeout=timeout,
        functions=functions,
        streams=entry.streams,
    )
    reserved = reserved_of(limit, month.peak, provisioned)
    lead = options.lead_minutes * 60.0
    configuration = LambdaConfiguration(
        memory_mb=memory_mb,
        architecture=options.architecture,
        timeout_seconds=math.ceil(timeout),
        provisioned=0 if announced else provisioned,
        schedule=(CapacityChange(-lead, provisioned), CapacityChange(lead, 0)) if announced else (),
        snapstart=peak.snapstart,
        reserved_concurrency=None if reserved is None else reserved // functions,
        account_concurrency=limit,
        entry=options.entry,
        streams=entry.streams,
        functions=functions,
        router=router_of(question) if functions > 1 else "",
    )
    rest = structs.replace(peak, provisioned=0) if announced else peak
    return Candidate(
        place=place,
        size=provisioned or functions,
        peak=peak,
        rest=rest,
        configuration=configuration,
        at_once=month.peak,
    )


def _late_start(question: Question) -> list[str]:
    """A reason if an initialisation does not end before the function's timeout."""
    start = mean_of(question.workload.service.start)
    if start <= LAMBDA_SECONDS:
        return []
    return [f"an initialisation takes {seconds(start)}, longer than a request may"]


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
    lines.log(used, _PLATFORM_LOG_KB, name="logs.lambda_gb")
    if configuration.functions > 1:
        add_router(lines, configuration.router, used)
    add_entry(lines, configuration.entry, used)


def function_words(configuration: LambdaConfiguration) -> tuple[str, ...]:
    """A function in words."""
    lines = [f"{configuration.memory_mb:,} MB, {configuration.architecture}"]
    if configuration.functions > 1:
        lines = [f"{configuration.functions} identical functions of {lines[0]}"]
    if configuration.snapstart:
        lines.append("SnapStart on published versions")
    if configuration.provisioned:
        lines.append(f"{configuration.provisioned:,} provisioned around the clock")
    lines += scheduled_words(configuration.schedule, "provisioned from")
    if configuration.account_concurrency > _QUOTA:
        lines.append(f"account quota of {configuration.account_concurrency:,} (1,000 by default)")
    entry = ENTRIES[configuration.entry].title
    if configuration.functions == 1:
        lines.append(f"behind {'an' if entry[0] in 'AH' else 'a'} {entry}")
    else:
        each = "" if configuration.router == "alb" else f", each with its {entry}"
        lines.append(ROUTERS[configuration.router].title + each)
    return tuple(lines)


def function_notes(configuration: LambdaConfiguration) -> list[str]:
    """Notes if a function is the choice."""
    found = []
    if configuration.account_concurrency > _QUOTA:
        found.append(
            f"Request a Lambda concurrency quota of {configuration.account_concurrency:,}; "
            "an account has 1,000 by default, new ones less."
        )
    if configuration.functions > 1:
        found += router_notes(configuration)
    if not configuration.streams:
        found.append(
            f"Entry {configuration.entry} does not stream: clients wait for the whole answer, so "
            "the first token comes with the last."
        )
    found.append("AWS's own Python runtime does not stream; Seawall's does (docs/lambda.md).")
    return found


def init_variation(question: Question) -> Variation:
    """A variation of the processor of an initialisation on demand."""
    vcpus = question.workload.service.init_vcpus

    def changed(value: float) -> Question:
        workload = question.workload
        service = structs.replace(workload.service, init_vcpus=value)
        return structs.replace(question, workload=structs.replace(workload, service=service))

    return Variation(
        input="service.init_vcpus",
        title="processor of an initialisation",
        base=f"{vcpus:g} vCPU at least" if vcpus else "that of the memory",
        low=("that of the memory", changed(0.0)),
        high=("1 vCPU at least", changed(1.0)),
    )


def _functions_like(near: Candidate | None, month: Month) -> float:
    """As many functions for each request in service as in `near`; 0: it says nothing."""
    if near is None or not isinstance(near.configuration, LambdaConfiguration):
        return 0.0
    return near.configuration.functions * month.peak / near.at_once


def _meets(search: Search, of: Callable[[int], Candidate], size: int) -> bool:
    return search.excess(of(size)) == 0.0


def _serves(search: Search, of: Callable[[int], Candidate], size: int) -> bool:
    return not search.refuses(of(size))


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
        found = function_reasons(question)
        if self.snapstart:
            found += start_reasons(question, "SnapStart")
        elif not found:
            found += _late_start(question)
        return tuple(found)

    def find(self, search: Search, near: Candidate | None) -> Evaluation:
        """The smallest memory that meets; several functions where one starts too slowly."""
        question, month = search.question, search.month
        sizes = memories(question.workload.service)
        several = None
        if _functions_like(near, month) >= 3.0:
            several = self._several(search, near, sizes)
            # Where two would do, so may one.
            if several is not None and several.size > 2 and search.excess(several) == 0.0:
                return search.evaluate(several)
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
        if several is None and lowest > 0.0 and search.refuses(best):
            several = self._several(search, near, sizes)
        if several is not None and search.excess(several) < lowest:
            best = several
        return search.evaluate(best)

    def _several(
        self, search: Search, near: Candidate | None, sizes: list[int]
    ) -> Candidate | None:
        """The fewest identical functions that meet, of the smallest memory; else the nearest.

        The start rate is that of each function
        (https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html).
        """
        question, month = search.question, search.month
        most = most_functions(question)
        if most == 1:
            return None

        found: Candidate | None = None
        like = round(_functions_like(near, month))
        guess = like or math.ceil(month.peak / Lambda().start_burst)
        guess = min(most, max(2, guess))
        for memory in sizes:
            of = partial(self._of, search, memory)
            known_good = search.good_enough(near, of, guess, most)
            if known_good is not None:
                return known_good.candidate
            # If even the most miss the objective, it is not for want of functions.
            helps = any(search.excess(of(size)) == 0.0 for size in (guess, most))
            meets = partial(_meets if helps else _serves, search, of)
            each = of(least(meets, 2, guess, most, 0.0))
            if search.excess(each) == 0.0:
                return each
            if found is None or search.excess(each) < 0.98 * search.excess(found):
                found = each
            if search.refuses(each):
                break  # memory does not help
        return found

    def _of(self, search: Search, memory: int, functions: int) -> Candidate:
        return function(search.question, search.month, self, memory_mb=memory, functions=functions)

    def larger(self, question: Question, month: Month, candidate: Candidate) -> Candidate | None:
        """One function more, if there are several; nothing else can be enlarged."""
        configuration = candidate.configuration
        assert isinstance(configuration, LambdaConfiguration)
        count = configuration.functions
        if count == 1 or count >= most_functions(question):
            return None
        return function(
            question, month, self, memory_mb=configuration.memory_mb, functions=count + 1
        )

    def settled(self, candidate: Candidate, window: Window) -> Platform:
        """See `Place`."""
        return settled_function(candidate)

    def bill(self, lines: Bill, candidate: Candidate, used: Used) -> None:
        """See `Place`."""
        configuration = candidate.configuration
        assert isinstance(configuration, LambdaConfiguration)
        gb = configuration.memory_mb / 1_024.0
        if self.snapstart:
            cached = gb * MONTH * configuration.functions
            lines.add("lambda.snapstart_cache", "snapshot, cached", cached)
            lines.add("lambda.snapstart_restore", "snapshot, restored", gb * used.restores)
        add_function(lines, configuration, used)

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
                    "A function starts 1,000 environments at once and 100 a second after, of any "
                    "memory size."
                )
            found.append("Lambda MicroVMs are not compared: each runs one tenant's code for hours.")
        return found

    def variations(self, question: Question) -> list[Variation]:
        """See `Place`."""
        return [limit_variation(question), init_variation(question)]

    def deployed(self, question: Question, month: Month, deployed: Deployed) -> Candidate:
        """See `Place`."""
        if deployed.provisioned:
            raise ConfigError(f"deployed.provisioned: not with platform {self.name!r}")
        check_deployed(question, deployed.memory_mb)
        if not 1 <= deployed.functions <= 100:
            raise ConfigError("deployed.functions: must be from 1 to 100")
        return function(
            question, month, self, memory_mb=deployed.memory_mb, functions=deployed.functions
        )


CLASSIC = OnDemandFunction(name="lambda", title="Lambda", short="Lambda", snapstart=False)
SNAPSTART = OnDemandFunction(
    name="lambda-snapstart", title="Lambda, SnapStart", short="Lambda, SnapStart", snapstart=True
)
