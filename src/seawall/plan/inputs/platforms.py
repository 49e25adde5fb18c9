"""The platforms, as data: limits and times with their sources; what is not published is assumed."""

import math
from typing import Literal

from msgspec import Struct, structs

from seawall.errors import ConfigError
from seawall.plan.inputs.distributions import Distribution, constant, uniform

__all__ = [
    "DEFAULT_DOWN",
    "DEFAULT_UP",
    "MANAGED_MB",
    "MANAGED_VCPUS",
    "PLATFORMS",
    "Eks",
    "HpaSettings",
    "KedaSettings",
    "Lambda",
    "Managed",
    "Nodes",
    "Platform",
    "PlatformName",
    "Policy",
    "RequestScaling",
    "Rules",
    "Scheduled",
    "Servers",
    "ServiceTracking",
    "Tracking",
]

# What a plan compares.
PlatformName = Literal[
    "lambda",
    "lambda-provisioned",
    "lambda-snapstart",
    "lambda-managed",
    "lambda-web",
    "agentcore",
    "ecs-fargate",
    "ecs-ec2",
    "eks",
    "eks-auto",
    "cloud-run",
    "container-apps",
]

# In this order everywhere.
PLATFORMS: tuple[PlatformName, ...] = (
    "lambda",
    "lambda-provisioned",
    "lambda-snapstart",
    "lambda-managed",
    "lambda-web",
    "agentcore",
    "ecs-fargate",
    "ecs-ec2",
    "eks",
    "eks-auto",
    "cloud-run",
    "container-apps",
)


# Of an environment on managed instances (https://docs.aws.amazon.com/lambda/latest/dg/
# lambda-managed-instances.html, and the references of infrastructure tools of 2026-04).
MANAGED_VCPUS = 16
MANAGED_MB = 32_768


class Scheduled(Struct, frozen=True):
    """From `at` seconds on, `capacity` is provisioned; repeated every `every` seconds, 0: once."""

    at: float
    capacity: int
    every: float = 0.0


