"""The answer of `seawall plan` as data, which the terminal, `--json` and the report show.

`msgspec.json.encode(answer)` is the JSON of `--json`, with the fields below (docs/plan.md).
Money is for a month, in `currency`; times are seconds unless the field says otherwise; shares are
from 0 to 1. A month has 730 hours.
"""

from typing import Literal

from msgspec import Struct

from seawall.plan.inputs.platforms import PlatformName
from seawall.plan.inputs.question import Objective

__all__ = [
    "SCHEMA",
    "Answer",
    "Autoscaler",
    "BreakEven",
    "CapacityChange",
    "Case",
    "Confidence",
    "Configuration",
    "CostItem",
    "Criterion",
    "Curve",
    "Disagreement",
    "Egress",
    "EksConfiguration",
    "Excluded",
    "Figure",
    "Input",
    "LambdaConfiguration",
    "Lever",
    "LimitHit",
    "ManagedConfiguration",
    "Margin",
    "ModelFigures",
    "ModelNeed",
    "Money",
    "NodeGroup",
    "Ordinary",
    "Percentiles",
    "PlatformAnswer",
    "PlatformName",
    "Remedy",
    "RuleOfThumb",
    "Sensitivity",
    "Series",
    "ServiceConfiguration",
    "SessionConfiguration",
    "SharedCosts",
    "Traffic",
    "Work",
]

SCHEMA = "seawall.plan/2"


class Figure(Struct, frozen=True):
    """A figure of the simulation.

    Attributes:
        value: Mean over replications; None: no request was served.
        half: Half the 95 % confidence interval, from value - half to value + half. None: one
            replication, or a figure without randomness.
    """

    value: float | None
    half: float | None = None


class Percentiles(Struct, frozen=True, kw_only=True):
    """Percentiles of a time, over the requests that were served, with queueing and retries.

    Attributes:
        p50: Seconds.
        p90: Seconds.
        p95: Seconds.
        p99: Seconds.
        p99_9: Seconds.
        distribution: At most 120 points (seconds, share of the served that took no longer), rising
            in both, for a chart.
    """

    p50: Figure
    p90: Figure
    p95: Figure
    p99: Figure
    p99_9: Figure
    distribution: tuple[tuple[float, float], ...] = ()


class CostItem(Struct, frozen=True, kw_only=True):
    """A line of the bill: monthly = quantity * price, after discounts.

    Attributes:
        name: Key in the price file, such as `lambda.gb_seconds`.
        title: For readers.
        monthly: Cost.
        quantity: In a month.
        unit: Of the quantity, such as `GB-s`.
        price: Of one unit, after discounts.
        source: Of the price, with date.
        uncertain: Whether the price file marks it so.
    """

    name: str
    title: str
    monthly: float
    quantity: float
    unit: str
    price: float
    source: str
    uncertain: bool = False


class CapacityChange(Struct, frozen=True):
    """A scheduled change of capacity.

    Attributes:
        at: Seconds from the spike; negative: before it.
        count: Capacity from then on.
    """

    at: float
    count: int


class LambdaConfiguration(Struct, frozen=True, kw_only=True, tag_field="kind", tag="lambda"):
    """Configuration of a Lambda function.

    Attributes:
        memory_mb: Of the function.
        architecture: `arm64` or `x86_64`.
        timeout_seconds: Of a request.
        in_flight: Requests in one environment at once: 1.
        provisioned: Provisioned concurrency; 0: none.
        schedule: Changes of it around an announced spike.
        snapstart: Whether versions are published with SnapStart.
        reserved_concurrency: Of the account's concurrency. None: none.
        account_concurrency: Quota that the account needs.
        entry: How clients reach the function.
        streams: Whether `entry` streams answers.
        functions: Identical functions; `reserved_concurrency` is that of each.
        router: That chooses one of several for each session: `cloudfront`, `alb` or `client`;
            empty: there is one function.
    """

    memory_mb: int
    architecture: str
    timeout_seconds: int
    in_flight: int = 1
    provisioned: int = 0
    schedule: tuple[CapacityChange, ...] = ()
    snapstart: bool = False
    reserved_concurrency: int | None = None
    account_concurrency: int = 1_000
    entry: str = "function-url"
    streams: bool = True
    functions: int = 1
    router: str = ""


