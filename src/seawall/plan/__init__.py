"""The planner: simulates a workload on Lambda and on EKS, and decides which to use.

::

    from seawall.plan import Question, advise, from_flags

    question = Question(workload=from_flags(daily="1.2M", spikes=["5000@20s"], duration="4s..7s"))
    answer = advise(question)
    print(answer.summary)

One simulation::

    from seawall.plan import Arrivals, Lambda, Spike, Workload, simulate

    workload = Workload(arrivals=Arrivals(horizon=120.0, spikes=(Spike(5_000, at=20.0),)))
    result = simulate(workload, Lambda(account_limit=10_000))
    result.cold_starts, result.first_token.quantile(0.99), result.seconds["model_calls"].max()

Needs the extra `plan`. It is independent of the runtime. Its packages depend on one another in one
direction: `inputs` <- `simulator` <- `decision` <- `output`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from seawall.plan.decision.answer import Answer
from seawall.plan.inputs.arrivals import Arrivals, Campaign, Spike
from seawall.plan.inputs.distributions import (
    Distribution,
    constant,
    empirical,
    exponential,
    lognormal,
    uniform,
)
from seawall.plan.inputs.exports.reading import read_trace
from seawall.plan.inputs.measured.applying import with_measured
from seawall.plan.inputs.model import Endpoint, ModelLimits, ModelUse
from seawall.plan.inputs.notation import parse_amount, parse_seconds
from seawall.plan.inputs.platforms import (
    PLATFORMS,
    Eks,
    HpaSettings,
    KedaSettings,
    Lambda,
    Managed,
    Nodes,
    Platform,
    PlatformName,
    RequestScaling,
    Scheduled,
    Servers,
    ServiceTracking,
    Tracking,
)
from seawall.plan.inputs.question import Objective, Options, PerRequest, Question
from seawall.plan.inputs.service import ARTICLE_STAGES, Service, Stage, split_duration
from seawall.plan.inputs.workload import Clients, Workload, from_trace
from seawall.plan.inputs.workload_file import from_flags, read_workload
from seawall.plan.simulator.replications import compare, estimate, sweep
from seawall.plan.simulator.result import (
    MODEL_SERIES,
    SERIES,
    Histogram,
    ModelCalls,
    Result,
    Samples,
    Usage,
)
from seawall.plan.simulator.simulate import simulate

if TYPE_CHECKING:
    from seawall.plan.decision.advice import advise
    from seawall.plan.output.report import render_report, write_report

__all__ = [
    "ARTICLE_STAGES",
    "MODEL_SERIES",
    "PLATFORMS",
    "SERIES",
    "Answer",
    "Arrivals",
    "Campaign",
    "Clients",
    "Distribution",
    "Eks",
    "Endpoint",
    "Histogram",
    "HpaSettings",
    "KedaSettings",
    "Lambda",
    "Managed",
    "ModelCalls",
    "ModelLimits",
    "ModelUse",
    "Nodes",
    "Objective",
    "Options",
    "PerRequest",
    "Platform",
    "PlatformName",
    "Question",
    "RequestScaling",
    "Result",
    "Samples",
    "Scheduled",
    "Servers",
    "Service",
    "ServiceTracking",
    "Spike",
    "Stage",
    "Tracking",
    "Usage",
    "Workload",
    "advise",
    "compare",
    "constant",
    "empirical",
    "estimate",
    "exponential",
    "from_flags",
    "from_trace",
    "lognormal",
    "parse_amount",
    "parse_seconds",
    "read_trace",
    "read_workload",
    "render_report",
    "simulate",
    "split_duration",
    "sweep",
    "uniform",
    "with_measured",
    "write_report",
]

# Imported at first use: they import numba or jinja2.
_LAZY = {
    "advise": "seawall.plan.decision.advice",
    "render_report": "seawall.plan.output.report",
    "write_report": "seawall.plan.output.report",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