class Tracking(Struct, frozen=True):
    """Application Auto Scaling of provisioned concurrency by its utilisation.

    Target tracking acts on CloudWatch alarms: three one-minute data points above the target to
    scale out, fifteen below 90 % of it to scale in
    (https://docs.aws.amazon.com/autoscaling/application/userguide/target-tracking-scaling-policy-overview.html).

    Attributes:
        utilization: The target.
        minimum: Of the provisioned concurrency.
        maximum: Of the provisioned concurrency.
        out_minutes: Above the target until it scales out.
        in_minutes: Below 90 % of the target until it scales in.
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

    Attributes:
        memory_mb: 128 to 10,240. 1,769 MB are one processor; below, processor time stretches in
            proportion, that of an initialisation as far as `Service.init_vcpus` allows.
        snapstart: New environments restore a snapshot in place of initialising; not together with
            provisioned concurrency.
        provisioned: Environments initialised in advance; requests beyond them spill over to others.
        warm: Idle environments at the start, beyond the provisioned ones, of evenly spread ages; at
            most as many as the limit allows.
        schedule: Changes of the provisioned concurrency at fixed times.
        tracking: Changes of the provisioned concurrency by its utilisation.
        account_limit: Concurrency of the account in the region; 1,000 by default.
        elsewhere: Concurrency that the account's other functions use.
        reserved: Concurrency reserved for this function, which is also its maximum. None: none.
        start_rate: New environments a second, refilled continuously (1,000 every 10 s a function);
            infinite: no limit.
        start_burst: New environments at once; unused rate does not accumulate beyond it.
        invocations_per_concurrency: Requests a second for each of the limit.
        sandbox: Seconds from the request to the start of initialisation (assumed 0.15 s).
        start_limit: An initialisation that takes longer than this many seconds on demand starts
            again within the invocation.
        idle_seconds: Until an idle environment is reclaimed (unpublished; measurements say minutes
            to an hour: assumed 600).
        lifetime: Seconds until an environment is replaced (hours; assumed two).
        timeout: Seconds of a request; at most `longest`.
        longest: 900 for Lambda; another place with such environments has its own.
        functions: Identical functions behind a router, which chooses one at random for each
            session. Each has its own start rate; provisioned and account's concurrency are shared.
        streams: Whether clients see an answer as it is made; else all of it at the end.
        reuse: `recent`: the environment idle for the shortest time; `newest`: the one that was
            started last.

    Raises:
        ConfigError: A value is invalid; the field is named.
    """

    memory_mb: int = 1_769
    snapstart: bool = False
    provisioned: int = 0
    warm: int = 0
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
    longest: float = 900.0
    functions: int = 1
    streams: bool = True
    reuse: Literal["recent", "newest"] = "recent"

    @property
    def limit(self) -> int:
        """Maximum of concurrent requests of this function."""
        whole = self.account_limit - self.elsewhere
        return whole if self.reserved is None else min(self.reserved, whole)

    def __post_init__(self) -> None:
        _not_negative("lambda", self)
        if not 128 <= self.memory_mb <= 10_240:
            raise ConfigError(f"lambda.memory_mb: {self.memory_mb} is not from 128 to 10,240")
        if not 0 < self.timeout <= self.longest:
            allowed = f"from 0 to {self.longest:g} seconds"
            raise ConfigError(f"lambda.timeout: {self.timeout:g} is not {allowed}")
        if self.functions < 1:
            raise ConfigError("lambda.functions: must be at least 1")
        if self.functions > 1 and (self.schedule or self.tracking or self.reserved is not None):
            raise ConfigError(
                "lambda.functions: several not with schedule, tracking or reserved concurrency"
            )
        if self.limit < 1:
            raise ConfigError("lambda.account_limit: leaves nothing for this function")
        most = max([self.provisioned, *(each.capacity for each in self.schedule)])
        most = max(most, self.tracking.maximum if self.tracking else 0)
        if most > self.limit:
            raise ConfigError(f"lambda.provisioned: {most} exceeds the limit of {self.limit}")
        if self.snapstart and most:
            raise ConfigError("lambda.snapstart: not together with provisioned concurrency")


class Policy(Struct, frozen=True):
    """At most `value` pods, or per cent, in any `period` seconds."""

    kind: Literal["pods", "percent"]
    value: float
    period: float


class Rules(Struct, frozen=True):
    """Scaling in one direction.

    Attributes:
        policies: Limits of the change.
        window: Seconds of stabilisation.
        select: Which of the policies counts: the one that allows most or least, or none.
    """

    policies: tuple[Policy, ...]
    window: float = 0.0
    select: Literal["max", "min", "disabled"] = "max"


DEFAULT_UP = Rules((Policy("pods", 4, 15), Policy("percent", 100, 15)))
DEFAULT_DOWN = Rules((Policy("percent", 100, 15),), window=300.0)


class HpaSettings(Struct, frozen=True, kw_only=True):
    """A horizontal pod autoscaler, with Kubernetes' defaults.

    Attributes:
        minimum: Pods.
        maximum: Pods.
        metric: `cpu`: per cent of a pod's CPU request; `in-flight`: requests in a pod.
        target: Of the metric, on average over pods.
        tolerance: No change while the ratio of metric to target is this near to 1.
        sync: Seconds between evaluations.
        cpu_initialization: Seconds after its start in which a pod's usage may not count.
        up: Rules for scaling up.
        down: Rules for scaling down.
    """

    minimum: int = 2
    maximum: int = 100
    metric: Literal["cpu", "in-flight"] = "cpu"
    target: float = 70.0
    tolerance: float = 0.1
    sync: float = 15.0
    cpu_initialization: float = 300.0
    up: Rules = DEFAULT_UP
    down: Rules = DEFAULT_DOWN


