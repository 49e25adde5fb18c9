"""Variations of a question: its traffic, and one input at a time."""

from collections.abc import Callable

import numpy as np
from msgspec import structs

from seawall.plan.decision.numbers import amount, seconds
from seawall.plan.decision.places.port import Variation
from seawall.plan.decision.places.registry import selected
from seawall.plan.decision.text import times
from seawall.plan.inputs.arrivals import Spike
from seawall.plan.inputs.distributions import scaled
from seawall.plan.inputs.question import Question, with_options, with_quota
from seawall.plan.inputs.workload import Workload

__all__ = ["multiples", "variations", "with_traffic"]

_MOST_IN_SPIKE = (
    20_000.0  # requests of a spike at most at a point of the curve; five times as many of a trace
)
_LEAST_A_DAY = 10.0
_MOST_A_DAY = 3e7
_POINTS = 13


def with_traffic(question: Question, multiple: float) -> Question:
    """The question with a multiple of its traffic, spikes included."""
    workload = _scaled_rate(_scaled_spikes(question.workload, multiple), multiple)
    return structs.replace(question, workload=workload)


def _scaled_rate(workload: Workload, multiple: float) -> Workload:
    arrivals = workload.arrivals
    trace = arrivals.trace
    if trace is not None and multiple != 1.0:
        # Copies shifted by up to a second each, and a random part.
        random = np.random.default_rng(1)
        whole = int(multiple)
        copies = [trace] * min(1, whole)
        moved = [trace + random.uniform(0.0, 1.0, len(trace)) for _ in range(whole - 1)]
        part = trace[random.random(len(trace)) < multiple - whole]
        joined = np.sort(np.concatenate([*copies, *moved, part]))
        trace = np.minimum(joined, arrivals.horizon) if len(joined) else trace[:1]
    changed = structs.replace(arrivals, rate=arrivals.rate * multiple, trace=trace)
    return structs.replace(workload, arrivals=changed)


def _scaled_spikes(workload: Workload, multiple: float) -> Workload:
    arrivals = workload.arrivals
    spikes = tuple(
        Spike(max(1, round(each.size * multiple)) if each.size else 0, each.at, each.within)
        for each in arrivals.spikes
    )
    return structs.replace(workload, arrivals=structs.replace(arrivals, spikes=spikes))


def multiples(question: Question, a_day: float) -> tuple[float, ...]:
    """Multiples of the traffic for the cost curve, each about three times the one before, with 1.

    From ten requests a day to what can be simulated quickly; at most thirteen.
    """
    arrivals = question.workload.arrivals
    largest = max([1.0, *(float(spike.size) for spike in arrivals.spikes)])
    recorded = 0 if arrivals.trace is None else len(arrivals.trace)
    steps = [round(10.0 ** (step / 2), 2 if step < 0 else 0) for step in range(-4, 11)]
    fitting = [
        step
        for step in steps
        if step == 1.0
        or (
            (step >= 1.0 or max(a_day, largest) * step >= _LEAST_A_DAY)
            and largest * step <= _MOST_IN_SPIKE
            and (step <= 1.0 or a_day * step <= _MOST_A_DAY)
            and recorded * step <= 5.0 * _MOST_IN_SPIKE
        )
    ]
    while len(fitting) > _POINTS:
        # Keep more multiples above 1 than below.
        del fitting[0 if fitting.index(1.0) > 2 else -1]
    return tuple(fitting)


def _changed_service(question: Question, **fields: object) -> Question:
    service = structs.replace(question.workload.service, **fields)
    return structs.replace(question, workload=structs.replace(question.workload, service=service))


def _durations(question: Question, factor: float) -> Question:
    stages = tuple(
        structs.replace(stage, seconds=scaled(stage.seconds, factor))
        for stage in question.workload.service.stages
    )
    return _changed_service(question, stages=stages)


def _processor(question: Question, factor: float) -> Question:
    stages = tuple(
        structs.replace(stage, cpu_ms=stage.cpu_ms * factor)
        for stage in question.workload.service.stages
    )
    return _changed_service(question, stages=stages)


def _start(question: Question, factor: float) -> Question:
    service = question.workload.service
    restore = None if service.restore is None else scaled(service.restore, factor)
    return _changed_service(
        question, start=scaled(service.start, factor), restore=restore, cold_request=None
    )


def _objective(question: Question, **fields: object) -> Question:
    return structs.replace(question, objective=structs.replace(question.objective, **fields))


def _retries(question: Question, retries: int) -> Question:
    clients = structs.replace(question.workload.clients, retries=retries)
    return structs.replace(question, workload=structs.replace(question.workload, clients=clients))


def _by_factors(
    names: tuple[str, str],
    base: float,
    factors: tuple[float, float],
    change: Callable[[float], Question],
    words: Callable[[float], str],
) -> Variation:
    (name, title), (low, high) = names, factors
    return Variation(
        input=name,
        title=title,
        base=words(base),
        low=(words(base * low), change(low)),
        high=(words(base * high), change(high)),
    )


