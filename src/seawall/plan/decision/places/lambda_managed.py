"""Lambda Managed Instances: environments that serve many requests at once."""

import math

from msgspec import Struct, structs

from seawall.plan.decision.answer import (
    CapacityChange,
    Configuration,
    ManagedConfiguration,
    PlatformAnswer,
    PlatformName,
)
from seawall.plan.decision.bill import Bill, Used
from seawall.plan.decision.numbers import share
from seawall.plan.decision.places.balancer import add_entry
from seawall.plan.decision.places.limits import (
    ENTRIES,
    LAMBDA_SECONDS,
    entry_reasons,
    start_reasons,
)
from seawall.plan.decision.places.machines import discount_variation
from seawall.plan.decision.places.network import add_network
from seawall.plan.decision.places.port import (
    Candidate,
    Cloud,
    Evaluation,
    Family,
    Search,
    Variation,
)
from seawall.plan.decision.sizing import least
from seawall.plan.decision.text import scheduled_words
from seawall.plan.decision.windows import Month, Window
from seawall.plan.inputs.platforms import MANAGED_MB, Managed, Platform
from seawall.plan.inputs.prices import Price
from seawall.plan.inputs.question import HOURS, Question
from seawall.plan.inputs.question_file import Deployed
from seawall.plan.simulator.pods import slots_of

__all__ = ["MANAGED", "least_environments", "managed", "share_of"]

_MOST = 200_000  # environments
_PLATFORM_LOG_KB = 0.5  # of an invocation; as other functions (assumed)
_SLACK = 1.25  # of memory, over the known need
_VCPUS = (1.0, 2.0, 4.0, 8.0, 16.0)
_GB_EACH = (2.0, 4.0, 8.0)


def _needed_mb(question: Question) -> float:
    """Memory of an environment with room for eight requests."""
    service = question.workload.service
    return _SLACK * service.memory_mb + 8 * service.memory_kb_in_flight / 1_024.0


def environments(question: Question) -> list[Managed]:
    """Environments of the fewest vCPUs with enough memory that fit on a machine with a price."""
    needed, options = _needed_mb(question), question.options
    for vcpus in _VCPUS:
        found = [
            Managed(
                runtime=options.managed_runtime, vcpus=vcpus, memory_gb_each=size,
                streams=ENTRIES[options.entry].streams,
            )
            for size in _GB_EACH
            if needed <= vcpus * size * 1_024.0 <= MANAGED_MB
        ]  # fmt: skip
        found = [each for each in found if fitting(question, each)]
        if found:
            return found
    return []


def environment_of(question: Question) -> Managed:
    """The environment of managed instances with the cheapest slots."""

    def price_per_slot(environment: Managed) -> float:
        hourly = _hourly(question, environment, instance_of(question, environment))
        return hourly / slots_of(environment, question.workload)

    return min(environments(question), key=price_per_slot)


def least_environments(question: Question, month: Month, environment: Managed) -> int:
    """Environments needed at the peak, by slots and by processor time."""
    service = question.workload.service
    cpu = sum(stage.cpu_ms for stage in service.stages) / 1e3
    cores = month.peak / max(service.mean_seconds, 1e-9) * cpu
    each = environment.vcpus if environment.runtime == "processes" else 1.0
    slots = slots_of(environment, question.workload)
    return max(1, math.ceil(month.peak / slots), math.ceil(cores / each))


def share_of(machine: Price, vcpus: float, memory_gb: float) -> float:
    """The share of a machine that an environment takes: of processors or memory, the greater."""
    return max(vcpus / machine.vcpus, memory_gb / machine.memory_gb)


def _hourly(question: Question, environment: Managed, instance: str) -> float:
    """Hourly price of an environment on machines of this type."""
    machine = question.prices.of(f"ec2.{instance}")
    memory_gb = environment.vcpus * environment.memory_gb_each
    return machine.price * share_of(machine, environment.vcpus, memory_gb)


def fitting(question: Question, environment: Managed) -> list[str]:
    """Types of machines, not burstable, that have room for an environment.

    Managed instances are of current general-purpose, compute and memory families, from `large` on
    (https://docs.aws.amazon.com/lambda/latest/dg/lambda-managed-instances.html). What Lambda itself
    takes of a machine is not published: nothing is assumed.
    """
    prices = question.prices
    found = []
    for name in prices.machines(question.options.architecture):
        machine = prices.of(f"ec2.{name}")
        memory_gb = environment.vcpus * environment.memory_gb_each
        if not machine.baseline and share_of(machine, environment.vcpus, memory_gb) <= 1.0:
            found.append(name)
    return found


def instance_of(question: Question, environment: Managed) -> str:
    """The type of machine on which an environment is cheapest."""
    types = fitting(question, environment)
    return min(types, key=lambda name: _hourly(question, environment, name))


