"""Settings of timeouts, retries, hedging, circuit breaker and concurrency limit of a model."""

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["ResilienceSettings"]

_Seconds = Annotated[float, Meta(gt=0, le=3_600)]
_Share = Annotated[float, Meta(ge=0, le=1)]


class ResilienceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one model endpoint is called.

    The whole call with all its attempts is limited by the agent's `model_seconds`, connecting by
    five seconds.

    Attributes:
        first_token_seconds: Longest wait for the first event of an answer.
        between_tokens_seconds: Longest wait for each further event.
        attempts: Calls to this endpoint for one answer.
        backoff_seconds: Longest pause before the first retry; doubles with each further one.
        backoff_cap_seconds: Longest pause of all.
        retry_budget: Retries as a share of all calls.
        hedge_share: Hedges as a share of all calls: second requests, sent when the first token
            takes longer than `hedge_quantile` of them do; 0 for none. Both requests cost money.
        hedge_quantile: Quantile of the time to the first token after which a hedge is sent.
        resume: Request an answer that broke off again, and continue where it broke off if the new
            answer begins with the very same text; else the turn fails.
        failure_rate: Share of failed calls in the window that opens the circuit breaker.
        window_seconds: Window of the circuit breaker.
        min_calls: Calls in the window below which it stays closed.
        open_seconds: How long it stays open at first.
        probes: Concurrent calls while it is half-open.
        min_concurrency: Minimum of the adaptive concurrency limit.
        permit_wait_seconds: Longest wait for a permit under that limit.
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
    permit_wait_seconds: _Seconds = 2.0
