"""What can be configured about calls to a model that fails, hangs or throttles."""

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["ResilienceSettings"]

_Seconds = Annotated[float, Meta(gt=0, le=3_600)]
_Share = Annotated[float, Meta(ge=0, le=1)]


class ResilienceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one model endpoint is called.

    first_token_seconds, between_tokens_seconds: the longest wait for the first event of an answer,
    and for each further one. The whole call, with all its attempts, is bounded by the agent's
    `model_seconds`, connecting by five seconds.
    attempts: calls to this endpoint for one answer. backoff_seconds: the longest pause before the
    second one; it doubles up to backoff_cap_seconds.
    retry_budget: retries and hedges together, as a share of all calls.
    hedge_share: second requests that are sent when the first token takes longer than
    `hedge_quantile` of them do, as a share of all calls; 0: none. Both requests cost money.
    resume: ask again for an answer that broke off in the middle, and go on where it broke off if
    the new answer begins with the very same text. Else the turn fails.
    failure_rate: of the calls in the last window_seconds, at least min_calls of them; from it on
    the endpoint is left alone for open_seconds, then tried with `probes` calls at a time.
    min_concurrency: the adaptive limit on calls in flight goes no lower. wait_seconds: the longest
    wait for a place within it.
    """

    first_token_seconds: _Seconds = 20.0
    between_tokens_seconds: _Seconds = 20.0
    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    backoff_seconds: _Seconds = 0.25
    backoff_cap_seconds: _Seconds = 5.0
    retry_budget: _Share = 0.1
    hedge_share: _Share = 0.0
    hedge_quantile: Annotated[float, Meta(ge=0.5, lt=1)] = 0.95
    resume: bool = False
    failure_rate: Annotated[float, Meta(gt=0, le=1)] = 0.5
    window_seconds: _Seconds = 10.0
    min_calls: Annotated[int, Meta(ge=1)] = 20
    open_seconds: _Seconds = 5.0
    probes: Annotated[int, Meta(ge=1, le=100)] = 3
    min_concurrency: Annotated[int, Meta(ge=1)] = 8
    wait_seconds: _Seconds = 2.0