def managed(
    question: Question, month: Month, minimum: int, environment: Managed | None = None
) -> Candidate:
    """Managed instances with at least `minimum` environments, by default those of least cost."""
    options = question.options
    base = structs.replace(environment or environment_of(question), minimum=3, maximum=3)
    room = slots_of(base, question.workload)
    announced = options.announced and month.judged.event
    resting = max(3, math.ceil(month.busy / room / base.target)) if announced else minimum
    resting = min(resting, minimum)
    # The minimum suffices for the spike; beyond it there is headroom.
    maximum = max(minimum + 6, math.ceil(1.25 * minimum))
    peak = structs.replace(base, minimum=minimum, maximum=maximum)
    lead = options.lead_minutes * 60.0
    configuration = ManagedConfiguration(
        vcpus=base.vcpus,
        memory_gb=base.vcpus * base.memory_gb_each,
        in_flight=room,
        runtime=base.runtime,
        minimum=resting,
        maximum=maximum,
        target=base.target,
        schedule=(CapacityChange(-lead, minimum), CapacityChange(lead, resting))
        if resting < minimum
        else (),
        instance=instance_of(question, base),
        architecture=options.architecture,
        entry=options.entry,
        streams=base.streams,
        timeout_seconds=math.ceil(min(LAMBDA_SECONDS, ENTRIES[options.entry].seconds)),
    )
    rest = structs.replace(peak, minimum=resting)
    return Candidate(
        place=MANAGED,
        size=minimum,
        peak=peak,
        rest=rest,
        configuration=configuration,
        at_once=month.peak,
    )


class ManagedInstances(Struct, frozen=True, kw_only=True):
    """A function on Lambda Managed Instances."""

    name: PlatformName = "lambda-managed"
    title: str = "Lambda Managed Instances"
    short: str = "Lambda Managed Inst."
    family: Family = "functions"
    cloud: Cloud = "aws"

    def reasons_against(self, question: Question, month: Month) -> tuple[str, ...]:
        """See `Place`."""
        found = entry_reasons(question) + start_reasons(question, "a managed instance")
        needed = _needed_mb(question)
        if needed > MANAGED_MB:
            found.append(f"an environment needs {needed:,.0f} MB; it has {MANAGED_MB:,} MB at most")
        elif not environments(question):
            found.append(f"no machine with a price has room for {needed:,.0f} MB")
        return tuple(found)

    def find(self, search: Search, near: Candidate | None) -> Evaluation:
        """The fewest environments that meet."""
        question, month = search.question, search.month
        environment = environment_of(question)
        needed = least_environments(question, month, environment)
        guess = max(3, search.guess(near, needed))
        most = min(_MOST, 4 * needed + 8)

        def of(size: int) -> Candidate:
            return managed(question, month, size, environment)

        known_good = search.good_enough(near, of, guess, most)
        if known_good is not None:
            return known_good
        found = least(lambda size: search.excess(of(size)) == 0.0, 3, guess, most, search.within)
        if found == most and search.excess(of(most)) != 0.0:
            found = guess  # more does not help
        return search.evaluate(of(found))

    def larger(self, question: Question, month: Month, candidate: Candidate) -> Candidate | None:
        """See `Place`."""
        return managed(question, month, math.ceil(1.05 * candidate.size))

    def settled(self, candidate: Candidate, window: Window) -> Platform:
        """See `Place`."""
        platform, workload = candidate.rest, window.workload
        assert isinstance(platform, Managed)
        busy = workload.arrivals.rate * workload.service.mean_seconds
        room = slots_of(platform, workload)
        least = max(platform.minimum, math.ceil(busy / room / platform.target))
        # One evaluation in the whole window: nothing changes.
        return structs.replace(
            platform,
            minimum=min(least, platform.maximum),
            check_seconds=10.0 * workload.arrivals.horizon,
        )

    def bill(self, lines: Bill, candidate: Candidate, used: Used) -> None:
        """EC2 by the share of vCPUs or memory, plus 15 %; at least three, for three zones."""
        configuration = candidate.configuration
        assert isinstance(configuration, ManagedConfiguration)
        prices = lines.prices
        machine = prices.of(f"ec2.{configuration.instance}")
        extra = candidate.size - configuration.minimum
        seconds = used.pod_seconds + extra * lines.lead_seconds()
        part = share_of(machine, configuration.vcpus, configuration.memory_gb)
        hours = max(seconds / 3_600.0 * part, 3.0 * HOURS)
        name = f"ec2.{configuration.instance}"
        lines.add(name, f"instances, {configuration.instance}", hours)
        fee = prices.of("lambda.managed_fee").price
        listed = prices.items[name].price  # of the on-demand price, without discounts
        lines.add(
            "lambda.managed_fee",
            f"management, {share(fee)}",
            hours,
            price=listed * fee,
            unit="hour",
        )
        lines.add("lambda.managed_requests", "requests", used.invocations / 1e6)
        lines.log(used, _PLATFORM_LOG_KB, name="logs.lambda_gb")
        add_entry(lines, configuration.entry, used)
        add_network(lines, self.family)

    def words(self, configuration: Configuration) -> tuple[str, ...]:
        """See `Place`."""
        assert isinstance(configuration, ManagedConfiguration)
        size = f"{configuration.vcpus:g} vCPU and {configuration.memory_gb:g} GB"
        how = "one process" if configuration.runtime == "async" else "a process each"
        return (
            f"{configuration.minimum:,} to {configuration.maximum:,} environments of {size}",
            f"{configuration.in_flight:,} requests at once in each, {how}",
            f"on {configuration.instance}",
            *scheduled_words(configuration.schedule, "environments"),
        )

    def notes(
        self, question: Question, month: Month, answer: PlatformAnswer, *, chosen: bool
    ) -> list[str]:
        """See `Place`."""
        return []

    def variations(self, question: Question) -> list[Variation]:
        """See `Place`."""
        return [discount_variation(question)]

    def deployed(self, question: Question, month: Month, deployed: Deployed) -> Candidate:
        """See `Place`."""
        return managed(question, month, deployed.minimum)


MANAGED = ManagedInstances()
