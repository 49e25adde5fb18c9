"""The answer on a terminal of 80 by 24 characters."""

import textwrap

from seawall.plan.decision.answer import Answer, BreakEven, PlatformAnswer
from seawall.plan.decision.check import CheckResult
from seawall.plan.decision.explain import Explanation
from seawall.plan.decision.numbers import amount, money, seconds, share, within

__all__ = ["format_answer", "format_check", "format_explanation"]

_WIDTH = 80
_TITLES = {
    "lambda": "Lambda",
    "lambda-provisioned": "Lambda, provisioned",
    "lambda-snapstart": "Lambda, SnapStart",
    "lambda-managed": "Lambda Managed Inst.",
    "eks": "EKS",
}


def format_answer(answer: Answer) -> str:
    """The choice, all platforms in a table, and what would change the choice; at most 24 lines.

    If nothing meets the objective, that comes first, with what would have to change.
    """
    head = _choice(answer) if answer.met else _nothing(answer)
    lines = [*_question(answer), *head, "", *_table(answer), ""]
    facts = [
        ("whole bill", answer.money.words),
        ("levers, each alone", _levers(answer)),
        ("margin", answer.margin.words),
        ("egress", _egress(answer)),
        ("break-even", _break_even(answer)),
        ("sensitivity", _sensitive(answer)),
        ("rule of thumb", _rule(answer)),
        ("confidence", f"{answer.confidence.level}: {answer.confidence.words}"),
    ]
    if not answer.met:
        facts = [each for each in facts if each[0] not in ("margin", "break-even")]
    facts = [each for each in facts if each[1]]
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


def _nothing(answer: Answer) -> list[str]:
    """Which limits are missed, and what would have to change."""
    best = answer.platforms[answer.choice]
    first = f"NOTHING MEETS THE OBJECTIVE. Nearest, {best.title}: {'; '.join(best.misses)}."
    lines = textwrap.wrap(first, _WIDTH)[:3]
    if not answer.remedies:
        return ["", *lines, "No change of one limit alone that was tried helps."]
    lines.append("It would be met with one of:")
    for each in answer.remedies[:3]:
        cost = money(each.monthly_cost, answer.currency)
        text = f"{each.title} {each.to} (now {each.now}): {_TITLES[each.platform]}, {cost}"
        lines.append("  " + textwrap.shorten(text, _WIDTH - 2, placeholder=" …"))
    return ["", *lines]


def _table(answer: Answer) -> list[str]:
    lines = [
        f"{'':24}{'a month':>9} {'first token p99':>16} {'errors':>7} {'starts':>7}  objective"
    ]
    order = sorted(answer.platforms.values(), key=lambda each: (not each.met, each.monthly_cost))
    order.sort(key=lambda each: each.name != answer.choice)
    lines += [_row(answer, each) for each in order]
    return lines


def _row(answer: Answer, each: PlatformAnswer) -> str:
    mark = ">" if answer.met and each.name == answer.choice else " "
    first = each.first_token.p99
    objective = "met" if each.met else "missed"
    return (
        f"{mark} {_TITLES[each.name]:<22}{money(each.monthly_cost, answer.currency):>9} "
        f"{within(first.value, first.half, 'seconds'):>16} "
        f"{share(each.error_share.value or 0.0):>7} "
        f"{amount(round(each.cold_starts.value or 0.0)):>7}  {objective}"
    )


def _levers(answer: Answer) -> str:
    known = [each for each in answer.levers if each.saves > 0]
    return ", ".join(f"{each.title} {money(-each.saves, answer.currency)}" for each in known)


def _egress(answer: Answer) -> str:
    egress = answer.platforms[answer.choice].egress
    return egress.words if egress is not None else ""


def _break_even(answer: Answer) -> str:
    found = answer.curve.break_even
    steps = answer.curve.multiples
    if not found:
        return f"none from {amount(steps[0])} to {amount(steps[-1])} times this traffic"
    by_objective = ", by the objective" if all(each.by == "objective" for each in found) else ""
    text = _TITLES[found[0].below]
    for each in found:
        text += f" < {_times(each, answer)} < {_TITLES[each.above]}"
    return text + by_objective


def _times(each: BreakEven, answer: Answer) -> str:
    if answer.traffic.spike_size or not each.requests_a_day:
        return f"{amount(each.multiple)} times this traffic"
    return f"{amount(each.requests_a_day)} a day"


def _sensitive(answer: Answer) -> str:
    changing = [row for row in answer.sensitivity if row.changes_choice]
    if not changing:
        top = answer.sensitivity[0]
        return (
            f"no input changes the choice; {top.title} changes its cost most: "
            f"{money(top.low.costs[answer.choice], answer.currency)} at {top.low.value}, "
            f"{money(top.high.costs[answer.choice], answer.currency)} at {top.high.value}"
        )
    parts = []
    for row in changing:
        case = row.high if row.high.choice != answer.choice else row.low
        parts.append(f"{row.title} {case.value}: {_TITLES[case.choice]}")
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
    cost, whole = (money(each, checked.currency) for each in (checked.monthly_cost, checked.whole_cost))
    lines = [
        f"{'PASSED' if checked.holds else 'FAILED'}: {checked.title}",
        f"  {'; '.join(checked.words)}",
        f"  first token p99 {seconds(checked.first_token_p99)}, errors {share(checked.error_share)}",
        f"  {cost} a month, {whole} with the model, store and traffic",
    ]
    lines += [f"  - {miss}" for miss in checked.misses]
    return "\n".join(lines) + "\n"


def format_explanation(explained: Explanation) -> str:
    """The steps, numbered, with their lines."""
    met = "meets" if explained.met else "misses"
    lines = [f"{explained.title} {met} the objective."]
    for number, step in enumerate(explained.steps, start=1):
        lines += ["", f"{number}. {step.title}"]
        for words in step.words:
            lines += textwrap.wrap(
                words, _WIDTH, initial_indent="   ", subsequent_indent="     "
            )
    return "\n".join(lines) + "\n"