class ManagedConfiguration(Struct, frozen=True, kw_only=True, tag_field="kind", tag="managed"):
    """Configuration of a function on Lambda Managed Instances.

    Attributes:
        vcpus: Of an environment.
        memory_gb: Of an environment.
        in_flight: Requests in one environment at once (`AWS_LAMBDA_MAX_CONCURRENCY`).
        runtime: `async`: one process for all of them; `processes`: a process for each, as AWS's
            Python runtime.
        minimum: Environments.
        maximum: Environments.
        target: Share of slots or processors in use above which more are started.
        schedule: Changes of the minimum around an announced spike.
        instance: Type of the machines.
        architecture: `arm64` or `x86_64`.
        timeout_seconds: Of a request.
        entry: How clients reach the function.
        streams: Whether `entry` streams answers.
    """

    vcpus: float
    memory_gb: float
    in_flight: int
    runtime: str
    minimum: int
    maximum: int
    target: float
    schedule: tuple[CapacityChange, ...] = ()
    instance: str = ""
    architecture: str = "arm64"
    timeout_seconds: int = 900
    entry: str = "function-url"
    streams: bool = True


class Autoscaler(Struct, frozen=True, kw_only=True):
    """A horizontal pod autoscaler.

    Attributes:
        metric: `in-flight` (requests in a pod) or `cpu` (per cent of a pod's CPU request).
        target: Of the metric, on average over pods.
        minimum: Pods.
        maximum: Pods.
        down_window_seconds: Of stabilisation.
        up_window_seconds: Of stabilisation.
    """

    metric: str
    target: float
    minimum: int
    maximum: int
    down_window_seconds: float = 300.0
    up_window_seconds: float = 0.0


class NodeGroup(Struct, frozen=True, kw_only=True):
    """The nodes of the pods.

    Attributes:
        instance: `fargate`, or a type.
        count: Nodes between spikes.
        pods_each: Pods that fit on one.
        vcpus: Of one.
        memory_gb: Of one.
        zones: Availability zones.
        spot: Whether they are spot instances.
    """

    instance: str
    count: int
    pods_each: int
    vcpus: float
    memory_gb: float
    zones: int = 2
    spot: bool = False


class EksConfiguration(Struct, frozen=True, kw_only=True, tag_field="kind", tag="eks"):
    """Configuration of a deployment on EKS.

    Attributes:
        pods: Between spikes.
        cores: Of a pod, request and limit.
        memory_mb: Of a pod, request and limit.
        in_flight: Requests in service in one pod at most.
        queue: Requests that wait in one pod at most.
        queue_seconds: How long they wait at most.
        balance: Of the load balancer; `least` outstanding requests.
        autoscaler: None: the number of pods is fixed.
        nodes: Of the pods.
        auto_mode: Whether EKS manages the nodes (Auto Mode).
        schedule: Pods around an announced spike.
        architecture: `arm64` or `x86_64`.
        prestop_seconds: Delay before a pod is terminated.
        grace_seconds: Until a terminating pod is killed.
        startup_seconds: Until a new pod is ready.
    """

    pods: int
    cores: float
    memory_mb: int
    in_flight: int
    queue: int
    queue_seconds: float
    balance: str
    autoscaler: Autoscaler | None
    nodes: NodeGroup
    auto_mode: bool = False
    schedule: tuple[CapacityChange, ...] = ()
    architecture: str = "arm64"
    prestop_seconds: float = 5.0
    grace_seconds: float = 30.0
    startup_seconds: float = 3.0


