"""Instances of a service on Google Cloud Run."""

import math
from functools import partial

from msgspec import Struct

from seawall.errors import ConfigError
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
from seawall.plan.inputs.platforms import Eks, Nodes, Platform, RequestScaling
from seawall.plan.inputs.question import Question
from seawall.plan.inputs.question_file import Deployed

__all__ = ["CLOUD_RUN"]

# https://cloud.google.com/run/docs/configuring/services/cpu: below one, an instance serves one
# request at a time.
_VCPUS = (1.0, 2.0)
# https://cloud.google.com/run/docs/configuring/services/memory-limits, read on 2026-11-29: more
# memory than this needs at least so many processors.
_MOST_MB = 32_768
_LEAST_VCPUS = ((24_576, 8.0), (16_384, 6.0), (8_192, 4.0), (4_096, 2.0))
_CONCURRENCY = 1_000  # https://cloud.google.com/run/docs/about-concurrency
_TARGET = 0.6  # of it: https://cloud.google.com/run/docs/about-instance-autoscaling
_SECONDS = 3_600.0  # https://cloud.google.com/run/quotas
# Requests wait for 3.5 times an instance's start, or ten seconds, whichever is longer.
_STARTS, _WAIT = 3.5, 10.0
_LAUNCH = uniform(1.0, 3.0)  # until its process starts; not published: assumed


def _least_vcpus(memory_mb: int) -> float:
    """The processors that an instance of this memory has at least."""
    return next((vcpus for above, vcpus in _LEAST_VCPUS if memory_mb > above), 0.0)


class CloudRun(Struct, frozen=True, kw_only=True):
    """A service on Cloud Run, with as many minimum instances as the objective needs.

    In fact requests wait in one queue before all instances; here they wait in one instance.
    """

    name: PlatformName = "cloud-run"
    title: str = "Google Cloud Run"
    short: str = "Cloud Run"
    family: Family = "containers"
    cloud: Cloud = "gcp"

    def reasons_against(self, question: Question, month: Month) -> tuple[str, ...]:
        """See `Place`."""
        found = cloud_reasons(question, self.cloud)
        found += duration_reasons(question, _SECONDS, self.title)
        memory = sizes_of(question, month, cores=_VCPUS[-1], pods=1).memory_mb
        if memory > _MOST_MB:
            found.append(f"an instance needs {memory:,} MB; it has {_MOST_MB:,} MB at most")
        return tuple(found)

    def _of(self, question: Question, month: Month, vcpus: float, instances: int) -> Candidate:
        """So many instances of so many vCPUs; more where their memory needs them."""
        service = question.workload.service
        sizes = sizes_of(
            question, month, cores=vcpus, pods=instances, most_slots=_CONCURRENCY,
            busy_target=_TARGET,
        )  # fmt: skip
        vcpus = max(vcpus, _least_vcpus(sizes.memory_mb))
        start = mean_of(service.start) + mean_of(_LAUNCH)
        scaler = RequestScaling(minimum=instances, maximum=sizes.maximum, target=sizes.target)
        peak = Eks(
            pods=instances, scaler=scaler, cores=vcpus, memory_mb=float(sizes.memory_mb),
            concurrency=sizes.slots, queue=sizes.slots, queue_seconds=max(_WAIT, _STARTS * start),
            warm_up=constant(0.0), endpoint_lag=0.0, prestop=0.0, grace=10.0,
            nodes=Nodes(pods_each=1, launch=_LAUNCH, pull=constant(0.0)),
        )  # fmt: skip
        configuration = ServiceConfiguration(
            runs_on="cloud-run",
            instances=sizes.resting,
            vcpus=vcpus,
            memory_mb=max(512, sizes.memory_mb),
            in_flight=sizes.slots,
            queue=peak.queue,
            queue_seconds=peak.queue_seconds,
            minimum=sizes.resting,
            maximum=sizes.maximum,
            metric="requests in flight in each",
            target=sizes.target,
            schedule=sizes.schedule,
            architecture="x86_64",
            grace_seconds=peak.grace,
            startup_seconds=start,
        )
        return Candidate(
            place=self,
            size=instances,
            peak=peak,
            rest=resting(peak, sizes),
            configuration=configuration,
            at_once=month.peak,
        )

    def find(self, search: Search, near: Candidate | None) -> Evaluation:
        """The fewest minimum instances that meet."""
        question, month = search.question, search.month
        return fewest(
            search, near, partial(self._of, question, month), cores=_VCPUS,
            slots=min(_CONCURRENCY, slots_per_pod(question.workload.service, _VCPUS[-1])),
            least_pods=question.options.least_pods,
        )  # fmt: skip

    def larger(self, question: Question, month: Month, candidate: Candidate) -> Candidate | None:
        """See `Place`."""
        assert isinstance(candidate.peak, Eks)
        return self._of(question, month, candidate.peak.cores, math.ceil(1.05 * candidate.size))

    def settled(self, candidate: Candidate, window: Window) -> Platform:
        """The number of instances is that of the target."""
        scaler = candidate.rest.scaler if isinstance(candidate.rest, Eks) else None
        assert isinstance(scaler, RequestScaling)
        return settled_pods(candidate, window, scaler.target)

    def bill(self, lines: Bill, candidate: Candidate, used: Used) -> None:
        """By instances or by requests, whichever costs less."""
        configuration = candidate.configuration
        assert isinstance(configuration, ServiceConfiguration)
        prices = cloud_prices(lines.question, self.cloud)
        assert prices is not None
        extra = (candidate.size - configuration.instances) * lines.lead_seconds()
        seconds = used.pod_seconds + extra
        gib = configuration.memory_mb / 1_024.0
        active = seconds * active_share(lines.month, configuration.instances)
        by_instance = [
            ("run.vcpu_seconds", "instances, processors", configuration.vcpus * seconds),
            ("run.gib_seconds", "instances, memory", gib * seconds),
        ]
        by_request = [
            ("run.active_vcpu_seconds", "with requests, processors", configuration.vcpus * active),
            ("run.active_gib_seconds", "with requests, memory", gib * active),
            (
                "run.idle_vcpu_seconds", "without requests, processors",
                configuration.vcpus * (seconds - active),
            ),
            ("run.idle_gib_seconds", "without requests, memory", gib * (seconds - active)),
            ("run.requests", "requests", used.invocations / 1e6),
        ]  # fmt: skip

        def cost(items: list[tuple[str, str, float]]) -> float:
            return sum(prices.of(name).price * quantity for name, _, quantity in items)

        for name, title, quantity in min(by_instance, by_request, key=cost):
            lines.add(name, title, quantity, prices=prices)
        lines.log(used, prices=prices)
        add_traffic(lines, prices)

    def words(self, configuration: Configuration) -> tuple[str, ...]:
        """See `Place`."""
        return service_words(configuration, "instances")

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
        if deployed.cores < _VCPUS[0]:
            raise ConfigError("deployed.cores: below 1 an instance serves one request at a time")
        return self._of(question, month, deployed.cores, deployed.pods)


CLOUD_RUN = CloudRun()
