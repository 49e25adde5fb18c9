"""The bill of a month: the quantities used in its windows, times their prices."""

from collections.abc import Sequence

from msgspec import Struct

from seawall.plan.decision.answer import (
    CostItem,
    EksConfiguration,
    LambdaConfiguration,
    ManagedConfiguration,
    SharedCosts,
)
from seawall.plan.decision.candidates import Candidate
from seawall.plan.decision.egress import egress_lines, services_of
from seawall.plan.decision.lambda_sizes import share_of
from seawall.plan.decision.machines import DISK_GB, fargate_hourly, group_hourly, surplus_hours
from seawall.plan.decision.windows import Month
from seawall.plan.inputs.question import HOURS, MONTH, Question
from seawall.plan.simulator.result import Usage

__all__ = ["Used", "bill", "shared_costs", "used_in"]

_PLATFORM_LOG_KB = 0.5  # START, END and REPORT of an invocation
_FREE_STREAMED_KB = 6 * 1_024.0  # of each answer


class Used(Struct, frozen=True, kw_only=True):
    """Quantities used in a month; see `Usage`. attempts: answered or refused."""

    invocations: float = 0.0
    attempts: float = 0.0
    billed_seconds: float = 0.0
    billed_start_seconds: float = 0.0
    provisioned_seconds: float = 0.0
    provisioned_billed_seconds: float = 0.0
    restores: float = 0.0
    pod_seconds: float = 0.0
    node_seconds: float = 0.0
    cpu_seconds: float = 0.0


def used_in(pieces: Sequence[tuple[float, Usage, int]]) -> Used:
    """The quantities of a month, from windows: (times in a month, usage, attempts)."""
    totals = dict.fromkeys(Used.__struct_fields__, 0.0)
    for times, usage, attempts in pieces:
        totals["attempts"] += times * attempts
        for name in totals:
            if name != "attempts":
                totals[name] += times * getattr(usage, name)
    return Used(**totals)


class _Bill:
    """Collects the lines of a bill."""

    def __init__(self, question: Question, month: Month) -> None:
        self.question, self.month = question, month
        self._prices = question.prices
        self.items: list[CostItem] = []

    def add(
        self, name: str, title: str, quantity: float, *, price: float | None = None, unit: str = ""
    ) -> None:
        """Add a line, unless its quantity is 0."""
        if quantity <= 0:
            return
        found = self._prices.of(name)
        each = found.price if price is None else price
        self.items.append(
            CostItem(
                name=name,
                title=title,
                monthly=quantity * each,
                quantity=quantity,
                unit=unit or found.unit,
                price=each,
                source=f"{found.source} ({self._prices.date})",
                uncertain=found.uncertain,
            )
        )


def bill(question: Question, month: Month, candidate: Candidate, used: Used) -> list[CostItem]:
    """The bill of a candidate: the costs that differ between the platforms."""
    lines = _Bill(question, month)
    configuration = candidate.configuration
    match configuration:
        case LambdaConfiguration():
            _function(lines, candidate, configuration, used)
        case ManagedConfiguration():
            _managed(lines, candidate, configuration, used)
        case EksConfiguration():
            _eks(lines, candidate, configuration, used)
    platform_kb = _PLATFORM_LOG_KB if candidate.name != "eks" else 0.0
    logged = used.invocations * (question.each.log_kb + platform_kb)
    lines.add("logs.gb", "logs", logged / 1_048_576.0)
    return lines.items


def _lead_seconds(lines: _Bill) -> float:
    """Seconds a month of scheduled capacity outside of the simulated window."""
    question, month = lines.question, lines.month
    if not (question.options.announced and month.judged.event):
        return 0.0
    times = month.judged.seconds / month.judged.horizon
    return times * max(0.0, 2 * 60.0 * question.options.lead_minutes - month.judged.horizon)


def _function(
    lines: _Bill,
    candidate: Candidate,
    configuration: LambdaConfiguration,
    used: Used,
) -> None:
    arch = configuration.architecture
    gb = configuration.memory_mb / 1_024.0
    title = "compute"
    lines.add(f"lambda.gb_seconds.{arch}", title, gb * used.billed_seconds)
    if used.billed_start_seconds:
        what = "restores, compute" if configuration.snapstart else "initialisations, compute"
        lines.add(f"lambda.gb_seconds.{arch}", what, gb * used.billed_start_seconds)
    lines.add("lambda.requests", "requests", used.invocations / 1e6)
    if candidate.name == "lambda-provisioned":
        standing = used.provisioned_seconds + candidate.size * _lead_seconds(lines)
        lines.add(f"lambda.provisioned_gb_seconds.{arch}", "provisioned, standing", gb * standing)
        busy = gb * used.provisioned_billed_seconds
        lines.add(f"lambda.provisioned_duration.{arch}", "provisioned, compute", busy)
    if configuration.snapstart:
        lines.add("lambda.snapstart_cache", "snapshot, cached", gb * MONTH)
        lines.add("lambda.snapstart_restore", "snapshot, restored", gb * used.restores)
    if configuration.streams:
        beyond = max(0.0, lines.question.each.kb_to_callers - _FREE_STREAMED_KB) / 1_048_576.0
        lines.add("lambda.streamed_gb", "answers beyond 6 MB", used.invocations * beyond)
    _entry(lines, configuration.entry, used)