class ServiceConfiguration(Struct, frozen=True, kw_only=True, tag_field="kind", tag="service"):
    """Configuration of a service of containers: ECS, Cloud Run, Container Apps.

    Attributes:
        runs_on: `fargate`, `ec2`, `cloud-run` or `container-apps`.
        instances: Tasks, instances or replicas between spikes.
        vcpus: Of one.
        memory_mb: Of one.
        in_flight: Requests in service in one at most.
        queue: Requests that wait in one at most.
        queue_seconds: How long they wait at most.
        minimum: Of the scaler.
        maximum: Of the scaler.
        metric: That it follows.
        target: Of the metric, for each instance.
        nodes: Machines, with `ec2`.
        schedule: Instances around an announced spike.
        architecture: `arm64` or `x86_64`.
        grace_seconds: Until an instance that stops is killed.
        startup_seconds: Until a new one is ready.
    """

    runs_on: Literal["fargate", "ec2", "cloud-run", "container-apps"]
    instances: int
    vcpus: float
    memory_mb: int
    in_flight: int
    queue: int
    queue_seconds: float
    minimum: int
    maximum: int
    metric: str
    target: float
    nodes: NodeGroup | None = None
    schedule: tuple[CapacityChange, ...] = ()
    architecture: str = "arm64"
    grace_seconds: float = 30.0
    startup_seconds: float = 3.0


class SessionConfiguration(Struct, frozen=True, kw_only=True, tag_field="kind", tag="sessions"):
    """Configuration of Bedrock AgentCore Runtime: a virtual machine for each session.

    Attributes:
        memory_mb: That a session uses at most; it is billed by use.
        idle_seconds: Until a session without requests ends.
        active_sessions: Quota that the account needs.
        new_sessions: Started in a second at most.
        architecture: `arm64`.
    """

    memory_mb: int
    idle_seconds: float
    active_sessions: int
    new_sessions: float
    architecture: str = "arm64"


Configuration = (
    LambdaConfiguration
    | ManagedConfiguration
    | EksConfiguration
    | ServiceConfiguration
    | SessionConfiguration
)


class Series(Struct, frozen=True, kw_only=True):
    """The spike over time, of the first replication.

    Attributes:
        start: Of the first bin, in seconds from the spike (negative: before it); without a spike,
            from the start of the simulation.
        bin_seconds: Of each bin.
        values: One value a bin, by the names of `seawall.plan.SERIES`, which describes them, and of
            `seawall.plan.MODEL_SERIES` where the model has a quota; None
            without arrivals.
    """

    start: float
    bin_seconds: float
    values: dict[str, tuple[float | None, ...]]


class Ordinary(Struct, frozen=True, kw_only=True):
    """The time between spikes.

    Attributes:
        first_token_p50: Seconds.
        first_token_p99: Seconds.
        latency_p99: Seconds.
        error_share: Of requests that were not served.
        cold_share: Of requests that started an environment.
        capacity: Environments or pods, on average.
    """

    first_token_p50: float | None
    first_token_p99: float | None
    latency_p99: float | None
    error_share: float
    cold_share: float
    capacity: float


LimitName = Literal[
    "model-tokens",
    "model-requests",
    "model-concurrency",
    "account-concurrency",
    "scaling-rate",
    "pod-cores",
    "pod-slots",
    "database",
]


class LimitHit(Struct, frozen=True, kw_only=True):
    """A limit that requests met: because of it they were refused, or waited.

    Attributes:
        name: Of the limit.
        title: For readers.
        at: Seconds from the spike; without one, from the start of the simulation.
        value: Of the limit.
        unit: Of the value.
        requests: How often it was met: requests or calls that were refused, or waited.
        simulated: Whether the simulation enforced it; else it was only compared.
        words: For readers.
    """

    name: LimitName
    title: str
    at: float
    value: float
    unit: str
    requests: float
    simulated: bool
    words: str


class ModelFigures(Struct, frozen=True, kw_only=True):
    """The model's quota on one platform, in the spike.

    Attributes:
        refusals: Model calls that were refused: 429.
        failed: Turns that ended because of the quota; their clients may have retried.
        on_fallback: Share of the admitted calls.
        wait_p50: Seconds that admitted calls waited for the quota.
        wait_p99: Seconds, likewise.
        reserved_most: Tokens reserved by calls in progress, at most.
    """

    refusals: Figure
    failed: Figure
    on_fallback: Figure
    wait_p50: float
    wait_p99: float
    reserved_most: float


