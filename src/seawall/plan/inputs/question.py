"""What `seawall plan` is asked: a workload, what has to hold, where, and under which terms."""

from typing import Literal

from msgspec import Struct, field

from seawall.errors import ConfigError
from seawall.plan.inputs.checks import check_amounts
from seawall.plan.inputs.objective import Objective
from seawall.plan.inputs.prices import Prices, load_prices
from seawall.plan.inputs.workload import Workload

__all__ = ["OPTION_SOURCES", "Options", "PerRequest", "Question"]

HOURS = 730.0
MONTH = HOURS * 3_600.0


class PerRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one request takes of what is paid by the piece.

    input_tokens, output_tokens: of the model. read_units, write_units: of DynamoDB; a write in a
    transaction counts double. kb_to_callers: of the answer. kb_to_model: to and from the model.
    log_kb: that the service writes.
    """

    input_tokens: float = 1_500.0
    output_tokens: float = 250.0
    read_units: float = 2.0
    write_units: float = 6.0
    kb_to_callers: float = 20.0
    kb_to_model: float = 40.0
    log_kb: float = 1.0


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Terms that are not the workload's.

    spikes_a_month: how often the spikes of the workload come. announced: when is known, so that
    capacity can be scheduled. account_limit: concurrency of the Lambda account, a hard one; None:
    the quota is raised as far as needed. architecture: of functions and machines. entry: what
    callers reach a function by. managed_runtime: see `Managed`. zones: that pods and NAT gateways
    are spread over. spot: nodes are bought so, at the discount of that name. least_pods: for
    availability. lead_minutes: by which scheduled capacity is there before an announced spike, and
    stays after it.
    """

    spikes_a_month: float = 4.0
    announced: bool = False
    account_limit: int | None = None
    architecture: Literal["arm64", "x86_64"] = "arm64"
    entry: Literal["function-url", "http-api", "rest-api", "alb"] = "function-url"
    managed_runtime: Literal["async", "processes"] = "async"
    zones: int = 2
    spot: bool = False
    least_pods: int = 2
    lead_minutes: float = 15.0

    def __post_init__(self) -> None:
        check_amounts("options", spikes_a_month=self.spikes_a_month, lead_minutes=self.lead_minutes)
        if self.account_limit is not None and self.account_limit < 1:
            raise ConfigError("options.account_limit: must be at least 1")
        if not 1 <= self.zones <= 6:
            raise ConfigError("options.zones: must be from 1 to 6")
        if self.least_pods < 1:
            raise ConfigError("options.least_pods: must be at least 1")


OPTION_SOURCES = {
    "options.spikes_a_month": "assumed: one a week",
    "options.announced": "assumed: a crowd comes unannounced, so what it needs is always there",
    "options.account_limit": "assumed: the quota (1,000, soft) is raised as far as needed",
    "options.architecture": "assumed: Arm, which costs less on both",
    "options.entry": "assumed: a function URL, which streams and costs nothing",
    "options.managed_runtime": "Seawall's own: one process for many requests",
    "options.zones": "assumed: two, as production wants",
    "options.least_pods": "assumed: two, so that one may end",
    "each.input_tokens": "assumed: 1,500 in and 250 out; the same wherever it runs",
    "each.read_units": "Seawall's own: one read of up to 8 KB, one transaction of three items",
    "each.kb_to_callers": "assumed; the same wherever it runs",
    "each.kb_to_model": "assumed; through NAT where there is a network of one's own",
    "each.log_kb": "assumed: 1 KB, and half a KB more of START, END and REPORT on Lambda",
    "objective": "assumed: first token within 5 s for 99 of 100, one in a hundred may fail",
}


class Question(Struct, frozen=True, kw_only=True):
    """Everything that an answer depends on. Raises ConfigError, naming the field."""

    workload: Workload
    objective: Objective = Objective()
    options: Options = Options()
    each: PerRequest = PerRequest()
    prices: Prices = field(default_factory=lambda: load_prices("us-east-1"))
    given: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        check_amounts(
            "each", **{name: getattr(self.each, name) for name in PerRequest.__struct_fields__}
        )
