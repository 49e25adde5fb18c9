"""AWS's Cost and Usage Report, as CSV: effective prices, and amounts of a request.

Columns of version 1 (`lineItem/UsageType`: https://docs.aws.amazon.com/cur/latest/userguide/Lineitem-columns.html)
and 2 (`line_item_usage_type`: https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2.html)
have the same names without punctuation. What a line costs depends on its type: a line that a
savings plan or a reservation covers costs its effective cost, not the unblended one. Lines without
a cost, such as those of free tiers (`Global-Request`), count for amounts and not for prices; other
types (fees, credits, taxes) do not count.
"""

import math
from collections.abc import Iterable, Mapping

from seawall.errors import ConfigError
from seawall.plan.inputs.measured.findings import Findings
from seawall.plan.inputs.prices import Prices
from seawall.plan.inputs.prices.usage_types import ITEMS, item_of

__all__ = ["is_usage_report", "read_usage_report"]

_HIGHEST = 1e15
_USAGE, _AMOUNT = "lineitemusagetype", "lineitemusageamount"
# The column of the cost of each type of line that counts; the first that is not empty.
_COSTS = {
    "Usage": ("lineitemnetunblendedcost", "lineitemunblendedcost"),
    "DiscountedUsage": ("reservationneteffectivecost", "reservationeffectivecost"),
    "SavingsPlanCoveredUsage": (
        "savingsplannetsavingsplaneffectivecost",
        "savingsplansavingsplaneffectivecost",
    ),
}
_FREE = "Global-"
_REQUESTS = ("lambda.requests", "api_gateway.http", "api_gateway.rest")
_KB = 2.0**20  # in a GB
_PLATFORM_LOG_KB = 0.5  # of a Lambda invocation: START, END and REPORT, which a plan adds itself
# Amounts of a request by item: the field, and how many of its units are one of the item's.
_EACH = {
    "logs.gb": ("log_kb", _KB),
    "nat.gb": ("kb_to_model", _KB),
    "egress.gb": ("kb_to_callers", _KB),
    "dynamodb.read_units": ("read_units", 1e6),
    "dynamodb.write_units": ("write_units", 1e6),
}


def is_usage_report(columns: Iterable[str]) -> bool:
    """Whether a table with these columns is such a report."""
    return {_USAGE, _AMOUNT} <= set(columns)


def read_usage_report(
    rows: Iterable[tuple[int, Mapping[str, str]]], name: str, source: str, prices: Prices
) -> Findings:
    """Read the lines of a report that are items of a plan, in the region of the prices.

    Args:
        rows: Numbers of lines, and cells by column.
        name: Of the file, for errors.
        source: What it is called.
        prices: Whose region and machines count.

    Raises:
        ConfigError: A value is missing or no number, or no line counts.
    """
    machines = {each.removeprefix("ec2.") for each in prices.items if each.startswith("ec2.")}
    amounts: dict[str, float] = {}
    paid: dict[str, tuple[float, float]] = {}  # amount and cost
    days: set[str] = set()
    elsewhere: set[str] = set()
    for line, cells in rows:
        usage = cells.get(_USAGE, "").removeprefix(_FREE)
        item = item_of(usage, machines)
        if item is None or item not in prices.items:
            continue
        region = cells.get("productregioncode") or cells.get("productregion") or prices.region
        if region not in (prices.region, "global"):
            elsewhere.add(region)
            continue
        where = f"{name}:{line}"
        cost = _cost(cells, where)
        if cost is None:
            continue
        if (code := cells.get("lineitemcurrencycode") or prices.currency) != prices.currency:
            raise ConfigError(f"{where}: in {code}; the prices are in {prices.currency}")
        amount = _number(cells, _AMOUNT, where)
        amounts[item] = amounts.get(item, 0.0) + amount
        if cost > 0:
            before = paid.get(item, (0.0, 0.0))
            paid[item] = (before[0] + amount, before[1] + cost)
        days |= {cells.get("lineitemusagestartdate", "")[:10]} - {""}
    found = {item: cost / amount for item, (amount, cost) in paid.items() if amount > 0}
    if not found:
        other = f"; it has lines of {', '.join(sorted(elsewhere))}" if elsewhere else ""
        raise ConfigError(f"{name}: no line of {prices.region} is an item of a plan{other}")
    period = f", {min(days)} to {max(days)}" if days else ""
    units = {item: ITEMS[item].many if item in ITEMS else 1 for item in amounts}
    return Findings(
        source=f"{source}{period}",
        prices={item: found[item] * units[item] for item in sorted(found)},
        each=_each({item: amount / units[item] for item, amount in amounts.items()}),
        currency=prices.currency,
        region=prices.region,
    )


def _each(amounts: Mapping[str, float]) -> dict[str, float]:
    """Amounts of a request, where the bill says how many there were."""
    counted = next((item for item in _REQUESTS if amounts.get(item, 0.0) > 0), None)
    if counted is None:
        return {}
    requests = amounts[counted] * 1e6
    found = {
        field: amounts[item] * many / requests
        for item, (field, many) in _EACH.items()
        if amounts.get(item, 0.0) > 0
    }
    if "log_kb" in found and counted == "lambda.requests":
        found["log_kb"] = max(0.0, found["log_kb"] - _PLATFORM_LOG_KB)
    return found


def _cost(cells: Mapping[str, str], where: str) -> float | None:
    """What a line costs. None: it does not count."""
    columns = _COSTS.get(cells.get("lineitemlineitemtype", "Usage"), ())
    column = next((each for each in columns if cells.get(each)), None)
    return None if column is None else _number(cells, column, where)


def _number(cells: Mapping[str, str], column: str, where: str) -> float:
    text = cells.get(column, "")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) < _HIGHEST:
        raise ConfigError(f"{where}: {column}: {text[:40]!r} is not a number")
    return value
