"""The question of a plan: a workload, the objective, options and prices."""

import math
from typing import Literal

from msgspec import Struct, field, structs

from seawall.errors import ConfigError
from seawall.plan.inputs.distributions import check_amounts, constant, mean_of
from seawall.plan.inputs.model import ModelLimits
from seawall.plan.inputs.model_prices import ModelPrice, model_price
from seawall.plan.inputs.prices import Prices, load_prices
from seawall.plan.inputs.workload import Workload

__all__ = [
    "HOURS",
    "MONTH",
    "OPTION_SOURCES",
    "LeverShares",
    "Objective",
    "Options",
    "PerRequest",
    "Question",
    "with_discount",
    "with_model",
    "with_options",
    "with_quota",
]

HOURS = 730.0  # in a month
MONTH = HOURS * 3_600.0  # seconds


class Objective(Struct, frozen=True, kw_only=True):
    """The service level objective, for requests in the spike; without one, at the busiest time.

    Attributes:
        first_token_p99: Seconds to the first token at most, 99th percentile of the served.
        error_share: Share of requests that are refused, time out or fail, at most.
        latency_p99: Seconds to the whole answer at most, 99th percentile; infinite: any. None, in a
            question, becomes the greater of twice what a request takes without load, and of that
            and `first_token_p99` together; both at the 99th percentile.
        monthly_cost: Cost that differs between platforms, at most. None: any.
        usual_latency_p99: The default that a question has set `latency_p99` to; not to be given.

    Raises:
        ConfigError: A value is invalid; the field is named.
    """

    first_token_p99: float = 5.0
    error_share: float = 0.01
    latency_p99: float | None = None
    monthly_cost: float | None = None
    usual_latency_p99: float | None = None

    def __post_init__(self) -> None:
        for name in ("first_token_p99", "latency_p99", "monthly_cost"):
            value = getattr(self, name)
            endless = name == "latency_p99" and value == math.inf
            if value is not None and not (value > 0 and (endless or math.isfinite(value))):
                raise ConfigError(f"objective.{name}: {value:g} is not a positive number")
        if not 0 <= self.error_share <= 1:
            raise ConfigError(f"objective.error_share: {self.error_share:g} is not from 0 to 1")


class PerRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Amounts of one request that are billed by quantity.

    Attributes:
        input_tokens: Of the model.
        output_tokens: Of the model.
        read_units: Of DynamoDB.
        write_units: Of DynamoDB; a write in a transaction counts double.
        kb_to_callers: Size of the answer.
        kb_to_model: Traffic to and from the model.
        log_kb: Written by the service.
    """

    input_tokens: float = 1_500.0
    output_tokens: float = 250.0
    read_units: float = 2.0
    write_units: float = 6.0
    kb_to_callers: float = 20.0
    kb_to_model: float = 40.0
    log_kb: float = 1.0


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the platforms.

    Attributes:
        platforms: Places to compare: names of places, or of clouds with all their places, or `all`.
        spikes_a_month: How often the workload's spikes occur.
        announced: Whether their time is known, so that capacity can be scheduled.
        account_limit: Hard limit of the Lambda account's concurrency. None: the quota is raised as
            far as needed.
        architecture: Of functions and machines.
        entry: How clients reach a function.
        router: Of several identical functions: `cloudfront`, or `client`, which chooses one of
            their addresses by the hash of its session. Behind `alb`, its listener is the router.
        most_functions: Identical functions behind a router at most; 1: none.
        managed_runtime: See `Managed.runtime`.
        zones: Availability zones of pods and NAT gateways; 1 to 6.
        spot: Whether nodes are spot instances, at the discount of that name.
        extended_support: Whether clusters of EKS run a version of Kubernetes in extended support.
        least_pods: Minimum number of pods, for availability.
        lead_minutes: How long before and after an announced spike its capacity is scheduled.
        egress: How a private network reaches the model: NAT gateways, or interface endpoints of the
            provider's services, for a model that the cloud itself serves.
        model: Name of the model for its list prices; see `inputs.model_prices`. Empty: those of the
            price file, else Claude Haiku 4.5's.

    Raises:
        ConfigError: A value is invalid; the field is named.
    """

    platforms: tuple[str, ...] = ("aws",)
    spikes_a_month: float = 4.0
    announced: bool = False
    account_limit: int | None = None
    architecture: Literal["arm64", "x86_64"] = "arm64"
    entry: Literal["function-url", "http-api", "rest-api", "alb"] = "function-url"
    router: Literal["cloudfront", "client"] = "cloudfront"
    most_functions: int = 10
    managed_runtime: Literal["async", "processes"] = "async"
    zones: int = 2
    spot: bool = False
    extended_support: bool = False
    least_pods: int = 2
    lead_minutes: float = 15.0
    egress: Literal["nat", "endpoints"] = "nat"
    model: str = ""

    def __post_init__(self) -> None:
        check_amounts("options", spikes_a_month=self.spikes_a_month, lead_minutes=self.lead_minutes)
        if self.account_limit is not None and self.account_limit < 1:
            raise ConfigError("options.account_limit: must be at least 1")
        if not 1 <= self.zones <= 6:
            raise ConfigError("options.zones: must be from 1 to 6")
        if not 1 <= self.most_functions <= 100:
            raise ConfigError("options.most_functions: must be from 1 to 100")
        if self.least_pods < 1:
            raise ConfigError("options.least_pods: must be at least 1")


