"""Every input of an answer with its value and where that is from."""

from seawall.plan.decision.answer import Input
from seawall.plan.decision.text import amount, seconds, times
from seawall.plan.inputs.question import OPTION_SOURCES, Question

__all__ = ["inputs_of"]

_DAY = 86_400.0


def _values(question: Question) -> dict[str, str]:
    workload, options = question.workload, question.options
    arrivals, service, clients = workload.arrivals, workload.service, workload.clients
    each, objective = question.each, question.objective
    crowds = [
        f"{spike.size:,}" + (f" within {seconds(spike.within)}" if spike.within else " at once")
        for spike in arrivals.spikes
    ]
    stages = ", ".join(f"{stage.name} {times(stage.seconds)}" for stage in service.stages)
    recorded = 0 if arrivals.trace is None else len(arrivals.trace)
    limit = options.account_limit
    values = {
        "arrivals.rate": f"{amount(arrivals.rate * _DAY)} requests a day",
        "arrivals.daily_shape": "given by hour" if arrivals.daily_shape else "flat",
        "arrivals.weekly_shape": "given by day" if arrivals.weekly_shape else "flat",
        "arrivals.spikes": ", ".join(crowds) or "none",
        "service.stages.seconds": stages,
        "service.stages.cpu_ms": f"{sum(stage.cpu_ms for stage in service.stages):g} ms",
        "service.stages.store_calls": str(sum(stage.store_calls for stage in service.stages)),
        "service.first_token": times(service.first_token),
        "service.start": times(service.start),
        "service.restore": "a fifth of the initialisation"
        if service.restore is None else times(service.restore),
        "service.memory_mb": f"{service.memory_mb:g} MB",
        "service.memory_kb_in_flight": f"{service.memory_kb_in_flight:g} KB",
        "service.connections": str(service.connections),
        "clients": f"{clients.retries} retries, patience {seconds(clients.patience)}",
        "objective": f"first token p99 within {seconds(objective.first_token_p99)}, errors at most "
        f"{objective.error_share:.1%}",
        "options.spikes_a_month": amount(options.spikes_a_month),
        "options.announced": "yes" if options.announced else "no",
        "options.account_limit": "raised as needed" if limit is None else amount(limit),
        "options.architecture": options.architecture,
        "options.entry": options.entry,
        "options.managed_runtime": options.managed_runtime,
        "options.zones": str(options.zones),
        "options.least_pods": str(options.least_pods),
        "each.input_tokens": f"{each.input_tokens:g} in, {each.output_tokens:g} out",
        "each.read_units": f"{each.read_units:g} read, {each.write_units:g} write units",
        "each.kb_to_callers": f"{each.kb_to_callers:g} KB",
        "each.kb_to_model": f"{each.kb_to_model:g} KB",
        "each.log_kb": f"{each.log_kb:g} KB",
    }  # fmt: skip
    if recorded:
        values["arrivals.trace"] = f"{recorded:,} requests in {seconds(arrivals.horizon)}"
    return values


_PLAIN = {
    "arrivals.rate": "none given",
    "arrivals.daily_shape": "assumed",
    "arrivals.weekly_shape": "assumed",
    "arrivals.spikes": "none given",
    "service.restore": "assumed",
}


def inputs_of(question: Question) -> tuple[Input, ...]:
    """Each input of the question; those that were given first."""
    known = _PLAIN | OPTION_SOURCES | question.workload.sources
    found = []
    for name, value in _values(question).items():
        table = name.partition(".")[0]
        given = name in question.given or any(
            each in question.given for each in (table, f"{table}.*")
        )
        source = known.get(name, "")
        if given or source.startswith("given"):
            source, given = source if source.startswith("given") else "given", True
        measured = source.startswith(("measured by", "the trace"))
        found.append(Input(name=name, value=value, source=source, given=given or measured))
    prices = question.prices
    value = f"{prices.region}, {prices.date}"
    if prices.discounts:
        off = ", ".join(f"{what} {share:.0%}" for what, share in prices.discounts.items())
        value += f"; discounts: {off}"
    found.append(
        Input(name="prices", value=value, source=prices.file, given="prices" in question.given)
    )
    return tuple(sorted(found, key=lambda each: not each.given))
