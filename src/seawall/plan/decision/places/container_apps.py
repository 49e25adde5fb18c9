"""Replicas of an app on Azure Container Apps, on its consumption plan."""

import math
from functools import partial

from msgspec import Struct

from seawall.plan.decision.answer import (
    Configuration,
    PlatformAnswer,
    PlatformName,
    ServiceConfiguration,
)
from seawall.plan.decision.bill import Bill, Used
from seawall.plan.decision.places.container_service import resting, service_words
from seawall.plan.decision.places.limits import duration_reasons
from seawall.plan.decision.places.other_clouds import (
    active_share,
    add_traffic,
    cloud_prices,
    cloud_reasons,
)
from seawall.plan.decision.places.pods import fewest, settled_pods, sizes_of, slots_per_pod
from seawall.plan.decision.places.port import (
    Candidate,
    Cloud,
    Evaluation,
    Family,
    Search,
    Variation,
)
from seawall.plan.decision.windows import Month, Window
from seawall.plan.inputs.distributions import constant, mean_of, uniform
from seawall.plan.inputs.platforms import Eks, KedaSettings, Nodes, Platform
from seawall.plan.inputs.question import Question
from seawall.plan.inputs.question_file import Deployed

__all__ = ["CONTAINER_APPS"]

# https://learn.microsoft.com/azure/container-apps/containers: 2 GiB for each vCPU, up to 4 vCPUs.
_VCPUS = (0.5, 1.0)
_GIB_EACH, _MOST_VCPUS = 2.0, 4.0
_REPLICAS = 1_000  # https://learn.microsoft.com/azure/container-apps/scale-app
_SECONDS = 240.0  # https://learn.microsoft.com/azure/container-apps/ingress-overview
_LAUNCH = uniform(5.0, 20.0)  # until its process starts; not published: assumed


class ContainerApps(Struct, frozen=True, kw_only=True):
    """An app on Container Apps, which KEDA scales: a poll every 30 s, steps as of an HPA.

    Its HTTP rule follows the requests of the last 15 seconds, by 15.
    """

    name: PlatformName = "container-apps"
    title: str = "Azure Container Apps"
    short: str = "Container Apps"
    family: Family = "containers"
    cloud: Cloud = "azure"

    def reasons_against(self, question: Question, month: Month) -> tuple[str, ...]:
        """See `Place`."""
        found = cloud_reasons(question, self.cloud)
        found += duration_reasons(question, _SECONDS, self.title)
        memory = sizes_of(question, month, cores=_VCPUS[-1], pods=1).memory_mb
        most = _MOST_VCPUS * _GIB_EACH * 1_024.0
        if memory > most:
            found.append(f"a replica needs {memory:,} MB; it has {most:,.0f} MB at most")
        return tuple(found)

    def _of(self, question: Question, month: Month, vcpus: float, replicas: int) -> Candidate:
        """So many replicas of so many vCPUs; more where their memory needs them."""
        service = question.workload.service
        sizes = sizes_of(question, month, cores=vcpus, pods=replicas)
        vcpus = max(vcpus, math.ceil(sizes.memory_mb / 1_024.0 / _GIB_EACH * 4.0) / 4.0)
        maximum = min(_REPLICAS, sizes.maximum)
        scaler = KedaSettings(minimum=replicas, maximum=maximum, target=sizes.target)
        peak = Eks(
            pods=replicas, scaler=scaler, cores=vcpus, memory_mb=float(sizes.memory_mb),
            concurrency=sizes.slots, queue=sizes.slots, warm_up=constant(0.0),
            nodes=Nodes(pods_each=1, launch=_LAUNCH, pull=constant(0.0)),
        )  # fmt: skip
        configuration = ServiceConfiguration(
            runs_on="container-apps",
            instances=sizes.resting,
            vcpus=vcpus,
            memory_mb=round(vcpus * _GIB_EACH * 1_024.0),
            in_flight=sizes.slots,
            queue=peak.queue,
            queue_seconds=peak.queue_seconds,
            minimum=sizes.resting,
            maximum=maximum,
            metric="requests a second in each",
            target=sizes.target / service.mean_seconds,
            schedule=sizes.schedule,
            architecture="x86_64",
            grace_seconds=peak.grace,
            startup_seconds=mean_of(service.start) + mean_of(_LAUNCH),
        )
        return Candidate(
            place=self,
            size=replicas,
            peak=peak,
            rest=resting(peak, sizes),
            configuration=configuration,
            at_once=month.peak,
        )

    def find(self, search: Search, near: Candidate | None) -> Evaluation:
        """The fewest minimum replicas that meet."""
        question, month = search.question, search.month
        return fewest(
            search, near, partial(self._of, question, month), cores=_VCPUS,
            slots=slots_per_pod(question.workload.service, _VCPUS[-1]),
            least_pods=question.options.least_pods,
        )  # fmt: skip

    def larger(self, question: Question, month: Month, candidate: Candidate) -> Candidate | None:
        """See `Place`."""
        assert isinstance(candidate.peak, Eks)
        size = math.ceil(1.05 * candidate.size)
        return None if size > _REPLICAS else self._of(question, month, candidate.peak.cores, size)

    def settled(self, candidate: Candidate, window: Window) -> Platform:
        """The number of replicas is that of the target."""
        scaler = candidate.rest.scaler if isinstance(candidate.rest, Eks) else None
        assert isinstance(scaler, KedaSettings)
        return settled_pods(candidate, window, scaler.target)

    def bill(self, lines: Bill, candidate: Candidate, used: Used) -> None:
        """Replicas without requests are idle, at a lower price of their processors."""
        configuration = candidate.configuration
        assert isinstance(configuration, ServiceConfiguration)
        prices = cloud_prices(lines.question, self.cloud)
        assert prices is not None
        extra = (candidate.size - configuration.instances) * lines.lead_seconds()
        seconds = used.pod_seconds + extra
        active = seconds * active_share(lines.month, configuration.instances)
        vcpus, gib = configuration.vcpus, configuration.memory_mb / 1_024.0
        for name, title, quantity in (
            ("apps.active_vcpu_seconds", "replicas with requests, processors", vcpus * active),
            ("apps.idle_vcpu_seconds", "idle replicas, processors", vcpus * (seconds - active)),
            ("apps.gib_seconds", "replicas, memory", gib * seconds),
            ("apps.requests", "requests", used.invocations / 1e6),
        ):
            lines.add(name, title, quantity, prices=prices)
        lines.log(used, prices=prices)
        add_traffic(lines, prices)

    def words(self, configuration: Configuration) -> tuple[str, ...]:
        """See `Place`."""
        return service_words(configuration, "replicas")

    def notes(
        self, question: Question, month: Month, answer: PlatformAnswer, *, chosen: bool
    ) -> list[str]:
        """See `Place`."""
        if not chosen:
            return []
        return ["The session store is assumed to be DynamoDB, in AWS's region next to it."]

    def variations(self, question: Question) -> list[Variation]:
        """See `Place`."""
        return []

    def deployed(self, question: Question, month: Month, deployed: Deployed) -> Candidate:
        """See `Place`."""
        return self._of(question, month, deployed.cores, deployed.pods)


CONTAINER_APPS = ContainerApps()
