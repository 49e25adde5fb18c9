"""The answer on a terminal of 80 by 24 characters."""

import textwrap

from seawall.plan.decision.answer import Answer, BreakEven, PlatformAnswer
from seawall.plan.decision.check import CheckResult
from seawall.plan.decision.places.registry import place_of, title_of
from seawall.plan.decision.text import amount, money, seconds

__all__ = ["format_answer", "format_check"]

_WIDTH = 80


def format_answer(answer: Answer) -> str:
    """The choice, all platforms in a table, and what would change the choice; at most 24 lines."""
    lines = [*_question(answer), *_choice(answer), "", *_table(answer), ""]
    facts = [
        ("margin", answer.margin.words),
        ("on any platform", _shared(answer)),
        ("break-even", _break_even(answer)),
        ("sensitivity", _sensitive(answer)),
        ("rule of thumb", _rule(answer)),
        ("confidence", f"{answer.confidence.level}: {answer.confidence.words}"),
    ]
    room = 24 - len(lines) - len(facts)
    for name, text in facts:
        wrapped = textwrap.wrap(text, _WIDTH - 19)
        extra = min(len(wrapped) - 1, 1, max(room, 0))
        room -= extra
        shown = wrapped[: 1 + extra]
        if len(shown) < len(wrapped):
            shown[-1] = textwrap.shorten(shown[-1] + " …", _WIDTH - 19, placeholder=" …")
        lines += [f"{name:<18} {shown[0]}", *(f"{'':<18} {more}" for more in shown[1:])]
    return "\n".join(lines) + "\n"


def _question(answer: Answer) -> list[str]:
    traffic = answer.traffic
    parts = [f"{amount(traffic.requests_a_day)} requests a day of {seconds(traffic.mean_seconds)}"]
    if traffic.spike_size:
        within = f" within {seconds(traffic.spike_within)}" if traffic.spike_within else " at once"
        parts.append(
            f"{traffic.spike_size:,}{within} {amount(traffic.spikes_a_month)} times a month"
        )
    parts.append(f"{answer.region}, prices of {answer.prices_date}")
    return textwrap.wrap("; ".join(parts), _WIDTH)


def _choice(answer: Answer) -> list[str]:
    best = answer.platforms[answer.choice]
    heading = f"{best.title}: {'; '.join(best.words)}."
    return ["", *textwrap.wrap(heading, _WIDTH)[:3]]


def _plus(value: float | None, half: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f} ±{half:.2f} s" if half is not None else f"{value:.2f} s"


def _table(answer: Answer) -> list[str]:
    lines = [
        f"{'':24}{'a month':>9} {'first token p99':>16} {'errors':>7} {'starts':>7}  objective"
    ]
    order = sorted(answer.platforms.values(), key=lambda each: (not each.met, each.monthly_cost))
    order.sort(key=lambda each: each.name != answer.choice)
    lines += [_row(answer, each) for each in order]
    return lines


def _row(answer: Answer, each: PlatformAnswer) -> str:
    mark = ">" if each.name == answer.choice else " "
    first = each.first_token.p99
    objective = "met" if each.met else "missed"
    return (
        f"{mark} {each.short:<22}{money(each.monthly_cost, answer.currency):>9} "
        f"{_plus(first.value, first.half):>16} {each.error_share.value or 0.0:>7.1%} "
        f"{each.cold_starts.value or 0.0:>7,.0f}  {objective}"
    )


def _shared(answer: Answer) -> str:
    model = sum(item.monthly for item in answer.shared.items if item.name.startswith("model."))
    rest = answer.shared.monthly - model
    currency = answer.currency
    return f"model {money(model, currency)}, store and traffic {money(rest, currency)} a month"


def _break_even(answer: Answer) -> str:
    found = answer.curve.break_even
    steps = answer.curve.multiples
    if not found:
        return f"none from {steps[0]:g} to {steps[-1]:g} times this traffic"
    by_objective = ", by the objective" if all(each.by == "objective" for each in found) else ""
    text = place_of(found[0].below).short
    for each in found:
        text += f" < {_times(each, answer)} < {place_of(each.above).short}"
    return text + by_objective


def _times(each: BreakEven, answer: Answer) -> str:
    if answer.traffic.spike_size or not each.requests_a_day:
        return f"{each.multiple:.2g} times this traffic"
    return f"{each.requests_a_day:,.0f} a day"


def _sensitive(answer: Answer) -> str:
    changing = [row for row in answer.sensitivity if row.changes_choice]
    if not changing:
        top = answer.sensitivity[0]
        ends = [
            f"{money(case.costs[answer.choice])} at {case.value}" for case in (top.low, top.high)
        ]
        return f"no input changes the choice; {top.title} changes its cost most: {', '.join(ends)}"
    parts = []
    for row in changing:
        case = row.high if row.high.choice != answer.choice else row.low
        then = place_of(case.choice).short if case.choice else "none can run it"
        parts.append(f"{row.title} {case.value}: {then}")
    return "; ".join(parts)


def _rule(answer: Answer) -> str:
    rule = answer.rule_of_thumb
    votes = sum(each.says == rule.choice for each in rule.criteria)
    side = "EKS" if rule.choice == "eks" else "Lambda"
    text = f"{side}, {votes} of {len(rule.criteria)}; "
    text += "the simulation agrees" if rule.agrees else "the simulation disagrees"
    if rule.disagreements:
        first = rule.disagreements[0]
        text += f", but: {first.simulation}" if rule.agrees else f": {first.why}"
    return text


def format_check(checked: CheckResult) -> str:
    """The result of a check, for a log."""
    title = title_of(checked.platform)
    head = "met" if checked.holds else "NOT met"
    first, cost = seconds(checked.first_token_p99), money(checked.monthly_cost)
    lines = [
        f"{title}: objective {head}",
        f"  {'; '.join(checked.words)}",
        f"  first token p99 {first}, errors {checked.error_share:.1%}, {cost} a month",
    ]
    lines += [f"  - {miss}" for miss in checked.misses]
    return "\n".join(lines) + "\n"
