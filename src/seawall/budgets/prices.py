"""What usage costs, in whole billionths of the currency, so that sums are exact."""

from seawall.budgets.settings import PriceSettings
from seawall.turn import Usage

__all__ = ["BILLION", "cost_of"]

BILLION = 1_000_000_000
_BY_TOKEN = BILLION // 1_000_000


def cost_of(usage: Usage, price: PriceSettings) -> int:
    """The cost of calls, in billionths of the currency, rounded to the nearest."""
    cached, written = usage.cached_prompt_tokens, usage.cache_write_tokens
    read = max(0, usage.prompt_tokens - cached - written)
    cached_price = price.prompt if price.cached_prompt is None else price.cached_prompt
    written_price = price.prompt if price.cache_write is None else price.cache_write
    return round(
        _BY_TOKEN
        * (
            read * price.prompt
            + cached * cached_price
            + written * written_price
            + usage.completion_tokens * price.completion
        )
    )