class KedaSettings(Struct, frozen=True, kw_only=True):
    """A KEDA ScaledObject on the number of requests in flight.

    Attributes:
        minimum: Pods.
        maximum: Pods.
        target: Requests in flight for each pod.
        polling: Seconds between polls, which scale between none and one.
        cooldown: Seconds without requests until the last pod ends.
        sync: Seconds between evaluations of its autoscaler.
        up: Rules of its autoscaler for scaling up.
        down: Rules of its autoscaler for scaling down.
    """

    minimum: int = 0
    maximum: int = 100
    target: float = 100.0
    polling: float = 30.0
    cooldown: float = 300.0
    sync: float = 15.0
    up: Rules = DEFAULT_UP
    down: Rules = DEFAULT_DOWN


class ServiceTracking(Struct, frozen=True, kw_only=True):
    """Target tracking of the number of tasks of a service by Application Auto Scaling.

    It acts on CloudWatch alarms on the requests of each task in a minute, as `Tracking` does
    (ALBRequestCountPerTarget), and waits for its cool-down after a change: 300 s for ECS
    (https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-autoscaling-targettracking.html).

    Attributes:
        minimum: Tasks.
        maximum: Tasks.
        target: Requests in a minute for each task.
        out_minutes: Above the target until it scales out.
        in_minutes: Below 90 % of the target until it scales in.
        cooldown: Seconds after a change until the next one.
    """

    minimum: int = 2
    maximum: int = 100
    target: float = 1_000.0
    out_minutes: int = 3
    in_minutes: int = 15
    cooldown: float = 300.0


class RequestScaling(Struct, frozen=True, kw_only=True):
    """Scaling of instances by the requests in flight: Cloud Run's.

    The number follows the mean of requests in flight over a minute, at a share of the instance's
    concurrency; it is increased at once where requests wait
    (https://cloud.google.com/run/docs/about-instance-autoscaling). It is evaluated every five
    seconds (an earlier version of that page).

    Attributes:
        minimum: Instances.
        maximum: Instances.
        target: Requests in flight for each instance: 60 % of its concurrency.
        sync: Seconds between evaluations.
        window: Seconds of the mean.
        idle_seconds: Until an instance that is not needed ends; at most 15 minutes.
    """

    minimum: int = 0
    maximum: int = 100
    target: float = 48.0
    sync: float = 5.0
    window: float = 60.0
    idle_seconds: float = 900.0


class Nodes(Struct, frozen=True, kw_only=True):
    """The nodes of the pods.

    Attributes:
        pods_each: Pods that fit on one.
        spare: Nodes more than needed at the start.
        launch: Seconds from a pod that does not fit to a ready node; 40-90 s with Karpenter
            (literature; measure yours).
        pull: Seconds to pull the image, once a node (assumed 5-15 s).
        spot_interruptions: Of a node, an hour; it then has two minutes
            (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html).
        empty_seconds: Until an empty node is removed (assumed 60 s).
        launch_burst: Launches at once; infinite: no limit. On Fargate 100 in an account, then 20 a
            second (https://docs.aws.amazon.com/AmazonECS/latest/developerguide/throttling.html).
        launch_rate: Launches a second after that.
    """

    pods_each: int = 4
    spare: int = 0
    launch: Distribution = uniform(40.0, 90.0)
    pull: Distribution = uniform(5.0, 15.0)
    spot_interruptions: float = 0.0
    empty_seconds: float = 60.0
    launch_burst: float = math.inf
    launch_rate: float = math.inf