class ModelNeed(Struct, frozen=True, kw_only=True):
    """The model's quota, and which one the traffic needs.

    Attributes:
        name: Of the model.
        simulated: Whether a quota was given, and simulated. Else the model had none.
        bound: Output tokens of a call at most.
        input_tokens: Of a call, on average.
        output_tokens: Of a call, on average.
        reserved_tokens: That a call takes from the quota when it is admitted, on average.
        requests_a_minute: Quota without which calls are refused, or wait.
        tokens_a_minute: Likewise, of input and output together as the provider counts them.
        words: For readers.
    """

    name: str
    simulated: bool
    bound: float
    input_tokens: float
    output_tokens: float
    reserved_tokens: float
    requests_a_minute: float
    tokens_a_minute: float
    words: str


class Egress(Struct, frozen=True, kw_only=True):
    """The way of a platform's private network to the model, both ways with their costs.

    Attributes:
        used: `nat` or `endpoints`.
        nat: Cost of NAT gateways in a month.
        endpoints: Cost of interface endpoints in a month.
        share: Of the platform's cost, for the way that is used.
        words: For readers.
    """

    used: str
    nat: float
    endpoints: float
    share: float
    words: str


class PlatformAnswer(Struct, frozen=True, kw_only=True):
    """One platform, with the cheapest configuration that meets the objective; else the nearest.

    Figures are of the requests that arrived in the spike, from its start until its last ones are
    due; without a spike, at the busiest ordinary time.

    Attributes:
        name: Of the platform.
        title: For readers.
        short: Title of at most 22 characters.
        family: `functions` or `containers`.
        cloud: `aws`, `gcp` or `azure`.
        configuration: As data.
        words: The configuration for readers, a line each.
        monthly_cost: Cost that differs between the platforms.
        items: Lines of that cost.
        met: Whether the objective is met.
        misses: Where it is not, in words.
        requests: Their number.
        served: Share.
        refused: Share, by 429 or 503 after all retries.
        timed_out: Share whose client timed out.
        failed: Share that was cut off.
        error_share: The last three together.
        throttled: Attempts that were refused.
        cold_starts: Environments that started because of requests, or pods that started.
        first_token: Time to first token.
        latency: Time to the whole answer.
        ordinary: The time between spikes.
        peak: Greatest values by name: in_service, capacity, model_calls, open_connections, queued,
            in_one_pod, new_connections (a second).
        series: The spike over time.
        egress: Of its private network. None: it has none.
        simulations: Runs of the search, for all platforms together.
        limits: That the requests met, the first one first.
        model: What the model's quota did. None: it was not simulated.
    """

    name: PlatformName
    title: str
    configuration: Configuration
    words: tuple[str, ...]
    monthly_cost: float
    items: tuple[CostItem, ...]
    met: bool
    misses: tuple[str, ...]
    requests: Figure
    served: Figure
    refused: Figure
    timed_out: Figure
    failed: Figure
    error_share: Figure
    throttled: Figure
    cold_starts: Figure
    first_token: Percentiles
    latency: Percentiles
    ordinary: Ordinary
    peak: dict[str, float]
    series: Series
    simulations: int
    short: str = ""
    family: Literal["functions", "containers"] = "functions"
    cloud: Literal["aws", "gcp", "azure"] = "aws"
    limits: tuple[LimitHit, ...] = ()
    model: ModelFigures | None = None

    @property
    def first_limit(self) -> LimitHit | None:
        """The limit that requests met first."""
        return self.limits[0] if self.limits else None

    egress: Egress | None = None


class Excluded(Struct, frozen=True, kw_only=True):
    """A platform that cannot run the service, and why, in words."""

    name: PlatformName
    title: str
    reasons: tuple[str, ...]


class SharedCosts(Struct, frozen=True, kw_only=True):
    """Cost that is the same on every platform: model, session store, traffic to clients."""

    monthly: float
    items: tuple[CostItem, ...]


class Money(Struct, frozen=True, kw_only=True):
    """The whole bill of a month with the choice, and what share of it the platform decides.

    Attributes:
        platform: Cost of the choice that differs between the platforms.
        model: Of tokens.
        rest: Of the session store and of traffic to clients.
        whole: All three.
        platform_share: Of the whole.
        model_title: Name of the model, for readers.
        words: For readers.
    """

    platform: float
    model: float
    rest: float
    whole: float
    platform_share: float
    model_title: str
    words: str


