"""Prices of models: dated list prices, or those of the user's price file."""

import functools
from pathlib import Path

import msgspec
from msgspec import Struct

from seawall.errors import ConfigError
from seawall.plan.inputs.notation import read_document
from seawall.plan.inputs.prices import Prices

__all__ = ["ModelPrice", "known_models", "model_price"]

_FILE = Path(__file__).parent / "model_prices.toml"
_DEFAULT = "claude-haiku-4-5"


class ModelPrice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of a model for a million tokens.

    Attributes:
        title: For readers.
        input: Of tokens that are sent.
        output: Of tokens that are generated.
        cached_input: Of tokens that are read from the provider's prompt cache. None: it has none.
        cache_write: Of tokens that are written to that cache.
        batch: Share of the price that a batch costs. None: there are no batches.
        cache_least_tokens: Of a prefix that can be cached, at least.
        most_input_tokens: Of a prompt at these prices. None: any.
        smaller: Name of a cheaper model for simple turns; empty: none.
        source: Where the prices are published.
        checked: Day of the source.
        uncertain: Whether they should be verified.
    """

    title: str
    input: float
    output: float
    cached_input: float | None = None
    cache_write: float = 0.0
    batch: float | None = None
    cache_least_tokens: int = 1_024
    most_input_tokens: int | None = None
    smaller: str = ""
    source: str
    checked: str
    uncertain: bool = False

    def cost(self, input_tokens: float, output_tokens: float) -> float:
        """Of so many tokens."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


@functools.cache
def _models() -> dict[str, ModelPrice]:
    return msgspec.convert(read_document(_FILE), dict[str, ModelPrice])


def known_models() -> list[str]:
    """Names of the models with list prices."""
    return sorted(_models())


def model_price(name: str, prices: Prices, input_tokens: float = 0.0) -> ModelPrice:
    """The prices of a model.

    Args:
        name: Of a model with list prices. Empty: the items `model.*` of the price file, if it has
            them, else Claude Haiku 4.5.
        prices: The price file.
        input_tokens: Of a request; some prices are only for shorter prompts.

    Raises:
        ConfigError: There is no such model, its currency differs from the price file's, or the
            requests are longer than its prices are for.
    """
    if not name:
        return _of_file(prices)
    found = _models().get(name)
    if found is None:
        known = ", ".join(known_models())
        raise ConfigError(f"options.model: no prices of {name!r}; known: {known}")
    if prices.currency != "USD":
        raise ConfigError(
            f"options.model: its prices are in USD, those of {prices.file} in {prices.currency}; "
            'give items."model.input_tokens" and items."model.output_tokens" there'
        )
    most = found.most_input_tokens
    if most is not None and input_tokens > most:
        raise ConfigError(
            f"each.input_tokens: {input_tokens:,.0f} are more than the {most:,} that the prices of "
            f"{name} are for"
        )
    return found


def _of_file(prices: Prices) -> ModelPrice:
    if "model.input_tokens" not in prices.items:
        return model_price(_DEFAULT, prices)
    sent, generated = prices.of("model.input_tokens"), prices.of("model.output_tokens")
    return ModelPrice(
        title="model",
        input=sent.price,
        output=generated.price,
        source=sent.source,
        checked=prices.date,
        uncertain=sent.uncertain or generated.uncertain,
    )
