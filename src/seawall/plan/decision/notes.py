"""Explanation of an answer: its summary, notes, and inputs with their sources."""

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime

from seawall.plan.decision.answer import Input, PlatformAnswer, PlatformName
from seawall.plan.decision.numbers import amount, money, seconds, share
from seawall.plan.decision.places.registry import place_of
from seawall.plan.decision.text import times
from seawall.plan.decision.windows import Month
from seawall.plan.inputs.model import ModelUse
from seawall.plan.inputs.model_prices import model_price
from seawall.plan.inputs.prices import Prices, stale_days
from seawall.plan.inputs.question import OPTION_SOURCES, Question

__all__ = [
    "inputs_of",
    "notes_of",
    "stale_notes",
    "summary_of",
]


def summary_of(
    question: Question,
    month: Month,
    platforms: Mapping[str, PlatformAnswer],
    choice: PlatformName,
    runner_up: PlatformName | None,
) -> str:
    """The answer in two sentences."""
    mine = platforms[choice]
    other = None if runner_up is None else platforms[runner_up]
    currency = question.prices.currency
    cost = money(mine.monthly_cost, currency)
    load = f"a spike of {amount(month.judged.size)}" if month.judged.event else "the busiest hour"
    if not mine.met:
        return (
            f"Nothing meets the objective in {load}. Nearest, for {cost} a month, is {mine.title}: "
            f"{'; '.join(mine.misses)}."
        )
    p99 = seconds(mine.first_token.p99.value)
    text = f"{mine.title} serves {load} with a first token p99 of {p99} for {cost} a month."
    if other is None:
        return text
    if other.met:
        costs = money(other.monthly_cost, currency)
        return f"{text} {other.title} would too, for {costs}."
    return f"{text} {other.title} would not: {'; '.join(other.misses)}."


def notes_of(
    question: Question,
    month: Month,
    platforms: Mapping[str, PlatformAnswer],
    choice: PlatformName,
) -> tuple[str, ...]:
    """Notes for readers: quotas, limits, and prices to verify."""
    mine = platforms[choice]
    found = place_of(choice).notes(question, month, mine, chosen=True)
    found += _out_of_reach(question)
    found += _other_model(question)
    if month.judged.event:
        calls = mine.peak.get("model_calls", 0.0)
        found.append(f"The model gets {amount(calls)} calls at once on {mine.title}.")
    between = mine.ordinary
    slow = between.first_token_p99 or 0.0
    objective = question.objective
    if slow > objective.first_token_p99 or between.error_share > objective.error_share:
        found.append(
            f"Between spikes, where the objective does not apply: first token p99 "
            f"{seconds(slow)}, errors {share(between.error_share)}."
        )
    for name, each in platforms.items():
        if name != choice:
            found += place_of(each.name).notes(question, month, each, chosen=False)
    if question.options.announced and month.judged.event:
        minutes = question.options.lead_minutes
        found.append(f"Capacity is scheduled {minutes:g} minutes around each announced spike.")
    unsure = sorted({item.name for item in mine.items if item.uncertain and item.monthly >= 1.0})
    if unsure:
        found.append(f"Prices to verify: {', '.join(unsure)}.")
    found += stale_notes(question.prices, datetime.now(UTC).date())
    return tuple(found)


def stale_notes(prices: Prices, today: date) -> list[str]:
    """A note if the prices are old."""
    age = stale_days(prices, today)
    if age is None:
        return []
    words = f"Prices of {prices.region} are of {prices.date}, {age} days ago"
    return [f"{words}: import newer ones with seawall plan prices import."]


def _out_of_reach(question: Question) -> list[str]:
    """A note if the model alone misses the objective, so that no platform can meet it."""
    service, most = question.workload.service, question.objective.first_token_p99
    first = service.first_token_p99
    if first <= most:
        return []
    words = f"No platform can meet a first token p99 of {seconds(most)}: without any load"
    return [f"{words} the service takes {seconds(first)}, most of it the model."]


def _other_model(question: Question) -> list[str]:
    """A note if the quota is that of a named model, and the bill has the prices of the default."""
    quota, prices = question.workload.model.name, question.prices
    if not quota or question.options.model or "model.input_tokens" in prices.items:
        return []
    priced = model_price("", prices).title
    return [f"The quota is that of {quota}, the bill has the prices of {priced}: --model."]


_DAY = 86_400.0


