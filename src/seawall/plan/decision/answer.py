"""The whole answer of `seawall plan`, as data: what the terminal, `--json` and the report show.

`msgspec.json.encode(answer)` is the JSON of `--json`, field by field as below; docs/plan.md
explains it to those who read it with other programs. Money is a month's, in `currency`; times are
seconds unless the field says otherwise; a share is from 0 to 1. A month has 730 hours.
"""

from typing import Literal

from msgspec import Struct

from seawall.plan.inputs.objective import Objective

__all__ = [
    "PLATFORMS",
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
    "EksConfiguration",
    "Figure",
    "Input",
    "LambdaConfiguration",
    "ManagedConfiguration",
    "Margin",
    "NodeGroup",
    "Ordinary",
    "Percentiles",
    "PlatformAnswer",
    "PlatformName",
    "RuleOfThumb",
    "Sensitivity",
    "Series",
    "SharedCosts",
    "Traffic",
    "Work",
]

SCHEMA = "seawall.plan/1"

PlatformName = Literal["lambda", "lambda-provisioned", "lambda-snapstart", "lambda-managed", "eks"]

# In this order everywhere.
PLATFORMS: tuple[PlatformName, ...] = (
    "lambda",
    "lambda-provisioned",
    "lambda-snapstart",
    "lambda-managed",
    "eks",
)


class Figure(Struct, frozen=True):
    """A figure of the simulation. value: the mean over replications; None: nobody was served.

    half: half the interval of 95 % confidence: it is from value - half to value + half. None: one
    replication, or a figure that nothing random is in.
    """

    value: float | None
    half: float | None = None


class Percentiles(Struct, frozen=True, kw_only=True):
    """Of a time, over the requests that were served, with all waiting and coming again.

    distribution: points (seconds, share of the served that took no longer), rising in both, at
    most 120 of them, for a drawing.
    """

    p50: Figure
    p90: Figure
    p95: Figure
    p99: Figure
    p99_9: Figure
    distribution: tuple[tuple[float, float], ...] = ()


class CostItem(Struct, frozen=True, kw_only=True):
    """A line of the bill: monthly = quantity * price, after discounts.

    name: the key of the price file, such as `lambda.gb_seconds`. title: for readers. unit: of the
    quantity, such as `GB-s`. price: of one unit, with discounts. source: of the price, with date.
    uncertain: the price file says of it that it is not sure.
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
    """A change of what is provisioned.

    at: seconds from the spike, negative: before it. count: from then on.
    """

    at: float
    count: int


class LambdaConfiguration(Struct, frozen=True, kw_only=True, tag_field="kind", tag="lambda"):
    """Everything that sizes a Lambda function.

    memory_mb: of the function. architecture: `arm64` or `x86_64`. timeout_seconds: of a request.
    in_flight: requests in one environment at once: 1. provisioned: environments kept initialised;
    0: none. schedule: how that changes around an announced spike; empty: it does not. snapstart:
    versions are published with it. reserved_concurrency: to reserve of the account's, for the
    spike is this high; None: none. account_concurrency: what the account's quota has to be.
    entry: what callers reach it by. streams: whether that passes on a streamed answer.
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


