"""The service: the stages of a request with times and processor use, and the start of a process."""

import math

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from seawall.errors import ConfigError
from seawall.plan.inputs.distributions import (
    Distribution,
    check_amounts,
    constant,
    empirical,
    lognormal,
    mean_of,
    quantile_of,
    uniform,
)

__all__ = [
    "ARTICLE_STAGES",
    "DEFAULT_SOURCES",
    "Service",
    "Stage",
    "check_service",
    "split_duration",
    "split_measured",
]

_ARTICLE = "the reference article, Lambda vs. EKS for AI Orchestration at Scale"


class Stage(Struct, frozen=True):
    """A stage of a request.

    Attributes:
        name: For messages.
        seconds: Duration without contention, processor time included.
        cpu_ms: Processor time in it, milliseconds.
        model: Whether it is the model call; at most one stage is.
        store_calls: Calls of the session store in it.
    """

    name: str
    seconds: Distribution
    cpu_ms: float = 0.0
    model: bool = False
    store_calls: int = 0


# The reference article's five. Processor time: 2.5 ms a turn, the goal for the whole pipeline with
# 5,000 turns at once, most of it while the model's text streams. Store calls: Seawall's two a turn.
ARTICLE_STAGES = (
    Stage("session", constant(0.1), cpu_ms=0.2, store_calls=1),
    Stage("authentication", constant(0.2), cpu_ms=0.1),
    Stage("intent", constant(0.5), cpu_ms=0.3),
    Stage("model", uniform(3.0, 6.0), cpu_ms=1.5, model=True),
    Stage("response", constant(0.2), cpu_ms=0.4, store_calls=1),
)

DEFAULT_SOURCES = {
    "service.stages.seconds": f"{_ARTICLE}: 100, 200 and 500 ms, 3-6 s, 200 ms",
    "service.stages.cpu_ms": "the goal for a turn, 2.5 ms at 5,000 at once; measure your own",
    "service.stages.store_calls": "Seawall's own: two round trips a turn",
    "service.first_token": "assumed: median 0.5 s, p99 2 s of a hosted model; measure your own",
    "service.start": f"{_ARTICLE}: one second of initialisation",
    "service.init_vcpus": "assumed from measurements: at least one, which AWS does not document "
    "(github.com/DataDog/datadog-lambda-extension, issue 191 and pull request 700)",
    "service.memory_mb": "measured: an environment with agent libraries takes 40-100 MB",
    "service.memory_kb_in_flight": "the goal for a turn in flight, 40 KB; frameworks take 30-540",
    "service.connections": "model, store and identity provider: one each",
    "clients": "assumed: a client waits 60 s and retries three times, with full jitter from 0.5 s",
}


class Service(Struct, frozen=True, kw_only=True):
    """Times and resources of a request, and of the start of the process that serves it.

    Attributes:
        stages: In order; 1 to 15.
        first_token: Seconds from the start of the model call to its first token.
        start: Initialisation of the process, seconds.
        cold_request: Duration of a request that had to start its environment, where it was measured
            as a whole; replaces `start` and the stages. None: not measured.
        restore: Restoring a snapshot, seconds, in place of `start`. None: a fifth of the mean of
            `start` (assumed).
        init_vcpus: vCPUs that an initialisation on demand on Lambda gets at least, at any memory
            (not documented by AWS; measured); 0: only those of its memory.
        memory_mb: Of a process at rest.
        memory_kb_in_flight: Of each request in flight.
        connections: That a process opens to other services when it starts.
    """

    stages: tuple[Stage, ...] = ARTICLE_STAGES
    first_token: Distribution = lognormal(0.5, 2.0, cap=30.0)
    start: Distribution = constant(1.0)
    cold_request: Distribution | None = None
    restore: Distribution | None = None
    init_vcpus: float = 1.0
    memory_mb: float = 100.0
    memory_kb_in_flight: float = 40.0
    connections: int = 3

    @property
    def mean_seconds(self) -> float:
        """Mean duration of a request without contention, in seconds."""
        return sum(mean_of(stage.seconds) for stage in self.stages)

    @property
    def first_token_p99(self) -> float:
        """Seconds to the first token without contention, 99th percentile: a lower bound."""
        before = 0.0
        for stage in self.stages:
            if stage.model:
                # A call may end before its first token: 0.011 of one, 0.99 of the other.
                first, call = quantile_of(self.first_token, 0.989), quantile_of(stage.seconds, 0.01)
                return before + min(first, call)
            before += mean_of(stage.seconds)
        return before

    @property
    def latency_p99(self) -> float:
        """Seconds to the whole answer without contention, 99th percentile.

        The deviations of the stages from their means are added as those of normal variables, which
        is exact if one stage varies.
        """
        means = [mean_of(stage.seconds) for stage in self.stages]
        apart = [
            quantile_of(stage.seconds, 0.99) - mean
            for stage, mean in zip(self.stages, means, strict=True)
        ]
        return sum(means) + math.hypot(*(max(0.0, each) for each in apart))