def _entry(lines: _Bill, entry: str, used: Used) -> None:
    if entry == "http-api":
        lines.add("api_gateway.http", "API Gateway, HTTP", used.attempts / 1e6)
    elif entry == "rest-api":
        lines.add("api_gateway.rest", "API Gateway, REST", used.attempts / 1e6)
    elif entry == "alb":
        _balancer(lines, gb_each=0.4)


def _balancer(lines: _Bill, *, gb_each: float = 1.0) -> None:
    """An application load balancer: an LCU is 25 new and 3,000 open connections, 1 GB an hour.

    The greatest of them is charged, here on average over the month (AWS: by hour). gb_each: 0.4
    where functions are its targets. Traffic between zones is free.
    Source: https://aws.amazon.com/elasticloadbalancing/pricing/
    """
    question, month = lines.question, lines.month
    rate = month.requests / MONTH
    gb_an_hour = rate * 3_600.0 * question.each.kb_to_callers / 1_048_576.0
    units = max(rate / 25.0, month.busy / 3_000.0, gb_an_hour / gb_each)
    lines.add("alb.hours", "load balancer", HOURS)
    lines.add("alb.lcu_hours", "load balancer, capacity units", units * HOURS)
    zones = question.options.zones
    lines.add("ipv4.hours", "load balancer, addresses", zones * HOURS)


def _network(lines: _Bill, services: Sequence[str]) -> None:
    """The way to the model; see `egress`."""
    for name, title, quantity in egress_lines(lines.question, lines.month, services):
        lines.add(name, title, quantity)


def _managed(
    lines: _Bill,
    candidate: Candidate,
    configuration: ManagedConfiguration,
    used: Used,
) -> None:
    """EC2 by the share of vCPUs or memory, plus 15 %; at least three, for three zones."""
    question = lines.question
    machine = question.prices.of(f"ec2.{configuration.instance}")
    extra = candidate.size - configuration.minimum
    seconds = used.pod_seconds + extra * _lead_seconds(lines)
    share = share_of(machine, configuration.vcpus, configuration.memory_gb)
    hours = max(seconds / 3_600.0 * share, 3.0 * HOURS)
    name = f"ec2.{configuration.instance}"
    lines.add(name, f"instances, {configuration.instance}", hours)
    fee = question.prices.of("lambda.managed_fee").price
    listed = question.prices.items[name].price  # of the on-demand price, without discounts
    lines.add(
        "lambda.managed_fee", f"management, {fee:.0%}", hours, price=listed * fee, unit="hour"
    )
    lines.add("lambda.managed_requests", "requests", used.invocations / 1e6)
    _entry(lines, configuration.entry, used)
    _network(lines, services_of("lambda-managed"))


def _eks(
    lines: _Bill,
    candidate: Candidate,
    configuration: EksConfiguration,
    used: Used,
) -> None:
    prices, group = lines.question.prices, configuration.nodes
    lines.add("eks.control_plane", "control plane", HOURS)
    extra = (candidate.size - configuration.pods) * _lead_seconds(lines)
    if group.instance == "fargate":
        each = fargate_hourly(prices, configuration.cores, configuration.memory_mb)
        lines.add(
            "fargate.vcpu_hours.x86_64", "pods on Fargate",
            (used.pod_seconds + extra) / 3_600.0, price=each, unit="pod-hour",
        )  # fmt: skip
    else:
        hours = (used.node_seconds + extra / group.pods_each) / 3_600.0
        lines.add(
            f"ec2.{group.instance}", f"nodes, {group.instance}{', spot' if group.spot else ''}",
            hours, price=group_hourly(prices, group),
        )  # fmt: skip
        surplus = surplus_hours(
            prices.of(f"ec2.{group.instance}"), hours, used.cpu_seconds / 3_600.0
        )
        lines.add("ec2_surplus.vcpu_hours", "nodes, above their baseline", surplus)
        lines.add("ebs.gp3_gb_months", "nodes, disks", DISK_GB * hours / HOURS)
    _balancer(lines)
    _network(lines, services_of("eks"))


def _model(lines: _Bill) -> None:
    """Tokens of the model at its list prices."""
    question, price = lines.question, lines.question.model
    tokens = (
        ("input", question.each.input_tokens, price.input),
        ("output", question.each.output_tokens, price.output),
    )
    for kind, each, of_million in tokens:
        quantity = lines.month.requests * each / 1e6
        if quantity > 0:
            lines.items.append(
                CostItem(
                    name=f"model.{kind}_tokens",
                    title=f"{price.title}, {kind}",
                    monthly=quantity * of_million,
                    quantity=quantity,
                    unit="million",
                    price=of_million,
                    source=f"{price.source} ({price.checked})",
                    uncertain=price.uncertain,
                )
            )


def shared_costs(question: Question, month: Month) -> SharedCosts:
    """Costs that are the same on every platform, if all requests are served."""
    lines, each, requests = _Bill(question, month), question.each, month.requests
    _model(lines)
    lines.add("dynamodb.read_units", "DynamoDB, reads", requests * each.read_units / 1e6)
    lines.add("dynamodb.write_units", "DynamoDB, writes", requests * each.write_units / 1e6)
    lines.add("egress.gb", "traffic to clients", requests * each.kb_to_callers / 1_048_576.0)
    return SharedCosts(monthly=sum(item.monthly for item in lines.items), items=tuple(lines.items))
