"""Rate limits in the headers of providers' responses, from which a quota learns.

OpenAI: https://platform.openai.com/docs/guides/rate-limits. Anthropic:
https://docs.anthropic.com/en/api/rate-limits. Bedrock sends none.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from seawall.budgets.reservation import INPUT, OUTPUT, REQUESTS, TOKENS
from seawall.models import Model
from seawall.models.http_model import HttpModel

if TYPE_CHECKING:
    from seawall.budgets.quota import Quota

__all__ = ["observe_rate_limits", "read_rate_limits"]

_MOST = 10**15
_HEADERS = (
    (REQUESTS, "x-ratelimit-{}-requests"),
    (TOKENS, "x-ratelimit-{}-tokens"),
    (REQUESTS, "anthropic-ratelimit-requests-{}"),
    (TOKENS, "anthropic-ratelimit-tokens-{}"),
    (INPUT, "anthropic-ratelimit-input-tokens-{}"),
    (OUTPUT, "anthropic-ratelimit-output-tokens-{}"),
)
_LIMITS = tuple((measure, name.format("limit")) for measure, name in _HEADERS)
_REMAINING = tuple((measure, name.format("remaining")) for measure, name in _HEADERS)


def read_rate_limits(headers: Mapping[str, str]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the limits a minute, and what remains of them, by measure, as far as they are given.

    Args:
        headers: Values by lower-case name.
    """
    return _read(headers, _LIMITS), _read(headers, _REMAINING)


def observe_rate_limits(model: Model, quota: "Quota") -> None:
    """Let a quota learn from the responses to a model's calls."""
    if not isinstance(model, HttpModel):
        return

    def observe(headers: Mapping[str, str]) -> None:
        limits, remaining = read_rate_limits(headers)
        if limits or remaining:
            quota.view.observe(limits, remaining)

    model.on_response = observe


def _read(headers: Mapping[str, str], names: tuple[tuple[str, str], ...]) -> dict[str, int]:
    found: dict[str, int] = {}
    for measure, name in names:
        text = headers.get(name)
        if text is not None and text.isascii() and text.isdigit() and len(text) <= len(str(_MOST)):
            found[measure] = int(text)
    return found
