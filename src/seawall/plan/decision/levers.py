"""Money: the whole bill with the platform's share of it, and the levers that lower it."""

import math

import numpy as np
from msgspec import structs

from seawall.plan.decision.answer import Egress, Lever, Money, PlatformAnswer, SharedCosts
from seawall.plan.decision.numbers import amount, money, share
from seawall.plan.decision.windows import Month, Window
from seawall.plan.inputs.model_prices import ModelPrice, model_price
from seawall.plan.inputs.question import Question

__all__ = ["levers_of", "money_of", "prompt_cache_hits"]

_CACHE_SECONDS = 300.0  # a provider's prompt cache keeps a prefix for so long after its last use


def money_of(question: Question, choice: PlatformAnswer, shared: SharedCosts) -> Money:
    """The whole bill with the choice."""
    currency = question.prices.currency
    model = sum(item.monthly for item in shared.items if item.name.startswith("model."))
    whole = choice.monthly_cost + shared.monthly
    part = choice.monthly_cost / whole if whole else 0.0
    words = (
        f"the platform decides {money(choice.monthly_cost, currency)} of "
        f"{money(whole, currency)} a month, {share(part)}; the model ({question.model.title}) is "
        f"{money(model, currency)}"
    )
    return Money(
        platform=choice.monthly_cost,
        model=model,
        rest=shared.monthly - model,
        whole=whole,
        platform_share=part,
        model_title=question.model.title,
        words=words,
    )


def levers_of(
    question: Question, month: Month, whole: float, egress: Egress | None
) -> tuple[Lever, ...]:
    """Levers on the bill, the greatest first; each alone, against today's bill.

    Args:
        question: With the shares that they assume.
        month: Of its workload.
        whole: Today's bill of a month.
        egress: Of the choice's private network.
    """
    found = [
        _prompt_cache(question, month),
        _batch(question, month),
        _smaller(question, month),
        _answer_cache(question, month),
        _shorter(question, month),
    ]
    if egress is not None and egress.used == "nat":
        found.append(_endpoints(question, egress))
    known = [each for each in found if each is not None]
    counted = [structs.replace(each, share=each.saves / whole if whole else 0.0) for each in known]
    return tuple(sorted(counted, key=lambda each: -each.saves))


def prompt_cache_hits(month: Month) -> float:
    """Share of requests whose common prefix is in the provider's cache.

    A use keeps the prefix for five more minutes, so that a request misses if none came in the five
    minutes before it: with Poisson arrivals at rate r a share of exp(-300 r), else counted from the
    recorded gaps. Prefixes that are common to some requests only are not counted.
    """
    windows = [month.judged, *month.events, *month.ordinary]
    found = [(_hits(each), each.size * each.seconds / each.horizon) for each in windows]
    weight = sum(each for _, each in found)
    return sum(hits * each for hits, each in found) / weight if weight else 0.0


def _hits(window: Window) -> float:
    arrivals = window.workload.arrivals
    if arrivals.trace is not None and len(arrivals.trace) > 1:
        return float((np.diff(arrivals.trace) <= _CACHE_SECONDS).mean())
    in_spike = sum(spike.size for spike in arrivals.spikes)
    rest = max(window.size - in_spike, 0.0)
    ordinary = 1.0 - math.exp(-_CACHE_SECONDS * arrivals.rate)
    # Within a spike the first one writes the prefix.
    whole = ordinary * rest + max(in_spike - 1.0 + ordinary, 0.0)
    return whole / (rest + in_spike) if rest + in_spike else 0.0


def _prompt_cache(question: Question, month: Month) -> Lever | None:
    price, sent = question.model, question.each.input_tokens
    if price.cached_input is None:
        return None
    prefix, hits = question.levers.prefix * sent, prompt_cache_hits(month)
    if prefix < price.cache_least_tokens:
        return _lever(
            "prompt-cache", "prompt caching", 0.0, price,
            f"not possible: {price.title} caches prefixes of {price.cache_least_tokens:,} tokens "
            f"and more; {share(question.levers.prefix)} of {amount(sent)} are "
            f"{amount(prefix)}",
        )  # fmt: skip
    costs = hits * price.cached_input + (1.0 - hits) * price.cache_write
    return _lever(
        "prompt-cache", "prompt caching", month.requests * prefix * (price.input - costs) / 1e6,
        price,
        f"a prefix of {amount(prefix)} tokens, {share(question.levers.prefix)} of the input, is "
        "the same in all requests",
        f"{share(hits)} of requests find it in the cache, by their rate (five minutes after its "
        "last use)",
        f"a million tokens cost {money(price.cached_input)} from the cache and "
        f"{money(price.cache_write)} to write, {money(price.input)} without it",
    )  # fmt: skip


def _model_cost(question: Question, month: Month, price: ModelPrice) -> float:
    return month.requests * price.cost(question.each.input_tokens, question.each.output_tokens)


def _batch(question: Question, month: Month) -> Lever | None:
    price, part = question.model, question.levers.batch
    if price.batch is None:
        return None
    return _lever(
        "batch", "batches", part * (1.0 - price.batch) * _model_cost(question, month, price), price,
        f"{share(part)} of requests may wait for up to a day",
        f"a batch costs {share(price.batch)} of the price",
    )  # fmt: skip


def _smaller(question: Question, month: Month) -> Lever | None:
    price, part = question.model, question.levers.smaller
    if not price.smaller:
        return None
    smaller = model_price(price.smaller, question.prices)
    saved = _model_cost(question, month, price) - _model_cost(question, month, smaller)
    return _lever(
        "smaller-model", f"a smaller model, {smaller.title}", part * saved, smaller,
        f"{share(part)} of requests are answered as well by {smaller.title}: measure it",
        f"with the same tokens; {money(smaller.input)} and {money(smaller.output)} for a million "
        f"in and out, to {money(price.input)} and {money(price.output)}",
    )  # fmt: skip


def _answer_cache(question: Question, month: Month) -> Lever:
    price, part = question.model, question.levers.answers
    return _lever(
        "answer-cache", "an answer cache", part * _model_cost(question, month, price), price,
        f"{share(part)} of requests repeat a question whose answer may be used again "
        "(docs/caches.md)",
        "a hit costs no tokens; what it saves on the platform is not counted",
    )  # fmt: skip


def _shorter(question: Question, month: Month) -> Lever:
    price, part = question.model, question.levers.output
    tokens = part * question.each.output_tokens
    return _lever(
        "shorter-output", "a tighter bound on output",
        month.requests * tokens * price.output / 1e6, price,
        f"the output is shorter by {share(part)}, from {amount(question.each.output_tokens)} "
        f"tokens to {amount(question.each.output_tokens - tokens)}",
        "a lower max_tokens also reserves less of a quota in tokens a minute",
    )  # fmt: skip


def _endpoints(question: Question, egress: Egress) -> Lever:
    return Lever(
        name="egress",
        title="interface endpoints instead of NAT",
        saves=max(0.0, egress.nat - egress.endpoints),
        share=0.0,
        basis=(egress.words, "only for a model that the cloud itself serves"),
        source=question.prices.of("vpc_endpoint.hours").source,
        uncertain=question.prices.of("vpc_endpoint.hours").uncertain,
    )


def _lever(name: str, title: str, saves: float, price: ModelPrice, *basis: str) -> Lever:
    return Lever(
        name=name,
        title=title,
        saves=max(0.0, saves),
        share=0.0,
        basis=basis,
        source=f"{price.source} ({price.checked})",
        uncertain=price.uncertain,
    )