class ManagedConfiguration(Struct, frozen=True, kw_only=True, tag_field="kind", tag="managed"):
    """Everything that sizes a function on Lambda Managed Instances.

    vcpus, memory_gb: of an environment. in_flight: requests in one at once
    (`AWS_LAMBDA_MAX_CONCURRENCY`). runtime: `async`, one process for all of them, or `processes`, a
    process each, as AWS's Python runtime has it. minimum, maximum: environments. target: the share
    of places or processors that is used before more are started. schedule: how the minimum changes
    around an announced spike. instance: type of the machines. timeout_seconds: of a request.
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


class Autoscaler(Struct, frozen=True, kw_only=True):
    """A horizontal pod autoscaler.

    metric: `in-flight` (requests in a pod) or `cpu` (per cent of what a pod requests). target: of
    it, on average over pods. minimum, maximum: pods. The windows: seconds of stabilisation.
    """

    metric: str
    target: float
    minimum: int
    maximum: int
    down_window_seconds: float = 300.0
    up_window_seconds: float = 0.0


class NodeGroup(Struct, frozen=True, kw_only=True):
    """Machines under the pods. instance: `fargate` or a type. count: at rest. pods_each: that fit.

    zones: that they are spread over. spot: whether they are bought so.
    """

    instance: str
    count: int
    pods_each: int
    vcpus: float
    memory_gb: float
    zones: int = 2
    spot: bool = False


class EksConfiguration(Struct, frozen=True, kw_only=True, tag_field="kind", tag="eks"):
    """Everything that sizes a deployment on EKS.

    pods: at rest. cores, memory_mb: of one, requested and limit. in_flight: places in one pod.
    queue: requests that wait in one for a place, queue_seconds: for how long. balance: of the load
    balancer, `least` outstanding requests. autoscaler: None: the number is fixed. schedule: pods
    around an announced spike. nodes: under them. connections: that a pod opens to others, at least.
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
    schedule: tuple[CapacityChange, ...] = ()
    architecture: str = "arm64"
    prestop_seconds: float = 5.0
    grace_seconds: float = 30.0
    startup_seconds: float = 3.0


Configuration = LambdaConfiguration | ManagedConfiguration | EksConfiguration


class Series(Struct, frozen=True, kw_only=True):
    """The spike second by second, of the first replication.

    start: of the first bin, in seconds from the spike (negative: before); without a spike from the
    beginning of what was simulated. bin_seconds: of each. values: arrays, one value a bin, by the
    names of `seawall.plan.SERIES`, which says what they are; None where nobody came.
    """

    start: float
    bin_seconds: float
    values: dict[str, tuple[float | None, ...]]


class Ordinary(Struct, frozen=True, kw_only=True):
    """The time between spikes.

    cold_share: of attempts that started an environment. capacity: environments or pods, on average.
    """

    first_token_p50: float | None
    first_token_p99: float | None
    latency_p99: float | None
    error_share: float
    cold_share: float
    capacity: float