def variations(question: Question, a_day: float) -> list[Variation]:
    """Variations of each input: a value well below and one well above its own."""
    workload, options, objective = question.workload, question.options, question.objective
    service, spikes = workload.service, workload.arrivals.spikes
    found: list[Variation] = []
    by = _by_factors
    if a_day > 0:

        def busier(factor: float) -> Question:
            return structs.replace(question, workload=_scaled_rate(workload, factor))

        found.append(by(("arrivals.rate", "requests a day"), a_day, (0.1, 10.0), busier, amount))
    largest = max((spike.size for spike in spikes), default=0)
    if largest:

        def larger_spikes(factor: float) -> Question:
            return structs.replace(question, workload=_scaled_spikes(workload, factor))

        found.append(
            by(("arrivals.spikes", "size of the spike"), largest, (0.2, 2.0), larger_spikes, amount)
        )
        found.append(
            Variation(
                input="options.spikes_a_month",
                title="spikes a month",
                base=amount(options.spikes_a_month),
                low=("1", with_options(question, spikes_a_month=1.0)),
                high=("30", with_options(question, spikes_a_month=30.0)),
            )
        )
        found.append(
            Variation(
                input="options.announced",
                title="spikes announced",
                base="yes" if options.announced else "no",
                low=("no", with_options(question, announced=False)),
                high=("yes", with_options(question, announced=True)),
            )
        )
    mean, cpu = service.mean_seconds, sum(stage.cpu_ms for stage in service.stages)
    start = times(service.start)
    found.append(
        by(
            ("service.stages.seconds", "duration of a request"), mean, (0.5, 2.0),
            lambda factor: _durations(question, factor), seconds,
        )
    )  # fmt: skip
    found.append(
        Variation(
            input="service.start",
            title="initialisation",
            base=start,
            low=(times(scaled(service.start, 0.2)), _start(question, 0.2)),
            high=(times(scaled(service.start, 5.0)), _start(question, 5.0)),
        )
    )
    if cpu:
        found.append(
            by(
                ("service.stages.cpu_ms", "processor time of a request"), cpu, (0.4, 10.0),
                lambda factor: _processor(question, factor), lambda value: f"{amount(value)} ms",
            )
        )  # fmt: skip
    found += _of_memory(question)
    found.append(
        by(
            ("objective.first_token_p99", "first token p99 at most"), objective.first_token_p99,
            (0.7, 3.0), lambda factor: _objective(
                question, first_token_p99=objective.first_token_p99 * factor
            ), seconds,
        )
    )  # fmt: skip
    retries = workload.clients.retries
    found.append(
        Variation(
            input="clients.retries",
            title="retries of clients",
            base=str(retries),
            low=("0", _retries(question, 0)),
            high=("8", _retries(question, 8)),
        )
    )
    found.append(
        Variation(
            input="options.egress",
            title="way to the model",
            base="NAT" if options.egress == "nat" else "interface endpoints",
            low=("NAT", with_options(question, egress="nat")),
            high=("interface endpoints", with_options(question, egress="endpoints")),
        )
    )
    found += _of_quota(question)
    known = {each.input for each in found}
    for place in selected(question):
        for each in place.variations(question):
            if each.input not in known:
                known.add(each.input)
                found.append(each)
    return found


def _of_quota(question: Question) -> list[Variation]:
    """The model's quotas; none if no quota is simulated."""
    model = question.workload.model
    if model.limits is None or not model.limited:
        return []
    found = []
    for name, title in (
        ("tokens_a_minute", "model's tokens a minute"),
        ("requests_a_minute", "model's requests a minute"),
    ):
        base = getattr(model.limits, name)
        if base is not None:
            low, high = (with_quota(question, **{name: base * by}) for by in (0.5, 4.0))
            found.append(
                Variation(
                    input=f"model.{name}",
                    title=title,
                    base=amount(base),
                    low=(amount(0.5 * base), low),
                    high=(amount(4.0 * base), high),
                )
            )
    return found


def _of_memory(question: Question) -> list[Variation]:
    service = question.workload.service
    found = []
    if service.memory_kb_in_flight:
        each = service.memory_kb_in_flight
        found.append(
            _by_factors(
                ("service.memory_kb_in_flight", "memory in flight"), each, (0.5, 13.5),
                lambda factor: _changed_service(question, memory_kb_in_flight=each * factor),
                lambda value: f"{amount(value)} KB",
            )
        )  # fmt: skip
    if service.memory_mb:
        rest = service.memory_mb
        found.append(
            _by_factors(
                ("service.memory_mb", "memory of a process"), rest, (0.5, 5.0),
                lambda factor: _changed_service(question, memory_mb=rest * factor),
                lambda value: f"{amount(value)} MB",
            )
        )  # fmt: skip
    return found