def split_duration(
    whole: Distribution, stages: tuple[Stage, ...] = ARTICLE_STAGES
) -> tuple[Stage, ...]:
    """Adjust stages to a total duration: the model call takes what the others leave.

    Args:
        whole: Duration of a request; constant or uniform.
        stages: Stages to adjust. The others than the model shrink in proportion where they would
            take more than a quarter of `whole`.

    Raises:
        ConfigError: `whole` is of another kind.
    """
    if whole.kind not in ("constant", "uniform"):
        raise ConfigError("service.duration: a constant or a range; else give the stages")
    high = whole.b if whole.kind == "uniform" else whole.a
    others = sum(mean_of(stage.seconds) for stage in stages if not stage.model)
    # Short requests keep the shape of long ones: the model takes three quarters.
    factor = min(1.0, 0.25 * whole.a / others) if others else 0.0
    rest = others * factor
    changed = []
    for stage in stages:
        if stage.model:
            seconds = uniform(whole.a - rest, high - rest, field="service.duration")
        else:
            seconds = constant(mean_of(stage.seconds) * factor)
        changed.append(structs.replace(stage, seconds=seconds))
    return tuple(changed)


def split_measured(
    whole: NDArray[np.float64], stages: tuple[Stage, ...] = ARTICLE_STAGES
) -> tuple[Stage, ...]:
    """Adjust stages to measured durations of whole requests, in seconds.

    The model call (without one, the last stage) takes what the others leave; these shrink in
    proportion where they would take more than a quarter of the median.
    """
    at = next((at for at, stage in enumerate(stages) if stage.model), len(stages) - 1)
    others = sum(mean_of(stage.seconds) for stage in stages) - mean_of(stages[at].seconds)
    rest = min(others, 0.25 * float(np.median(whole)))
    factor = rest / others if others else 0.0
    changed = [
        structs.replace(stage, seconds=constant(mean_of(stage.seconds) * factor))
        for stage in stages
    ]
    left = empirical(np.maximum(whole - rest, 0.0).tolist(), field="trace.durations")
    changed[at] = structs.replace(stages[at], seconds=left)
    return tuple(changed)


def check_service(service: Service) -> None:
    """Raise ConfigError, naming the field, if a value is invalid."""
    if not service.stages:
        raise ConfigError("service.stages: no stages")
    if len(service.stages) > 15:
        raise ConfigError("service.stages: more than 15")
    if sum(stage.model for stage in service.stages) > 1:
        raise ConfigError("service.stages: more than one is the model's")
    for stage in service.stages:
        check_amounts(
            f"service.stages.{stage.name}", cpu_ms=stage.cpu_ms, store_calls=stage.store_calls
        )
    check_amounts(
        "service",
        init_vcpus=service.init_vcpus,
        memory_mb=service.memory_mb,
        memory_kb_in_flight=service.memory_kb_in_flight,
        connections=service.connections,
    )