def _values(question: Question) -> dict[str, str]:
    workload, options = question.workload, question.options
    arrivals, service, clients = workload.arrivals, workload.service, workload.clients
    each, objective = question.each, question.objective
    spikes = [
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
        "arrivals.spikes": ", ".join(spikes) or "none",
        "service.stages.seconds": stages,
        "service.stages.cpu_ms": f"{sum(stage.cpu_ms for stage in service.stages):g} ms",
        "service.stages.store_calls": str(sum(stage.store_calls for stage in service.stages)),
        "service.first_token": times(service.first_token),
        "service.start": times(service.start),
        "service.restore": "a fifth of the initialisation"
        if service.restore is None else times(service.restore),
        "service.init_vcpus": f"{service.init_vcpus:g} vCPU at least, on demand",
        "service.memory_mb": f"{service.memory_mb:g} MB",
        "service.memory_kb_in_flight": f"{service.memory_kb_in_flight:g} KB",
        "service.connections": str(service.connections),
        "clients": f"{clients.retries} retries, patience {seconds(clients.patience)}",
        "objective": f"first token p99 within {seconds(objective.first_token_p99)}, errors at most "
        f"{share(objective.error_share)}",
        "objective.latency_p99": f"whole answer p99 within {seconds(objective.latency_p99)}"
        if objective.latency_p99 is not None and math.isfinite(objective.latency_p99) else "any",
        "options.platforms": ", ".join(options.platforms),
        "options.spikes_a_month": amount(options.spikes_a_month),
        "options.announced": "yes" if options.announced else "no",
        "options.account_limit": "raised as needed" if limit is None else amount(limit),
        "options.architecture": options.architecture,
        "options.entry": options.entry,
        "options.router": options.router,
        "options.most_functions": f"{options.most_functions} behind a router at most",
        "options.managed_runtime": options.managed_runtime,
        "options.zones": str(options.zones),
        "options.egress": "NAT" if options.egress == "nat" else "interface endpoints",
        "options.model": f"{question.model.title}, {money(question.model.input)} in and "
        f"{money(question.model.output)} out for a million tokens",
        "levers": ", ".join(
            f"{name} {share(getattr(question.levers, name))}"
            for name in question.levers.__struct_fields__
        ),
        "options.least_pods": str(options.least_pods),
        "each.input_tokens": f"{amount(each.input_tokens)} in, {amount(each.output_tokens)} out",
        "model.limits": _quota_words(workload.model),
        "model.max_tokens": "the model's own"
        if workload.model.max_tokens is None else f"{amount(workload.model.max_tokens)} tokens",
        "model.on_refusal": _refusal_words(workload.model),
        "each.read_units": f"{each.read_units:g} read, {each.write_units:g} write units",
        "each.kb_to_callers": f"{each.kb_to_callers:g} KB",
        "each.kb_to_model": f"{each.kb_to_model:g} KB",
        "each.log_kb": f"{each.log_kb:g} KB",
    }  # fmt: skip
    if workload.forecast_error:
        values["forecast_error"] = f"{share(workload.forecast_error)} of times"
    if recorded:
        values["arrivals.trace"] = f"{recorded:,} requests in {seconds(arrivals.horizon)}"
    return values


def _quota_words(model: ModelUse) -> str:
    """The model's quotas in words."""
    limits = model.limits
    if limits is None:
        return "none"
    kinds = {
        "tokens_a_minute": "tokens a minute",
        "input_tokens_a_minute": "input tokens a minute",
        "output_tokens_a_minute": "output tokens a minute",
        "requests_a_minute": "requests a minute",
        "concurrent": "calls at once",
    }
    parts = [
        f"{amount(getattr(limits, name) * limits.factor)} {words}"
        for name, words in kinds.items()
        if getattr(limits, name) is not None
    ]
    if limits.burndown != 1.0:
        parts.append(f"output counts {limits.burndown:g} times")
    if model.fallbacks:
        parts.append(f"fallback {', '.join(each.name for each in model.fallbacks)}")
    return ", ".join(parts) or "none"


def _refusal_words(model: ModelUse) -> str:
    """What happens to a call that the quota does not admit, in words."""
    if model.on_refusal == "queue":
        return f"waits in a queue of {amount(model.queued)}, at most {seconds(model.wait_seconds)}"
    return f"repeated {model.retries} times from {seconds(model.backoff)}"


_PLAIN = {
    "arrivals.rate": "none given",
    "arrivals.daily_shape": "assumed",
    "arrivals.weekly_shape": "assumed",
    "arrivals.spikes": "none given",
    "service.restore": "assumed",
}


def inputs_of(question: Question) -> tuple[Input, ...]:
    """The inputs of a question with their sources; given ones first."""
    known = _PLAIN | OPTION_SOURCES | question.workload.sources
    for kind in ("model.output_tokens", "model.input_tokens"):
        if kind in known:
            known["each.input_tokens"] = known[kind]
    found = []
    for name, value in _values(question).items():
        table = name.partition(".")[0]
        given = name in question.given or any(
            each in question.given for each in (table, f"{table}.*")
        )
        if name == "objective.latency_p99":
            given &= question.objective.latency_p99 != question.objective.usual_latency_p99
        source = known.get(name, "")
        if given or source.startswith("given"):
            source, given = source if source.startswith("given") else "given", True
        measured = source.startswith(("measured by", "the trace"))
        found.append(Input(name=name, value=value, source=source, given=given or measured))
    prices = question.prices
    value = f"{prices.region}, {prices.date}"
    if prices.discounts:
        off = ", ".join(f"{what} {share(part)}" for what, part in prices.discounts.items())
        value += f"; discounts: {off}"
    found.append(
        Input(name="prices", value=value, source=prices.file, given="prices" in question.given)
    )
    return tuple(sorted(found, key=lambda each: not each.given))
