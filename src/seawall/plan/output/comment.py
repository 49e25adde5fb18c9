"""The result of a check as Markdown, for a comment on a change request."""

from seawall.plan.decision.check import CheckResult
from seawall.plan.decision.numbers import money, seconds, share
from seawall.plan.decision.places.registry import title_of

__all__ = ["MARK", "format_comment"]

MARK = "<!-- seawall plan -->"  # by which a workflow finds its earlier comment to replace it


def format_comment(checked: CheckResult, before: CheckResult | None = None) -> str:
    """The comment: the result, a table of figures, and where the objective is missed.

    The same result gives the same text: it has no times and no dates but that of the prices.

    Args:
        checked: After the change.
        before: The result of the check without the change. None: one column.
    """
    lines = [MARK, f"### Plan: {_text(checked.title)}", ""]
    rows = _rows(checked, before)
    if before is None:
        lines += ["| | |", "| --- | --- |"]
        lines += [f"| {name} | {after} |" for name, _, after, _ in rows]
    else:
        lines += ["| | before | after | change |", "| --- | --- | --- | --- |"]
        lines += [f"| {name} | {old} | {after} | {change} |" for name, old, after, change in rows]
    if checked.misses:
        lines += ["", *(f"- {_text(miss)}" for miss in checked.misses)]
    lines += [
        "",
        f"Simulated by `seawall plan`; {checked.region}, prices of {checked.prices_date}.",
    ]
    return "\n".join(lines) + "\n"


def _rows(checked: CheckResult, before: CheckResult | None) -> list[tuple[str, str, str, str]]:
    """Name, before, after and change of each row."""
    objective, currency = checked.objective, checked.currency

    def row(name: str, of: str, form: str) -> tuple[str, str, str, str]:
        after = getattr(checked, of)
        old = getattr(before, of) if before is not None else None
        change = ""
        if before is not None and old is not None and after is not None and old != after:
            change = _change(old, after, form, currency)
        return name, _formatted(old, form, currency), _formatted(after, form, currency), change

    was = before or checked
    rows = [
        (
            "configuration", _configuration(was), _configuration(checked),
            "" if _configuration(was) == _configuration(checked) else "changed",
        ),
        row("platform, a month", "monthly_cost", "money"),
        row(f"with model ({_text(checked.model_title)}), store and traffic", "whole_cost", "money"),
        row(f"first token p99, at most {seconds(objective.first_token_p99)}", "first_token_p99",
            "seconds"),
        row("whole answer p99" if objective.latency_p99 is None
            else f"whole answer p99, at most {seconds(objective.latency_p99)}", "latency_p99",
            "seconds"),
        row(f"errors, at most {share(objective.error_share)}", "error_share", "share"),
    ]  # fmt: skip
    if was.first_limit or checked.first_limit:
        limits = [_text(each.first_limit) or "none" for each in (was, checked)]
        rows.append(("breaks first", limits[0], limits[1], ""))
    if objective.monthly_cost is not None:
        name, *rest = rows[1]
        limited = f"{name}, at most {money(objective.monthly_cost, currency)}"
        rows[1] = (limited, rest[0], rest[1], rest[2])
    return rows


def _configuration(checked: CheckResult) -> str:
    return _text(f"{title_of(checked.platform)}: {'; '.join(checked.words)}")


def _formatted(value: float | None, form: str, currency: str) -> str:
    if value is None:
        return "-"
    if form == "money":
        return money(value, currency)
    return seconds(value) if form == "seconds" else share(value)


def _change(old: float, after: float, form: str, currency: str) -> str:
    if _formatted(old, form, currency) == _formatted(after, form, currency):
        return ""
    sign = "+" if after > old else "-"
    text = f"{sign}{_formatted(abs(after - old), form, currency)}"
    if form == "share":
        return text.replace(" %", " points")
    return f"{text} ({sign}{share(abs(after / old - 1.0))})" if old else text


def _text(text: str) -> str:
    """Plain text within a cell: nothing of it is markup, and it stays on one line."""
    for special in "\\`*_[]<>|#":
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())