OPTION_SOURCES = {
    "options.platforms": "every place of AWS",
    "options.spikes_a_month": "assumed: one a week",
    "options.announced": "assumed: not announced, so their capacity is always provisioned",
    "options.account_limit": "assumed: the quota (1,000, soft) is raised as far as needed",
    "options.architecture": "assumed: Arm, which costs less on both",
    "options.entry": "assumed: a function URL, which streams and costs nothing",
    "options.router": "assumed: CloudFront, so that clients need one address",
    "options.most_functions": "assumed: more are too many to run",
    "options.managed_runtime": "Seawall's own: one process for many requests",
    "options.zones": "assumed: two, as production wants",
    "options.egress": "assumed: NAT, which reaches any model",
    "options.model": "assumed: a small hosted model; the same on every platform",
    "levers": "assumed: shares of requests or tokens; put your own",
    "options.least_pods": "assumed: two, so that one may fail",
    "each.input_tokens": "assumed: 1,500 in and 250 out; the same on every platform",
    "each.read_units": "Seawall's own: one read of up to 8 KB, one transaction of three items",
    "each.kb_to_callers": "assumed; the same on every platform",
    "each.kb_to_model": "assumed; through NAT where there is a private network",
    "each.log_kb": "assumed: 1 KB, and half a KB more of START, END and REPORT on Lambda",
    "objective": "assumed: first token p99 within 5 s, one request in a hundred may fail",
    "objective.latency_p99": "assumed: twice the p99 without load, or that and the first token's",
}


class LeverShares(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What could be saved on the model: shares from 0 to 1, for the amounts of the answer's levers.

    Attributes:
        prefix: Of the input that all requests begin with (instructions, tools): a prompt cache
            reads it.
        batch: Of requests that may wait for hours.
        smaller: Of requests that a smaller model answers as well.
        answers: Of requests whose answer an answer cache has.
        output: Of the output that a tighter bound saves.

    Raises:
        ConfigError: A value is invalid; the field is named.
    """

    prefix: float = 0.6
    batch: float = 0.1
    smaller: float = 0.3
    answers: float = 0.1
    output: float = 0.2

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"levers.{name}: {getattr(self, name):g} is not from 0 to 1")


class Question(Struct, frozen=True, kw_only=True):
    """Everything that an answer depends on.

    Attributes:
        workload: To be served.
        objective: To be met.
        options: Of the platforms.
        each: Amounts of one request.
        levers: Shares for the levers on the model's cost.
        prices: Those of us-east-1 by default.
        given: Names of inputs that the user gave, such as `options.zones` or `prices`.

    Raises:
        ConfigError: A value is invalid; the field is named.
    """

    workload: Workload
    objective: Objective = Objective()
    options: Options = Options()
    each: PerRequest = PerRequest()
    levers: LeverShares = LeverShares()
    prices: Prices = field(default_factory=lambda: load_prices("us-east-1"))
    given: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self._set_latency()
        check_amounts(
            "each", **{name: getattr(self.each, name) for name in PerRequest.__struct_fields__}
        )
        self._agree_on_tokens()
        self.model  # noqa: B018 - a model without prices is an error of the question

    def _set_latency(self) -> None:
        """Set the objective's latency where it was not given, and again if the workload changes."""
        objective = self.objective
        if objective.latency_p99 not in (None, objective.usual_latency_p99):
            return
        alone = self.workload.service.latency_p99
        usual = max(2.0 * alone, alone + objective.first_token_p99)
        changed = structs.replace(objective, latency_p99=usual, usual_latency_p99=usual)
        structs.force_setattr(self, "objective", changed)

    def _agree_on_tokens(self) -> None:
        """Give the bill the mean tokens of the model's distributions, or these the tokens given."""
        model, sources = self.workload.model, self.workload.sources
        means, fixed = {}, {}
        for name in ("input_tokens", "output_tokens"):
            tokens = getattr(model, name)
            if sources.get(f"model.{name}", "").startswith(("given", "the trace")):
                means[name] = mean_of(tokens)
            elif tokens != constant(getattr(self.each, name)):
                fixed[name] = constant(getattr(self.each, name))
        if means:
            structs.force_setattr(self, "each", structs.replace(self.each, **means))
        if fixed:
            workload = structs.replace(self.workload, model=structs.replace(model, **fixed))
            structs.force_setattr(self, "workload", workload)

    @property
    def model(self) -> ModelPrice:
        """Prices of the model."""
        return model_price(self.options.model, self.prices, self.each.input_tokens)


def with_options(question: Question, **fields: object) -> Question:
    """The question with other options."""
    return structs.replace(question, options=structs.replace(question.options, **fields))


def with_model(question: Question, **fields: object) -> Question:
    """The question with another use of the model."""
    model = structs.replace(question.workload.model, **fields)
    return structs.replace(question, workload=structs.replace(question.workload, model=model))


def with_quota(question: Question, **fields: object) -> Question:
    """The question with other quotas of the model."""
    limits = structs.replace(question.workload.model.limits or ModelLimits(), **fields)
    return with_model(question, limits=limits)


def with_discount(question: Question, what: str, share: float) -> Question:
    """The question with another discount; see `prices.DISCOUNTS`."""
    prices = question.prices
    changed = structs.replace(prices, discounts=prices.discounts | {what: share})
    return structs.replace(question, prices=changed)
