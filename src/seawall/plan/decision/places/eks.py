"""Pods on EKS."""

import math
from functools import partial

from msgspec import Struct, structs

from seawall.errors import ConfigError
from seawall.plan.decision.answer import (
    Autoscaler,
    Configuration,
    EksConfiguration,
    PlatformAnswer,
    PlatformName,
)
from seawall.plan.decision.bill import Bill, Used
from seawall.plan.decision.numbers import share
from seawall.plan.decision.places.balancer import add_balancer
from seawall.plan.decision.places.limits import missing_prices
from seawall.plan.decision.places.machines import (
    add_nodes,
    discount_variation,
    fargate_hourly,
    node_group,
)
from seawall.plan.decision.places.network import add_network
from seawall.plan.decision.places.pods import (
    busy_cores,
    fewest,
    settled_pods,
    sizes_of,
    slots_per_pod,
)
from seawall.plan.decision.places.port import (
    Candidate,
    Cloud,
    Evaluation,
    Family,
    Search,
    Variation,
)
from seawall.plan.decision.text import scheduled_words
from seawall.plan.decision.windows import Month, Window
from seawall.plan.inputs.distributions import mean_of, uniform
from seawall.plan.inputs.platforms import Eks, HpaSettings, Nodes, Platform
from seawall.plan.inputs.question import HOURS, Question
from seawall.plan.inputs.question_file import Deployed

__all__ = ["EKS", "EKS_AUTO", "eks"]

# Launches at once and a second, in an account with pods only:
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/throttling.html
_FARGATE_RATE = 20.0
_CORES = (0.4, 0.85)  # of a pod: four or two of them fit on two vCPUs


def eks(
    question: Question, month: Month, *, cores: float, pods: int, auto_mode: bool = False
) -> Candidate:
    """Pods on EKS; slots, memory, nodes and autoscaler follow from their number and size.

    Auto Mode's own pools of nodes have no burstable machines and no spot instances
    (https://docs.aws.amazon.com/eks/latest/userguide/auto-cost-control.html).
    """
    options, service = question.options, question.workload.service
    sizes = sizes_of(question, month, cores=cores, pods=pods)
    group = node_group(
        question.prices, options.architecture, cores=cores, memory_mb=sizes.memory_mb,
        pods=sizes.resting, zones=options.zones, spot=options.spot and not auto_mode,
        busy=busy_cores(question, month), burstable=not auto_mode, fargate=not auto_mode,
    )  # fmt: skip
    fargate = group.instance == "fargate"
    nodes = Nodes(
        pods_each=group.pods_each,
        spare=0 if fargate else max(0, group.count - math.ceil(sizes.resting / group.pods_each)),
        launch=uniform(30.0, 60.0) if fargate else Nodes().launch,
        spot_interruptions=0.02 if group.spot else 0.0,
        launch_burst=_FARGATE_RATE if fargate else math.inf,
        launch_rate=_FARGATE_RATE if fargate else math.inf,
    )
    scaler = HpaSettings(
        minimum=pods, maximum=sizes.maximum, metric="in-flight", target=sizes.target
    )
    peak = Eks(
        pods=pods,
        scaler=scaler,
        cores=cores,
        memory_mb=float(sizes.memory_mb),
        concurrency=sizes.slots,
        queue=sizes.slots,
        nodes=nodes,
    )
    rest = structs.replace(
        peak, pods=sizes.resting, scaler=structs.replace(scaler, minimum=sizes.resting)
    )
    configuration = EksConfiguration(
        pods=sizes.resting,
        cores=cores,
        memory_mb=sizes.memory_mb,
        in_flight=sizes.slots,
        queue=peak.queue,
        queue_seconds=peak.queue_seconds,
        balance=peak.balance,
        autoscaler=Autoscaler(
            metric="in-flight", target=sizes.target, minimum=sizes.resting, maximum=sizes.maximum
        ),
        nodes=group,
        auto_mode=auto_mode,
        schedule=sizes.schedule,
        architecture="x86_64" if fargate else options.architecture,
        prestop_seconds=peak.prestop,
        grace_seconds=max(30.0, math.ceil(2.0 * service.mean_seconds)),
        startup_seconds=mean_of(service.start) + mean_of(peak.warm_up),
    )
    return Candidate(
        place=EKS_AUTO if auto_mode else EKS,
        size=pods,
        peak=peak,
        rest=rest,
        configuration=configuration,
        at_once=month.peak,
    )