class Lever(Struct, frozen=True, kw_only=True):
    """A change that lowers the bill, whichever platform is chosen.

    Each is computed alone, against today's bill: amounts of several do not add up.

    Attributes:
        name: `prompt-cache`, `batch`, `smaller-model`, `answer-cache`, `shorter-output` or
            `egress`.
        title: For readers.
        saves: In a month; 0: it is not possible.
        share: Of the whole bill.
        basis: What the amount assumes, in words, a line each.
        source: Of the prices.
        uncertain: Whether one of the prices is marked so.
    """

    name: str
    title: str
    saves: float
    share: float
    basis: tuple[str, ...]
    source: str
    uncertain: bool = False


class Traffic(Struct, frozen=True, kw_only=True):
    """The traffic.

    Attributes:
        requests_a_day: Without spikes.
        requests_a_month: With spikes.
        spike_size: Requests of the largest spike; 0: there is none.
        spike_within: Seconds in which they arrive.
        spikes_a_month: Number of spikes.
        announced: Whether their times are known, so that capacity can be scheduled.
        busy: Requests in service at once, on average, between spikes.
        mean_seconds: Of a request without contention.
        start_seconds: Of an initialisation.
    """

    requests_a_day: float
    requests_a_month: float
    spike_size: int
    spike_within: float
    spikes_a_month: float
    announced: bool
    busy: float
    mean_seconds: float
    start_seconds: float


class Margin(Struct, frozen=True, kw_only=True):
    """By how much the choice is better than the runner-up.

    Attributes:
        monthly: Difference of the costs.
        ratio: Runner-up's cost to the choice's.
        by: `cost`: both meet the objective; `objective`: only the choice does, or it is nearer.
        words: For readers.
    """

    monthly: float
    ratio: float
    by: Literal["cost", "objective"]
    words: str


class Confidence(Struct, frozen=True, kw_only=True):
    """Confidence in the choice.

    Attributes:
        level: high, medium or low.
        replications: Number of seeds.
        same: Replications with the same choice.
        inputs: Changes of inputs that were tried.
        inputs_same: Changes that leave the choice.
        words: For readers.
    """

    level: Literal["high", "medium", "low"]
    replications: int
    same: int
    inputs: int
    inputs_same: int
    words: str


class Remedy(Struct, frozen=True, kw_only=True):
    """A change of one limit with which a platform meets the objective, found by simulation.

    Attributes:
        name: Of the input, such as `options.account_limit`.
        title: For readers.
        now: Its value, in words.
        to: The value that suffices, in words.
        value: The value that suffices.
        platform: The cheapest that meets the objective then.
        monthly_cost: Of that platform.
        words: For readers.
    """

    name: str
    title: str
    now: str
    to: str
    value: float
    platform: PlatformName
    monthly_cost: float
    words: str


class BreakEven(Struct, frozen=True, kw_only=True):
    """Traffic at which the choice changes.

    Attributes:
        multiple: Of today's traffic, spikes included.
        requests_a_day: The same as traffic.
        below: Choice with less traffic.
        above: Choice with more traffic.
        by: `cost`: their costs cross; `objective`: one of them starts or stops to meet it, and
            `multiple` is the middle of the curve's step.
    """

    multiple: float
    requests_a_day: float
    below: PlatformName
    above: PlatformName
    by: Literal["cost", "objective"]


class Curve(Struct, frozen=True, kw_only=True):
    """Monthly cost at multiples of the traffic, with each platform sized again.

    Attributes:
        multiples: Rising, 1 included.
        requests_a_day: The same as traffic.
        costs: By platform, one for each multiple; None: it is no candidate there.
        met: Whether the objective is met, by platform, one for each multiple.
        choices: One for each multiple; None: no platform can run the service there.
        break_even: Rising.
    """

    multiples: tuple[float, ...]
    requests_a_day: tuple[float, ...]
    costs: dict[str, tuple[float | None, ...]]
    met: dict[str, tuple[bool, ...]]
    choices: tuple[PlatformName | None, ...]
    break_even: tuple[BreakEven, ...]


