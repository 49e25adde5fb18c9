"""Pods on EKS."""

import math

from msgspec import Struct, structs

from seawall.plan.decision.answer import (
    Autoscaler,
    CapacityChange,
    Configuration,
    EksConfiguration,
    PlatformAnswer,
    PlatformName,
)
from seawall.plan.decision.bill import Bill, Used
from seawall.plan.decision.places.balancer import add_balancer
from seawall.plan.decision.places.machines import (
    DISK_GB,
    discount_variation,
    fargate_hourly,
    group_hourly,
    node_group,
    surplus_hours,
)
from seawall.plan.decision.places.network import add_network
from seawall.plan.decision.places.pods import pod_memory, slots_per_pod
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
from seawall.plan.inputs.distributions import mean_of, uniform
from seawall.plan.inputs.platforms import Eks, HpaSettings, Nodes, Platform
from seawall.plan.inputs.question import HOURS, Question
from seawall.plan.inputs.question_file import Deployed

__all__ = ["EKS", "eks"]

_BUSY_TARGET = 0.5  # of a pod's slots, for its autoscaler
_CORES = (0.4, 0.85)  # of a pod: four or two of them fit on two vCPUs
_MOST_PODS = 200_000


def eks(question: Question, month: Month, *, cores: float, pods: int) -> Candidate:
    """Pods on EKS; slots, memory, nodes and autoscaler follow from their number and size."""
    options, service = question.options, question.workload.service
    slots = slots_per_pod(service, cores)
    memory = pod_memory(service, slots)
    announced = options.announced and month.judged.event
    cpu = sum(stage.cpu_ms for stage in service.stages) / 1e3
    load = month.busy / max(service.mean_seconds, 1e-9) * cpu  # cores in use between spikes
    need = max(month.busy / slots / _BUSY_TARGET, load / cores / 0.6)
    resting = min(pods, max(options.least_pods, math.ceil(need))) if announced else pods
    group = node_group(
        question.prices, options.architecture, cores=cores, memory_mb=memory, pods=resting,
        zones=options.zones, spot=options.spot, busy=load,
    )  # fmt: skip
    fargate = group.instance == "fargate"
    nodes = Nodes(
        pods_each=group.pods_each,
        spare=0 if fargate else max(0, group.count - math.ceil(resting / group.pods_each)),
        launch=uniform(30.0, 60.0) if fargate else Nodes().launch,
        spot_interruptions=0.02 if group.spot else 0.0,
    )
    target = max(1.0, slots * _BUSY_TARGET)
    # Headroom beyond the spike; ordinary time stays at the target.
    maximum = max(pods + 4, math.ceil(1.5 * pods), math.ceil(month.usual / target))
    scaler = HpaSettings(minimum=pods, maximum=maximum, metric="in-flight", target=target)
    peak = Eks(
        pods=pods,
        scaler=scaler,
        cores=cores,
        memory_mb=float(memory),
        concurrency=slots,
        queue=slots,
        nodes=nodes,
    )
    rest = structs.replace(peak, pods=resting, scaler=structs.replace(scaler, minimum=resting))
    lead = options.lead_minutes * 60.0
    configuration = EksConfiguration(
        pods=resting,
        cores=cores,
        memory_mb=memory,
        in_flight=slots,
        queue=peak.queue,
        queue_seconds=peak.queue_seconds,
        balance=peak.balance,
        autoscaler=Autoscaler(metric="in-flight", target=target, minimum=resting, maximum=maximum),
        nodes=group,
        schedule=(CapacityChange(-lead, pods), CapacityChange(lead, resting))
        if resting < pods
        else (),
        architecture="x86_64" if fargate else options.architecture,
        prestop_seconds=peak.prestop,
        grace_seconds=max(30.0, math.ceil(2.0 * service.mean_seconds)),
        startup_seconds=mean_of(service.start) + mean_of(peak.warm_up),
    )
    return Candidate(
        place=EKS,
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
    family: Family = "containers"
    cloud: Cloud = "aws"

    def reasons_against(self, question: Question, month: Month) -> tuple[str, ...]:
        """See `Place`."""
        return ()

    def find(self, search: Search, near: Candidate | None) -> Evaluation:
        """The fewest pods that meet: small ones if the least number suffices."""
        question, month = search.question, search.month
        fewest = question.options.least_pods
        far = near is not None and near.size * month.peak / near.at_once > 2.0 * fewest
        if not far:
            small = eks(question, month, cores=_CORES[0], pods=fewest)
            if search.excess(small) == 0.0:
                return search.evaluate(small)
        cores = _CORES[-1]
        slots = slots_per_pod(question.workload.service, cores)
        guess = max(fewest, search.guess(near, month.peak / slots))
        most = min(_MOST_PODS, 16 * math.ceil(month.peak / slots) + 16)
        found = least(
            lambda pods: search.excess(eks(question, month, cores=cores, pods=pods)) == 0.0,
            fewest, guess, most, search.within,
        )  # fmt: skip
        if found == most:  # nothing helps: only as many as have slots for all
            found = max(fewest, min(found, guess))
        return search.evaluate(eks(question, month, cores=cores, pods=found))

    def larger(self, question: Question, month: Month, candidate: Candidate) -> Candidate | None:
        """See `Place`."""
        assert isinstance(candidate.peak, Eks)
        pods = math.ceil(1.05 * candidate.size)
        return eks(question, month, cores=candidate.peak.cores, pods=pods)

    def settled(self, candidate: Candidate, window: Window) -> Platform:
        """The number of pods is that of the autoscaler's target."""
        platform, workload = candidate.rest, window.workload
        assert isinstance(platform, Eks)
        assert isinstance(platform.scaler, HpaSettings)
        busy = workload.arrivals.rate * workload.service.mean_seconds
        wanted = max(platform.pods, math.ceil(busy / platform.scaler.target))
        return structs.replace(platform, pods=min(platform.scaler.maximum, wanted), scaler=None)

    def bill(self, lines: Bill, candidate: Candidate, used: Used) -> None:
        """See `Place`."""
        configuration = candidate.configuration
        assert isinstance(configuration, EksConfiguration)
        prices, group = lines.prices, configuration.nodes
        lines.add("eks.control_plane", "control plane", HOURS)
        extra = (candidate.size - configuration.pods) * lines.lead_seconds()
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
        add_balancer(lines)
        add_network(lines)

    def logged_kb(self) -> float:
        """Kubernetes logs nothing for a request."""
        return 0.0

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
        return eks(question, month, cores=deployed.cores, pods=deployed.pods)


EKS = EksPods()
