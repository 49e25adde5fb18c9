"""The platforms, as data. Facts with their sources; what is not known is called assumed."""

from typing import Literal

from msgspec import Struct

from seawall.errors import ConfigError
from seawall.plan.inputs.distributions import Distribution, constant, uniform
from seawall.plan.simulator.hpa import HpaSettings
from seawall.plan.simulator.keda import KedaSettings

__all__ = ["Eks", "Lambda", "Managed", "Nodes", "Platform", "Scheduled", "Servers", "Tracking"]

_CONCURRENCY = "https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html"


class Scheduled(Struct, frozen=True):
    """From `at` seconds on, so many are provisioned; every `every` seconds again, 0: once."""

    at: float
    capacity: int
    every: float = 0.0


class Tracking(Struct, frozen=True):
    """Application Auto Scaling of provisioned concurrency by its utilisation.

    Target tracking acts on CloudWatch alarms: three one-minute data points above the target to
    scale out, fifteen below 90 % of it to scale in
    (https://docs.aws.amazon.com/autoscaling/application/userguide/target-tracking-scaling-policy-overview.html).
    utilization: the target. minimum, maximum: of what is provisioned.
    """

    utilization: float = 0.7
    minimum: int = 1
    maximum: int = 1_000
    out_minutes: int = 3
    in_minutes: int = 15


class Lambda(Struct, frozen=True, kw_only=True):
    """Lambda functions: an environment serves one request at a time.

    Sources: docs.aws.amazon.com/lambda/latest/dg/ lambda-concurrency, scaling-behavior,
    lambda-runtime-environment, configuration-memory, snapstart, provisioned-concurrency.

    memory_mb: 1,769 MB are one processor, linear; below, processor time stretches.
    snapstart: new environments restore a snapshot in place of initialising; not together with
    provisioned concurrency. provisioned: environments that are initialised beforehand; requests
    beyond them spill over to others. schedule, tracking: how that number changes.
    account_limit: concurrency of the account in the region, 1,000 by default; elsewhere: what its
    other functions use. reserved: of the account's, for this function alone, and at most; None:
    none. start_rate: new environments a second, start_burst: at once: 1,000 every 10 s a
    function, refilled continuously, unused rate does not accumulate; infinite: no such limit.
    invocations_per_concurrency: requests a second, 10 for each of the limit. sandbox: from the
    request to the start of initialisation (assumed 0.15 s). start_limit: an initialisation, if
    constant, that takes longer than 10 s on demand starts again within the invocation.
    idle_seconds: an idle environment is reclaimed (unpublished; measurements say minutes to an
    hour: assumed 600).
    lifetime: environments are replaced after some hours (assumed two). timeout: at most 900 s.
    reuse: the environment idle for the shortest time, or the one that was started last.
    """

    memory_mb: int = 1_769
    snapstart: bool = False
    provisioned: int = 0
    schedule: tuple[Scheduled, ...] = ()
    tracking: Tracking | None = None
    account_limit: int = 1_000
    elsewhere: int = 0
    reserved: int | None = None
    start_rate: float = 100.0
    start_burst: float = 1_000.0
    invocations_per_concurrency: float = 10.0
    sandbox: Distribution = constant(0.15)
    start_limit: float = 10.0
    idle_seconds: float = 600.0
    lifetime: float = 7_200.0
    timeout: float = 900.0
    reuse: Literal["recent", "newest"] = "recent"

    @property
    def limit(self) -> int:
        """Concurrent requests of this function at most."""
        whole = self.account_limit - self.elsewhere
        return whole if self.reserved is None else min(self.reserved, whole)

    def __post_init__(self) -> None:
        _not_negative("lambda", self)
        if not 128 <= self.memory_mb <= 10_240:
            raise ConfigError(f"lambda.memory_mb: {self.memory_mb} is not from 128 to 10,240")
        if not 0 < self.timeout <= 900:
            raise ConfigError(f"lambda.timeout: {self.timeout:g} is not from 0 to 900 seconds")
        if self.limit < 1:
            raise ConfigError("lambda.account_limit: leaves nothing for this function")
        most = max([self.provisioned, *(each.capacity for each in self.schedule)])
        most = max(most, self.tracking.maximum if self.tracking else 0)
        if most > self.limit:
            raise ConfigError(f"lambda.provisioned: {most} exceeds the limit of {self.limit}")
        if self.snapstart and most:
            raise ConfigError("lambda.snapstart: not together with provisioned concurrency")


class Nodes(Struct, frozen=True, kw_only=True):
    """The machines under the pods.

    pods_each: that fit on one. spare: nodes more than needed at the beginning. launch: from a pod
    that does not fit to a node that is ready, 40-90 s with Karpenter (literature; measure yours).
    pull: of the image, once a node (assumed 5-15 s). spot_interruptions: of a node, an hour; it
    has two minutes then
    (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html).
    empty_seconds: after which an empty node is removed (assumed 60 s).
    """

    pods_each: int = 4
    spare: int = 0
    launch: Distribution = uniform(40.0, 90.0)
    pull: Distribution = uniform(5.0, 15.0)
    spot_interruptions: float = 0.0
    empty_seconds: float = 60.0