class PlatformAnswer(Struct, frozen=True, kw_only=True):
    """One platform, with the cheapest configuration that meets the objective; else the nearest.

    configuration: as data; words: the same for readers, a line each. monthly_cost: of what differs
    between the platforms; items: it by line. Of those who came in the spike (from its beginning
    until its last are due): requests, first_token, latency, and the shares served, refused (429 or
    503 after all retries), timed_out (the client left), failed (cut off). error_share: the last
    three. cold_starts: environments that started in the spike because of requests, or pods.
    throttled: attempts. met: the objective holds; misses: where not, in words. peak: greatest
    values, by name: in_service, capacity, model_calls, open_connections, queued, in_one_pod,
    new_connections (a second). ordinary: the time between. series: the spike by seconds.
    simulations: runs that the search took, for all platforms together.
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


class SharedCosts(Struct, frozen=True, kw_only=True):
    """What costs the same wherever it runs: the model, the session store, traffic to callers."""

    monthly: float
    items: tuple[CostItem, ...]


class Traffic(Struct, frozen=True, kw_only=True):
    """What comes.

    requests_a_day: without spikes. spike_size: requests of the greatest one, 0: there is none;
    spike_within: seconds in which they come. spikes_a_month: such spikes. announced: when they come
    is known, so that capacity can be scheduled. requests_a_month: with them. busy: requests in
    service at once, on average, between spikes. mean_seconds: of a request by itself;
    start_seconds: of an initialisation.
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

    monthly: that it costs less a month. ratio: runner-up's cost to its. by: `cost` if both meet the
    objective; `objective` if only the choice does, or if it comes nearer.
    """

    monthly: float
    ratio: float
    by: Literal["cost", "objective"]
    words: str


class Confidence(Struct, frozen=True, kw_only=True):
    """How sure the choice is.

    level: high, medium or low. replications: with other seeds, same: of them that choose the same.
    inputs: changed inputs that were tried, inputs_same: of them that leave the choice. words: why.
    """

    level: Literal["high", "medium", "low"]
    replications: int
    same: int
    inputs: int
    inputs_same: int
    words: str


class BreakEven(Struct, frozen=True, kw_only=True):
    """Where the choice changes with traffic. multiple: of today's traffic, spikes too.

    below, above: the choices on either side. by: `cost`, their costs cross; `objective`, one of
    them stops or begins to meet it; `multiple` is then the middle of the step of the curve.
    """

    multiple: float
    requests_a_day: float
    below: PlatformName
    above: PlatformName
    by: Literal["cost", "objective"]


class Curve(Struct, frozen=True, kw_only=True):
    """A month's cost at multiples of the traffic, each platform sized anew.

    multiples: rising, with 1 among them; requests_a_day: the same as traffic. costs, met: by
    platform, a value a multiple. choices: a multiple each. break_even: rising.
    """

    multiples: tuple[float, ...]
    requests_a_day: tuple[float, ...]
    costs: dict[str, tuple[float, ...]]
    met: dict[str, tuple[bool, ...]]
    choices: tuple[PlatformName, ...]
    break_even: tuple[BreakEven, ...]


class Case(Struct, frozen=True, kw_only=True):
    """One input changed, everything sized anew. value: it, in words. cost: of the choice there."""

    value: str
    choice: PlatformName
    cost: float
    costs: dict[str, float]
    met: dict[str, bool]


class Sensitivity(Struct, frozen=True, kw_only=True):
    """What an input does, for a tornado. input: its name; title: for readers; base: its value.

    changes_choice: in one of the cases. swing: greatest change of the cost of the present choice.
    """

    input: str
    title: str
    base: str
    low: Case
    high: Case
    changes_choice: bool
    swing: float


class Criterion(Struct, frozen=True, kw_only=True):
    """One of the article's: name, the workload's value, which of both it speaks for, and why."""

    name: Literal["duration", "initialisation", "concurrency", "burstiness", "statefulness"]
    value: str
    says: Literal["lambda", "eks"]
    because: str


class Disagreement(Struct, frozen=True, kw_only=True):
    """Where rule and simulation differ. about: a criterion's name or `choice`."""

    about: str
    rule: str
    simulation: str
    why: str


class RuleOfThumb(Struct, frozen=True, kw_only=True):
    """The reference article's answer. agrees: the choice is of its kind (Lambda or EKS)."""

    choice: Literal["lambda", "eks"]
    criteria: tuple[Criterion, ...]
    agrees: bool
    disagreements: tuple[Disagreement, ...]


class Input(Struct, frozen=True, kw_only=True):
    """An input and where it is from. given: by the user; else a default."""

    name: str
    value: str
    source: str
    given: bool


class Work(Struct, frozen=True, kw_only=True):
    """What finding the answer took: runs, simulated requests, seconds of the planner alone."""

    simulations: int
    requests: int
    seconds: float


class Answer(Struct, frozen=True, kw_only=True):
    """Everything. platforms: by name, in the order of PLATFORMS. notes: what to know besides.

    choice: the cheapest that meets the objective; if none does, the one that comes nearest, and
    `met` is false. runner_up: the next of the others. prices_date: of the price file.
    """

    choice: PlatformName
    runner_up: PlatformName
    met: bool
    summary: str
    margin: Margin
    confidence: Confidence
    objective: Objective
    traffic: Traffic
    region: str
    currency: str
    prices_date: str
    platforms: dict[str, PlatformAnswer]
    shared: SharedCosts
    curve: Curve
    sensitivity: tuple[Sensitivity, ...]
    rule_of_thumb: RuleOfThumb
    inputs: tuple[Input, ...]
    notes: tuple[str, ...]
    work: Work
    schema: str = SCHEMA
