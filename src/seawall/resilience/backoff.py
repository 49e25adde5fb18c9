"""How long to wait before trying again."""

__all__ = ["full_jitter"]


def full_jitter(attempt: int, *, base: float, cap: float, chance: float) -> float:
    """Seconds to wait after the failed attempt number `attempt` (1 for the first).

    base: the longest wait after the first attempt; it doubles with each one, up to `cap`.
    chance: a random number in [0, 1).
    Spread over the whole of the interval, a crowd that failed together does not come back
    together, and as a whole asks least often.
    Source: M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    # The exponent is bounded before it is raised: 2.0 ** 1024 is an OverflowError.
    return chance * min(cap, base * 2.0 ** min(attempt - 1, 64))
