"""The planner's simulator: a workload, a platform, and what would happen, request by request.

::

    from seawall.plan import Lambda, Workload, Arrivals, Spike, simulate

    crowd = Workload(arrivals=Arrivals(horizon=120.0, spikes=(Spike(5_000, at=20.0),)))
    result = simulate(crowd, Lambda(account_limit=10_000))
    result.cold_starts, result.first_token.quantile(0.99), result.seconds["model_calls"].max()

Needs the extra `plan`. Nothing here knows of the runtime, nor does the runtime of this.
"""

from seawall.plan.inputs.arrivals import Arrivals, Campaign, Spike
from seawall.plan.inputs.distributions import (
    Distribution,
    constant,
    empirical,
    exponential,
    lognormal,
    uniform,
)
from seawall.plan.inputs.platforms import (
    Eks,
    Lambda,
    Managed,
    Nodes,
    Platform,
    Scheduled,
    Servers,
    Tracking,
)
from seawall.plan.inputs.service import ARTICLE_STAGES, Service, Stage, split_duration
from seawall.plan.inputs.workload import Clients, Workload, from_trace
from seawall.plan.inputs.workload_file import from_flags, read_workload
from seawall.plan.simulator.hpa import HpaSettings
from seawall.plan.simulator.keda import KedaSettings
from seawall.plan.simulator.result import SERIES, Histogram, Result, Samples, Usage
from seawall.plan.simulator.simulate import simulate

__all__ = [
    "ARTICLE_STAGES",
    "SERIES",
    "Arrivals",
    "Campaign",
    "Clients",
    "Distribution",
    "Eks",
    "Histogram",
    "HpaSettings",
    "KedaSettings",
    "Lambda",
    "Managed",
    "Nodes",
    "Platform",
    "Result",
    "Samples",
    "Scheduled",
    "Servers",
    "Service",
    "Spike",
    "Stage",
    "Tracking",
    "Usage",
    "Workload",
    "constant",
    "empirical",
    "exponential",
    "from_flags",
    "from_trace",
    "lognormal",
    "read_workload",
    "simulate",
    "split_duration",
    "uniform",
]