class Eks(Struct, frozen=True, kw_only=True):
    """Pods on Kubernetes.

    Attributes:
        pods: At the start, and always without a scaler.
        scaler: A horizontal pod autoscaler, KEDA, or that of another service of containers. None:
            the number is fixed.
        cores: Of a pod; its requests share them, so a saturated pod slows down.
        memory_mb: Of a pod; it bounds the requests in service, as `concurrency` does.
        concurrency: Requests in service in a pod at most.
        queue: Requests that wait in a pod at most; beyond that they are shed.
        queue_seconds: How long a request waits at most before it is shed.
        balance: How requests are distributed: kube-proxy's `random`, a load balancer's
            `round-robin`, or `least` outstanding requests.
        warm_up: Seconds from the start of the process until the pod is ready (assumed 2 s).
        endpoint_lag: Seconds until a terminating pod gets no more requests (assumed 2 s).
        prestop: Seconds for which a terminating pod still accepts requests.
        grace: Seconds until a terminating pod is killed
            (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination).
        nodes: Of the pods.
        deploys: Times of rolling deployments, in seconds.
        surge: Share of additional pods during a deployment
            (https://kubernetes.io/docs/concepts/workloads/controllers/deployment/: 25 %).

    Raises:
        ConfigError: A value is invalid; the field is named.
    """

    pods: int = 3
    scaler: HpaSettings | KedaSettings | ServiceTracking | RequestScaling | None = None
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
    -python-runtime. It scales asynchronously, on processor use and saturation, and throttles if
    traffic more than doubles within five minutes. There is no queue.

    Attributes:
        vcpus: Of an environment; at least 1.
        memory_gb_each: For each vCPU: 2, 4 or 8.
        runtime: `processes`: a process for each concurrent request, as AWS's runtime for Python;
            `async`: one process for all of them, on one core.
        concurrency: Requests at once in an environment at most. None: 16 a vCPU (AWS's default),
            64 a vCPU for `async`.
        minimum: Environments; three by default.
        maximum: Environments.
        target: Share of slots or processors in use above which it scales (assumed 0.5, from the
            sentence on doubling).
        check_seconds: Between evaluations (assumed 10 s).
        launch: Seconds to start an environment with its instance (assumed 20-60 s).
        idle_seconds: Until surplus environments are removed (assumed 300 s).
        streams: Whether clients see an answer as it is made; else all of it at the end.

    Raises:
        ConfigError: A value is invalid; the field is named.
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
    streams: bool = True

    def __post_init__(self) -> None:
        _not_negative("managed", self)
        if not 1 <= self.vcpus <= MANAGED_VCPUS:
            raise ConfigError(f"managed.vcpus: {self.vcpus:g} is not from 1 to {MANAGED_VCPUS}")
        if self.memory_gb_each not in (2, 4, 8):
            raise ConfigError("managed.memory_gb_each: must be 2, 4 or 8")
        if self.vcpus * self.memory_gb_each * 1_024 > MANAGED_MB:
            raise ConfigError(f"managed.memory_gb_each: more than {MANAGED_MB:,} MB in all")
        if self.concurrency is not None and not 1 <= self.concurrency <= 64 * self.vcpus:
            raise ConfigError("managed.concurrency: must be from 1 to 64 for each vCPU")
        if not 0 < self.target <= 1:
            raise ConfigError("managed.target: must be from 0 to 1")
        if not 1 <= self.minimum <= self.maximum:
            raise ConfigError("managed.minimum: must be from 1 to the maximum")


class Servers(Struct, frozen=True, kw_only=True):
    """Servers with one queue and no other limit: the best that a fixed fleet can do.

    Attributes:
        slots: Requests in service at most.
        queue: Requests that wait at most. None: any number.
        max_wait_seconds: A request that would wait longer is refused.

    Raises:
        ConfigError: A value is invalid; the field is named.
    """

    slots: int
    queue: int | None = None
    max_wait_seconds: float = float("inf")

    def __post_init__(self) -> None:
        _not_negative("servers", self)
        if self.slots < 1:
            raise ConfigError("servers.slots: must be at least 1")


Platform = Lambda | Managed | Eks | Servers
_NUMBERS = (int, float)  # a union takes twice as long, and a search asks thousands of times


def _not_negative(where: str, platform: Struct) -> None:
    for name, value in zip(platform.__struct_fields__, structs.astuple(platform), strict=True):
        if isinstance(value, _NUMBERS) and not value >= 0:
            raise ConfigError(f"{where}.{name}: {value:g} is not a positive number")
