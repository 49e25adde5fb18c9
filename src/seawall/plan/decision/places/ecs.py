"""Tasks of a service on ECS, on Fargate or on EC2."""

import math
from functools import partial
from typing import Literal

from msgspec import Struct

from seawall.errors import ConfigError
from seawall.plan.decision.answer import (
    Configuration,
    NodeGroup,
    PlatformAnswer,
    PlatformName,
    ServiceConfiguration,
)
from seawall.plan.decision.bill import Bill, Used
from seawall.plan.decision.places.balancer import add_balancer
from seawall.plan.decision.places.container_service import resting, service_words
from seawall.plan.decision.places.limits import missing_prices
from seawall.plan.decision.places.machines import (
    FARGATE_BURST,
    FARGATE_RATE,
    add_nodes,
    discount_variation,
    fargate_size,
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
from seawall.plan.decision.windows import Month, Window
from seawall.plan.inputs.distributions import mean_of, uniform
from seawall.plan.inputs.platforms import Eks, Nodes, Platform, ServiceTracking
from seawall.plan.inputs.question import HOURS, Question
from seawall.plan.inputs.question_file import Deployed

__all__ = ["ECS_EC2", "ECS_FARGATE"]

# vCPUs of a task, small and else: sizes of Fargate, and what fits on machines beside the agent.
_VCPUS = {"fargate": (0.5, 1.0), "ec2": (0.4, 0.85)}
# An instance of a group behind a capacity provider: its alarm takes a minute, then it starts
# (assumed; measure yours).
_LAUNCH = uniform(120.0, 240.0)
_FARGATE_LAUNCH = uniform(30.0, 60.0)  # assumed, as for pods on Fargate


class EcsService(Struct, frozen=True, kw_only=True):
    """A service on ECS; there is no control plane to pay for."""

    name: PlatformName
    title: str
    short: str
    runs_on: Literal["fargate", "ec2"]
    family: Family = "containers"
    cloud: Cloud = "aws"

    @property
    def _sizes(self) -> tuple[float, float]:
        return _VCPUS[self.runs_on]

    def reasons_against(self, question: Question, month: Month) -> tuple[str, ...]:
        """See `Place`."""
        found = []
        if self.runs_on == "fargate":
            found += missing_prices(question, *_items(question.options.architecture))
        try:
            self._of(question, month, self._sizes[-1], question.options.least_pods)
        except ConfigError as error:
            found.append(str(error).partition(": ")[2])
        return tuple(found)

    def _of(self, question: Question, month: Month, vcpus: float, tasks: int) -> Candidate:
        """So many tasks of so many vCPUs."""
        options, service = question.options, question.workload.service
        sizes = sizes_of(question, month, cores=vcpus, pods=tasks)
        memory, group = sizes.memory_mb, None
        if self.runs_on == "fargate":
            vcpus, gb = fargate_size(vcpus, memory, 0.0)
            memory = round(gb * 1_024.0)
            nodes = Nodes(
                pods_each=1, launch=_FARGATE_LAUNCH, launch_burst=FARGATE_BURST,
                launch_rate=FARGATE_RATE,
            )  # fmt: skip
        else:
            group = node_group(
                question.prices, options.architecture, cores=vcpus, memory_mb=memory,
                pods=sizes.resting, zones=options.zones, spot=options.spot,
                busy=busy_cores(question, month), fargate=False,
            )  # fmt: skip
            nodes = Nodes(
                pods_each=group.pods_each,
                spare=max(0, group.count - math.ceil(sizes.resting / group.pods_each)),
                launch=_LAUNCH,
                spot_interruptions=0.02 if group.spot else 0.0,
            )
        # As many requests a minute as keep the target in flight.
        target = sizes.target * 60.0 / service.mean_seconds
        scaler = ServiceTracking(minimum=tasks, maximum=sizes.maximum, target=target)
        peak = Eks(
            pods=tasks, scaler=scaler, cores=vcpus, memory_mb=float(memory),
            concurrency=sizes.slots, queue=sizes.slots, nodes=nodes,
        )  # fmt: skip
        configuration = ServiceConfiguration(
            runs_on=self.runs_on,
            instances=sizes.resting,
            vcpus=vcpus,
            memory_mb=memory,
            in_flight=sizes.slots,
            queue=peak.queue,
            queue_seconds=peak.queue_seconds,
            minimum=sizes.resting,
            maximum=sizes.maximum,
            metric="requests a minute in each",
            target=target,
            nodes=group,
            schedule=sizes.schedule,
            architecture=options.architecture,
            grace_seconds=min(120.0, max(30.0, math.ceil(2.0 * service.mean_seconds))),
            startup_seconds=mean_of(service.start) + mean_of(peak.warm_up),
        )
        return Candidate(
            place=self,
            size=tasks,
            peak=peak,
            rest=resting(peak, sizes),
            configuration=configuration,
            at_once=month.peak,
        )

    def find(self, search: Search, near: Candidate | None) -> Evaluation:
        """The fewest tasks that meet: small ones if the least number suffices."""
        question, month = search.question, search.month
        return fewest(
            search, near, partial(self._of, question, month), cores=self._sizes,
            slots=slots_per_pod(question.workload.service, self._sizes[-1]),
            least_pods=question.options.least_pods,
        )  # fmt: skip

    def larger(self, question: Question, month: Month, candidate: Candidate) -> Candidate | None:
        """See `Place`."""
        assert isinstance(candidate.peak, Eks)
        return self._of(question, month, candidate.peak.cores, math.ceil(1.05 * candidate.size))

    def settled(self, candidate: Candidate, window: Window) -> Platform:
        """The number of tasks is that of the target."""
        scaler = candidate.rest.scaler if isinstance(candidate.rest, Eks) else None
        assert isinstance(scaler, ServiceTracking)
        target = scaler.target / 60.0 * window.workload.service.mean_seconds
        return settled_pods(candidate, window, target)

    def bill(self, lines: Bill, candidate: Candidate, used: Used) -> None:
        """See `Place`."""
        configuration = candidate.configuration
        assert isinstance(configuration, ServiceConfiguration)
        extra = (candidate.size - configuration.instances) * lines.lead_seconds()
        hours = (used.pod_seconds + extra) / 3_600.0
        if configuration.nodes is None:
            by_core, by_gb = _items(configuration.architecture)
            lines.add(by_core, "tasks on Fargate, processors", configuration.vcpus * hours)
            lines.add(by_gb, "tasks on Fargate, memory", configuration.memory_mb / 1_024.0 * hours)
        else:
            _add_machines(lines, configuration.nodes, hours, used)
        lines.log(used)
        add_balancer(lines)
        add_network(lines)

    def words(self, configuration: Configuration) -> tuple[str, ...]:
        """See `Place`."""
        return service_words(configuration, "tasks")

    def notes(
        self, question: Question, month: Month, answer: PlatformAnswer, *, chosen: bool
    ) -> list[str]:
        """See `Place`."""
        if not chosen:
            return []
        return ["seawall ship writes no deployment for ECS; the container image is the same."]

    def variations(self, question: Question) -> list[Variation]:
        """See `Place`."""
        return [discount_variation(question)] if self.runs_on == "ec2" else []

    def deployed(self, question: Question, month: Month, deployed: Deployed) -> Candidate:
        """See `Place`."""
        return self._of(question, month, deployed.cores, deployed.pods)


def _items(architecture: str) -> tuple[str, str]:
    """Names of Fargate's prices."""
    return f"fargate.vcpu_hours.{architecture}", f"fargate.gb_hours.{architecture}"


def _add_machines(lines: Bill, group: NodeGroup, hours: float, used: Used) -> None:
    """The machines of so many hours of tasks, at least those between spikes."""
    machine_hours = max(group.count * HOURS, hours / group.pods_each)
    add_nodes(lines, group, machine_hours, used.cpu_seconds / 3_600.0)


ECS_FARGATE = EcsService(
    name="ecs-fargate", title="ECS on Fargate", short="ECS, Fargate", runs_on="fargate"
)
ECS_EC2 = EcsService(name="ecs-ec2", title="ECS on EC2", short="ECS, EC2", runs_on="ec2")
