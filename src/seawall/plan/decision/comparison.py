"""Comparison of platforms: ranking, cost curve, break-even and sensitivity."""

import math
from collections.abc import Mapping, Sequence

from seawall.plan.decision.answer import (
    BreakEven,
    Case,
    Curve,
    Margin,
    PlatformName,
    Sensitivity,
)
from seawall.plan.decision.bill import shared_costs
from seawall.plan.decision.numbers import by_times, money
from seawall.plan.decision.places.port import Evaluation, Variation
from seawall.plan.decision.places.registry import PLACES, candidates_of, title_of
from seawall.plan.decision.runs import SimulationRunner
from seawall.plan.decision.search import CandidateSearch
from seawall.plan.decision.variations import with_traffic
from seawall.plan.decision.windows import month_of
from seawall.plan.inputs.question import Question

__all__ = ["curve_of", "margin_of", "ranked", "sensitivity_of"]

_WITHIN = 0.1  # precision of sizes for curve and sensitivity
_FAR = 1.5  # candidates that cost this many times the best are not minimised

All = Mapping[PlatformName, Evaluation]


def ranked(found: All) -> list[PlatformName]:
    """Platforms from the best: those that meet the objective by cost, then the others by excess.

    Others with about the same excess, within a tenth, are ordered by cost too: where the model's
    quota refuses most of a crowd everywhere, no capacity brings a platform nearer.
    """

    def key(name: PlatformName) -> tuple[bool, float, float]:
        each = found[name]
        return not each.met, round(math.log1p(each.excess), 1) if not each.met else 0.0, each.cost

    return sorted(found, key=key)


def margin_of(found: All, order: list[PlatformName]) -> Margin:
    """The margin of the first over the second."""
    if len(order) == 1:
        words = "no other platform was compared, or can run the service"
        return Margin(monthly=0.0, ratio=1.0, by="objective", words=words)
    first, second = found[order[0]], found[order[1]]
    ratio = second.cost / first.cost if first.cost > 0 else math.inf
    saved = second.cost - first.cost
    if first.met and second.met:
        words = f"{money(saved)} a month less than {title_of(order[1])} ({by_times(ratio)} times)"
        return Margin(monthly=saved, ratio=min(ratio, 1e9), by="cost", words=words)
    what = "alone meets the objective" if first.met else "is nearest to the objective"
    words = f"{what}; {title_of(order[1])} would cost {money(second.cost)} to {money(first.cost)}"
    return Margin(monthly=saved, ratio=min(ratio, 1e9), by="objective", words=words)


def _resized(
    question: Question, near: All, runs: SimulationRunner
) -> dict[PlatformName, Evaluation]:
    """Size every platform for a question similar to an answered one; the best first.

    Platforms that cannot run the service then are left out.
    """
    month = month_of(question)
    finder = CandidateSearch(question, month, runs, within=_WITHIN)
    places, _ = candidates_of(question, month)
    names = [place.name for place in places]
    order = [name for name in ranked(near) if name in names]
    found: dict[PlatformName, Evaluation] = {}
    for name in [*order, *(each for each in names if each not in near)]:
        similar = near.get(name)
        found[name] = finder.find(name, None if similar is None else similar.candidate)
        if found[name].met:
            finder.enough = min(finder.enough, _FAR * found[name].cost)
    return found


def curve_of(
    question: Question, found: All, runs: SimulationRunner, steps: tuple[float, ...], a_day: float
) -> Curve:
    """The cost of all platforms at multiples of the traffic."""

    def at(multiple: float) -> dict[PlatformName, Evaluation]:
        if multiple == 1.0:
            return dict(found)
        return _resized(with_traffic(question, multiple), found, runs)

    points = runs.each(at, steps)
    choices = tuple(_choice(point) for point in points)
    names = [name for name in PLACES if any(name in point for point in points)]
    return Curve(
        multiples=steps,
        requests_a_day=tuple(a_day * step for step in steps),
        costs={
            name: tuple(point[name].cost if name in point else None for point in points)
            for name in names
        },
        met={name: tuple(name in point and point[name].met for point in points) for name in names},
        choices=choices,
        break_even=tuple(_break_even(points, steps, choices, a_day)),
    )


def _choice(found: All) -> PlatformName | None:
    return ranked(found)[0] if found else None


def _break_even(
    points: list[dict[PlatformName, Evaluation]],
    steps: tuple[float, ...],
    choices: tuple[PlatformName | None, ...],
    a_day: float,
) -> list[BreakEven]:
    found = []
    for at in range(len(steps) - 1):
        below, above = choices[at], choices[at + 1]
        if below is None or above is None or below == above:
            continue
        left, right = points[at], points[at + 1]
        if not (left[below].met or right[above].met):
            continue  # the objective is met on neither side
        both = all(
            name in point and point[name].met for point in (left, right) for name in (below, above)
        )
        share = 0.5
        if both:
            # The intersection of the costs, interpolated in logarithms.
            before = math.log(left[above].cost / max(left[below].cost, 1e-12))
            after = math.log(right[above].cost / max(right[below].cost, 1e-12))
            share = before / (before - after) if before > after else 0.5
        multiple = steps[at] * (steps[at + 1] / steps[at]) ** min(max(share, 0.0), 1.0)
        found.append(
            BreakEven(
                multiple=multiple,
                requests_a_day=multiple * a_day,
                below=below,
                above=above,
                by="cost" if both else "objective",
            )
        )
    return found


def sensitivity_of(
    question: Question, found: All, runs: SimulationRunner, varied: Sequence[Variation]
) -> tuple[Sensitivity, ...]:
    """Each input lower and higher, everything sized again; the most influential first."""
    cases = [each for variation in varied for each in (variation.low, variation.high)]

    def case(each: tuple[str, Question]) -> Case:
        value, changed = each
        sized = dict(found) if _same(changed, question) else _resized(changed, found, runs)
        choice = _choice(sized)
        figures = {name: sized[name].outcome.figures for name in PLACES if name in sized}
        return Case(
            value=value,
            choice=choice,
            cost=sized[choice].cost if choice else 0.0,
            costs={name: sized[name].cost for name in PLACES if name in sized},
            met={name: sized[name].met for name in PLACES if name in sized},
            first_tokens={
                name: None
                if math.isnan(figures[name].first_token_p99)
                else figures[name].first_token_p99
                for name in figures
            },
            errors={name: each.error_share for name, each in figures.items()},
            shared=shared_costs(changed, month_of(changed)).monthly,
        )

    done = runs.each(case, cases)
    choice = ranked(found)[0]
    rows = [
        _row(variation, done[2 * at], done[2 * at + 1], choice, found[choice].cost)
        for at, variation in enumerate(varied)
    ]
    return tuple(sorted(rows, key=lambda row: (not row.changes_choice, -row.swing)))


def _same(one: Question, other: Question) -> bool:
    """Whether a variation is the question itself."""
    return (
        one.workload is other.workload
        and one.objective == other.objective
        and one.options == other.options
        and one.prices.discounts.get("ec2", 0.0) == other.prices.discounts.get("ec2", 0.0)
    )


def _row(
    variation: Variation, low: Case, high: Case, choice: PlatformName, cost: float
) -> Sensitivity:
    return Sensitivity(
        input=variation.input,
        title=variation.title,
        base=variation.base,
        low=low,
        high=high,
        changes_choice=low.choice != choice or high.choice != choice,
        swing=max(abs(case.costs.get(choice, cost) - cost) for case in (low, high)),
    )