class Case(Struct, frozen=True, kw_only=True):
    """One input changed, with everything sized again.

    Attributes:
        value: In words.
        choice: None: no platform can run the service then.
        cost: Of that choice.
        costs: By platform; without those that cannot run the service then.
        met: Whether the objective is met, likewise.
        first_tokens: p99 of the time to first token in seconds, likewise. None: nothing was served.
        errors: Share of requests that were not served, likewise.
        shared: Cost that is the same on every platform, with the model.
    """

    value: str
    choice: PlatformName | None
    cost: float
    costs: dict[str, float]
    met: dict[str, bool]
    first_tokens: dict[str, float | None]
    errors: dict[str, float]
    shared: float


class Sensitivity(Struct, frozen=True, kw_only=True):
    """Sensitivity to an input, for a tornado chart.

    Attributes:
        input: Its name.
        title: For readers.
        base: Its value, in words.
        low: A lower value.
        high: A higher value.
        changes_choice: Whether one of them changes the choice.
        swing: Greatest change of the present choice's cost.
    """

    input: str
    title: str
    base: str
    low: Case
    high: Case
    changes_choice: bool
    swing: float


class Criterion(Struct, frozen=True, kw_only=True):
    """A criterion of the reference article: its value here, which side it favours, and why."""

    name: Literal["duration", "initialisation", "concurrency", "burstiness", "statefulness"]
    value: str
    says: Literal["lambda", "eks"]
    because: str


class Disagreement(Struct, frozen=True, kw_only=True):
    """A difference of rule and simulation. about: a criterion's name, or `choice`."""

    about: str
    rule: str
    simulation: str
    why: str


class RuleOfThumb(Struct, frozen=True, kw_only=True):
    """The reference article's answer. agrees: whether the choice is on its side (Lambda or EKS)."""

    choice: Literal["lambda", "eks"]
    criteria: tuple[Criterion, ...]
    agrees: bool
    disagreements: tuple[Disagreement, ...]


class Input(Struct, frozen=True, kw_only=True):
    """An input and its source. given: by the user; else a default."""

    name: str
    value: str
    source: str
    given: bool


class Work(Struct, frozen=True, kw_only=True):
    """Effort of the answer: runs, simulated requests, seconds of the planner."""

    simulations: int
    requests: int
    seconds: float


class Answer(Struct, frozen=True, kw_only=True):
    """The whole answer.

    Attributes:
        choice: The cheapest platform that meets the objective; if none does, the nearest to it.
        runner_up: The next best. None: no other platform can run the service.
        met: Whether the choice meets the objective.
        summary: The answer in two sentences.
        remedies: If nothing meets the objective, changes of one limit that would help, the
            cheapest first.
        margin: To the runner-up.
        confidence: In the choice.
        objective: That was asked for.
        traffic: That was simulated.
        region: Of the prices.
        currency: Of all money.
        prices_date: Of the price file.
        platforms: Those that can run the service, by name, in the order of PLATFORMS.
        shared: Cost that is the same on every platform.
        money: The whole bill.
        levers: What would lower it, the greatest first, each alone.
        curve: Cost against traffic.
        sensitivity: The most influential input first.
        rule_of_thumb: The reference article's answer.
        inputs: With their sources; given ones first.
        notes: What else to know.
        work: Effort of the answer.
        excluded: Platforms that cannot run the service.
        model: The model's quota.
        schema: Of the JSON.
    """

    choice: PlatformName
    runner_up: PlatformName | None
    met: bool
    summary: str
    remedies: tuple[Remedy, ...]
    margin: Margin
    confidence: Confidence
    objective: Objective
    traffic: Traffic
    region: str
    currency: str
    prices_date: str
    platforms: dict[str, PlatformAnswer]
    shared: SharedCosts
    money: Money
    levers: tuple[Lever, ...]
    curve: Curve
    sensitivity: tuple[Sensitivity, ...]
    rule_of_thumb: RuleOfThumb
    inputs: tuple[Input, ...]
    notes: tuple[str, ...]
    work: Work
    excluded: tuple[Excluded, ...] = ()
    model: ModelNeed | None = None
    schema: str = SCHEMA