class Eks(Struct, frozen=True, kw_only=True):
    """Pods on Kubernetes.

    pods: at the beginning, and always, where there is no scaler. scaler: a horizontal pod
    autoscaler, or KEDA. cores: of a pod; its requests share them, so a saturated pod slows down.
    memory_mb: of a pod; it bounds the requests in service with `concurrency`. queue: requests
    that wait in a pod for a place, queue_seconds: for how long; beyond that they are shed.
    balance: how requests are spread over pods: kube-proxy's random, a load balancer's round
    robin or least outstanding requests. warm_up: after its start, until a pod is ready (assumed
    2 s). endpoint_lag: until nobody sends requests to a pod that ends (assumed 2 s), prestop: for
    how long it takes them still, grace: until it is killed, 30 s
    (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination).
    deploys: times of a rolling deployment, surge: the share of pods more meanwhile
    (https://kubernetes.io/docs/concepts/workloads/controllers/deployment/: 25 %).
    """

    pods: int = 3
    scaler: HpaSettings | KedaSettings | None = None
    cores: float = 1.0
    memory_mb: float = 1_024.0
    concurrency: int = 500
    queue: int = 500
    queue_seconds: float = 10.0
    balance: Literal["random", "round-robin", "least"] = "least"
    warm_up: Distribution = constant(2.0)
    endpoint_lag: float = 2.0
    prestop: float = 5.0
    grace: float = 30.0
    nodes: Nodes = Nodes()
    deploys: tuple[float, ...] = ()
    surge: float = 0.25

    def __post_init__(self) -> None:
        _not_negative("eks", self)
        if self.concurrency < 1:
            raise ConfigError("eks.concurrency: must be at least 1")
        if not self.cores > 0:
            raise ConfigError("eks.cores: must be more than 0")
        if self.nodes.pods_each < 1:
            raise ConfigError("eks.nodes.pods_each: must be at least 1")


class Managed(Struct, frozen=True, kw_only=True):
    """Lambda Managed Instances: an environment serves many requests at once.

    Sources: docs.aws.amazon.com/lambda/latest/dg/ lambda-managed-instances-scaling, -runtimes,
    -python-runtime. vcpus, memory_gb_each: of an environment, at least 1 and 2 GB, 2, 4 or 8 GB
    for each vCPU. runtime: AWS's for Python has one process a concurrent request, "processes";
    one process that serves all on one core, "async". concurrency: at most at once in an
    environment; None: 16 a vCPU (AWS's default), 64 a vCPU for "async". minimum: three by
    default; maximum: environments. It scales asynchronously, on processor use and saturation; if
    traffic more than doubles within 5 minutes it throttles. So it keeps half free: target 0.5 of
    places or processor (assumed, from that sentence). check_seconds: how often it looks (assumed
    10 s). launch: of an environment with its instance (assumed 20-60 s). idle_seconds: until what
    is more than needed is removed (assumed 300 s). There is no queue.
    """

    vcpus: float = 1.0
    memory_gb_each: float = 2.0
    runtime: Literal["processes", "async"] = "async"
    concurrency: int | None = None
    minimum: int = 3
    maximum: int = 400
    target: float = 0.5
    check_seconds: float = 10.0
    launch: Distribution = uniform(20.0, 60.0)
    idle_seconds: float = 300.0

    def __post_init__(self) -> None:
        _not_negative("managed", self)
        if self.vcpus < 1:
            raise ConfigError("managed.vcpus: must be at least 1")
        if self.memory_gb_each not in (2, 4, 8):
            raise ConfigError("managed.memory_gb_each: must be 2, 4 or 8")
        if self.concurrency is not None and not 1 <= self.concurrency <= 64 * self.vcpus:
            raise ConfigError("managed.concurrency: must be from 1 to 64 for each vCPU")
        if not 0 < self.target <= 1:
            raise ConfigError("managed.target: must be from 0 to 1")
        if not 1 <= self.minimum <= self.maximum:
            raise ConfigError("managed.minimum: must be from 1 to the maximum")


class Servers(Struct, frozen=True, kw_only=True):
    """Places with one queue, and no other limit: what a fixed fleet can do at best.

    queue: how many may wait, None: any number. longest: who would wait longer is refused.
    """

    places: int
    queue: int | None = None
    longest: float = float("inf")

    def __post_init__(self) -> None:
        _not_negative("servers", self)
        if self.places < 1:
            raise ConfigError("servers.places: must be at least 1")


Platform = Lambda | Managed | Eks | Servers


def _not_negative(where: str, platform: Struct) -> None:
    for name in platform.__struct_fields__:
        value = getattr(platform, name)
        if isinstance(value, int | float) and not value >= 0:
            raise ConfigError(f"{where}.{name}: {value:g} is not a positive number")
