"""The answer on a terminal of 80 characters."""

import re
import textwrap

from seawall.plan.decision.answer import Answer, BreakEven, PlatformAnswer
from seawall.plan.decision.check import CheckResult
from seawall.plan.decision.explain import Explanation
from seawall.plan.decision.numbers import amount, money, seconds, share, within
from seawall.plan.decision.places.registry import place_of

__all__ = ["format_answer", "format_check", "format_explanation"]

_WIDTH = 80
_LINES = 30
_ROWS = 5  # of the table
_WHOLE = ("whole bill", "breaks first", "confidence")  # facts that get a second line first


def format_answer(answer: Answer) -> str:
    """The choice, all platforms in a table, and what would change the choice; at most 30 lines.

    If nothing meets the objective, that comes first, with what would have to change.
    """
    head = _choice(answer) if answer.met else _nothing(answer)
    lines = [*_question(answer), *head, "", *_table(answer), ""]
    facts = [each for each in _facts(answer) if each[1]][: _LINES - len(lines)]
    room = _LINES - len(lines) - len(facts)
    wrapped = {name: _wrapped(text, _WIDTH - 19) for name, text in facts}
    shown = dict.fromkeys(wrapped, 1)
    for name in sorted(wrapped, key=lambda name: name not in _WHOLE):
        more = min(len(wrapped[name]) - 1, 1, max(room, 0))
        shown[name], room = 1 + more, room - more
    for name, text in wrapped.items():
        part = text[: shown[name]]
        if len(part) < len(text):
            part[-1] = textwrap.shorten(part[-1] + " …", _WIDTH - 19, placeholder=" …")
        lines += [f"{name:<18} {part[0]}", *(f"{'':<18} {more}" for more in part[1:])]
    return "\n".join(lines) + "\n"


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of text; names such as `us-east-1` and shares such as `1.2 %` stay whole."""
    glued = re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", text)
    lines = textwrap.wrap(glued, width, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _facts(answer: Answer) -> list[tuple[str, str]]:
    """Names and sentences below the table, the most important first."""
    confidence = answer.confidence
    facts = [
        ("whole bill", answer.money.words),
        ("breaks first", _first_limit(answer)),
        ("model's quota", _quota(answer)),
        ("confidence", f"{confidence.level}: {confidence.words}"),
        ("levers, each alone", _levers(answer)),
        ("egress", _egress(answer)),
        ("sensitivity", _sensitive(answer)),
        ("rule of thumb", _rule(answer)),
    ]
    if answer.met:
        facts[6:6] = [("margin", answer.margin.words), ("break-even", _break_even(answer))]
    return facts


def _first_limit(answer: Answer) -> str:
    limit = answer.platforms[answer.choice].first_limit
    if limit is None:
        return "no limit that was simulated is met"
    met = f"{limit.title} ({amount(limit.value)} {limit.unit}) after {seconds(limit.at)}"
    return met if limit.simulated else f"{met}; compared, not simulated"


def _quota(answer: Answer) -> str:
    model = answer.model
    if model is None:
        return ""
    needed = (
        f"{amount(model.tokens_a_minute)} tokens and {amount(model.requests_a_minute)} requests"
    )
    given = "" if model.simulated else "; none was given or simulated: --model-tpm, --model-rpm"
    return f"{needed} a minute are needed to serve all at once{given}"


def _question(answer: Answer) -> list[str]:
    traffic = answer.traffic
    parts = [f"{amount(traffic.requests_a_day)} requests a day of {seconds(traffic.mean_seconds)}"]
    if traffic.spike_size:
        within = f" within {seconds(traffic.spike_within)}" if traffic.spike_within else " at once"
        parts.append(
            f"{traffic.spike_size:,}{within} {amount(traffic.spikes_a_month)} times a month"
        )
    parts.append(f"{answer.region}, prices of {answer.prices_date}")
    return _wrapped("; ".join(parts), _WIDTH)


def _choice(answer: Answer) -> list[str]:
    best = answer.platforms[answer.choice]
    heading = f"{best.title}: {'; '.join(best.words)}."
    return ["", *_wrapped(heading, _WIDTH)[:3]]


def _nothing(answer: Answer) -> list[str]:
    """Which limits are missed, and what would have to change."""
    best = answer.platforms[answer.choice]
    first = f"NOTHING MEETS THE OBJECTIVE. Nearest, {best.title}: {'; '.join(best.misses)}."
    lines = _wrapped(first, _WIDTH)[:3]
    if not answer.remedies:
        return ["", *lines, "No change of one limit alone that was tried helps."]
    lines.append("It would be met with one of:")
    for each in answer.remedies[:3]:
        cost = money(each.monthly_cost, answer.currency)
        text = f"{each.title} {each.to} (now {each.now}): {place_of(each.platform).short}, {cost}"
        lines.append("  " + textwrap.shorten(text, _WIDTH - 2, placeholder=" …"))
    return ["", *lines]


def _table(answer: Answer) -> list[str]:
    """The choice, then the others that meet the objective by cost, then the rest."""
    lines = [
        f"{'':24}{'a month':>9} {'first token p99':>16} {'errors':>7} {'starts':>7}  objective"
    ]
    order = sorted(answer.platforms.values(), key=lambda each: (not each.met, each.monthly_cost))
    order.sort(key=lambda each: each.name != answer.choice)
    lines += [_row(answer, each) for each in order[:_ROWS]]
    rest = [each.short for each in order[_ROWS:]]
    # What is never possible is no news: it comes last.
    excluded = sorted(answer.excluded, key=lambda each: each.name == "lambda-web")
    reasons = [f"{each.title} ({each.reasons[0]})" for each in excluded]
    for what, names in (("also compared", rest), ("not possible", reasons)):
        if names:  # names have commas
            text = f"{what}: {'; '.join(names)}"
            lines.append("  " + textwrap.shorten(text, _WIDTH - 2, placeholder=" …"))
    return lines


def _row(answer: Answer, each: PlatformAnswer) -> str:
    mark = ">" if answer.met and each.name == answer.choice else " "
    first = each.first_token.p99
    objective = "met" if each.met else "missed"
    return (
        f"{mark} {each.short:<22}{money(each.monthly_cost, answer.currency):>9} "
        f"{within(first.value, first.half, 'seconds'):>16} "
        f"{share(each.error_share.value or 0.0):>7} "
        f"{amount(round(each.cold_starts.value or 0.0)):>7}  {objective}"
    )


def _levers(answer: Answer) -> str:
    known = [each for each in answer.levers if each.saves > 0]
    return ", ".join(
        f"{each.name.replace('-', ' ')} {money(-each.saves, answer.currency)}" for each in known
    )


def _egress(answer: Answer) -> str:
    egress = answer.platforms[answer.choice].egress
    return egress.words if egress is not None else ""


def _break_even(answer: Answer) -> str:
    found = answer.curve.break_even
    steps = answer.curve.multiples
    if not found:
        return f"none from {amount(steps[0])} to {amount(steps[-1])} times this traffic"
    by_objective = ", by the objective" if all(each.by == "objective" for each in found) else ""
    text = place_of(found[0].below).short
    for each in found:
        text += f" < {_times(each, answer)} < {place_of(each.above).short}"
    return text + by_objective


def _times(each: BreakEven, answer: Answer) -> str:
    if answer.traffic.spike_size or not each.requests_a_day:
        return f"{amount(each.multiple)} times this traffic"
    return f"{amount(each.requests_a_day)} a day"


def _sensitive(answer: Answer) -> str:
    if not answer.met:
        helping = [
            f"{row.title} {case.value}"
            for row in answer.sensitivity
            for case in (row.low, row.high)
            if any(case.met.values())
        ]
        return f"it would be met with {', or '.join(helping)}" if helping else ""
    changing = [row for row in answer.sensitivity if row.changes_choice]
    if not changing:
        top = answer.sensitivity[0]
        ends = [
            f"{money(case.costs[answer.choice], answer.currency)} at {case.value}"
            for case in (top.low, top.high)
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
    cost = money(checked.monthly_cost, checked.currency)
    whole = money(checked.whole_cost, checked.currency)
    first, errors = seconds(checked.first_token_p99), share(checked.error_share)
    lines = [f"{'PASSED' if checked.holds else 'FAILED'}: {checked.title}"]
    if checked.words:  # none if it cannot run the service: nothing was simulated
        lines += [
            f"  {'; '.join(checked.words)}",
            f"  first token p99 {first}, errors {errors}",
            f"  {cost} a month, {whole} with the model, store and traffic",
        ]
    if checked.first_limit:
        lines.append(f"  breaks first: {checked.first_limit}")
    lines += [f"  - {miss}" for miss in checked.misses]
    return "\n".join(lines) + "\n"


def format_explanation(explained: Explanation) -> str:
    """The steps, numbered, with their lines."""
    met = "meets" if explained.met else "misses"
    lines = [f"{explained.title} {met} the objective."]
    for number, step in enumerate(explained.steps, start=1):
        lines += ["", f"{number}. {step.title}"]
        for words in step.words:
            lines += textwrap.wrap(words, _WIDTH, initial_indent="   ", subsequent_indent="     ")
    return "\n".join(lines) + "\n"