class EksPods(Struct, frozen=True, kw_only=True):
    """Pods on EKS, on nodes or on Fargate."""

    name: PlatformName = "eks"
    title: str = "EKS"
    short: str = "EKS"
    auto_mode: bool = False
    family: Family = "containers"
    cloud: Cloud = "aws"

    def reasons_against(self, question: Question, month: Month) -> tuple[str, ...]:
        """See `Place`."""
        missing = missing_prices(question, "eks.auto_fee") if self.auto_mode else []
        if question.options.extended_support:
            missing += missing_prices(question, "eks.extended_support")
        try:
            self._of(question, month, _CORES[-1], question.options.least_pods)
        except ConfigError as error:
            return (*missing, str(error).partition(": ")[2])
        return tuple(missing)

    def _of(self, question: Question, month: Month, cores: float, pods: int) -> Candidate:
        return eks(question, month, cores=cores, pods=pods, auto_mode=self.auto_mode)

    def find(self, search: Search, near: Candidate | None) -> Evaluation:
        """The fewest pods that meet: small ones if the least number suffices."""
        question, month = search.question, search.month
        return fewest(
            search, near, partial(self._of, question, month), cores=_CORES,
            slots=slots_per_pod(question.workload.service, _CORES[-1]),
            least_pods=question.options.least_pods,
        )  # fmt: skip

    def larger(self, question: Question, month: Month, candidate: Candidate) -> Candidate | None:
        """See `Place`."""
        assert isinstance(candidate.peak, Eks)
        return self._of(question, month, candidate.peak.cores, math.ceil(1.05 * candidate.size))

    def settled(self, candidate: Candidate, window: Window) -> Platform:
        """The number of pods is that of the autoscaler's target."""
        assert isinstance(candidate.rest, Eks)
        assert isinstance(candidate.rest.scaler, HpaSettings)
        return settled_pods(candidate, window, candidate.rest.scaler.target)

    def bill(self, lines: Bill, candidate: Candidate, used: Used) -> None:
        """See `Place`."""
        configuration = candidate.configuration
        assert isinstance(configuration, EksConfiguration)
        prices, group = lines.prices, configuration.nodes
        lines.add("eks.control_plane", "control plane", HOURS)
        if lines.question.options.extended_support:
            lines.add("eks.extended_support", "extended support", HOURS)
        extra = (candidate.size - configuration.pods) * lines.lead_seconds()
        if group.instance == "fargate":
            each = fargate_hourly(prices, configuration.cores, configuration.memory_mb)
            lines.add(
                "fargate.vcpu_hours.x86_64", "pods on Fargate",
                (used.pod_seconds + extra) / 3_600.0, price=each, unit="pod-hour",
            )  # fmt: skip
        else:
            hours = (used.node_seconds + extra / group.pods_each) / 3_600.0
            add_nodes(lines, group, hours, used.cpu_seconds / 3_600.0)
            if self.auto_mode:
                # Of the price on demand: discounts of EC2 do not apply to it.
                fee = prices.of("eks.auto_fee").price
                listed = prices.items[f"ec2.{group.instance}"].price
                lines.add(
                    "eks.auto_fee",
                    f"Auto Mode, {share(fee)}",
                    hours,
                    price=listed * fee,
                    unit="hour",
                )
        lines.log(used)
        add_balancer(lines)
        add_network(lines)

    def words(self, configuration: Configuration) -> tuple[str, ...]:
        """See `Place`."""
        assert isinstance(configuration, EksConfiguration)
        group, scaler = configuration.nodes, configuration.autoscaler
        size = f"{configuration.cores:g} cores and {configuration.memory_mb:,} MB"
        each = f"{configuration.in_flight:,} requests at once in each"
        lines = [f"{configuration.pods:,} pods of {size}, {each}"]
        if scaler is not None:
            lines.append(
                f"autoscaler from {scaler.minimum:,} to {scaler.maximum:,}, target "
                f"{scaler.target:g} {scaler.metric}"
            )
        if group.instance == "fargate":
            lines.append("on Fargate, x86_64: it has no Arm under EKS")
        else:
            spot = ", spot" if group.spot else ""
            lines.append(f"on {group.count:,} {group.instance}{spot} in {group.zones} zones")
        return (*lines, *scheduled_words(configuration.schedule, "pods"))

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
        return self._of(question, month, deployed.cores, deployed.pods)


EKS = EksPods()
EKS_AUTO = EksPods(name="eks-auto", title="EKS Auto Mode", short="EKS Auto Mode", auto_mode=True)
