"""Idempotency keys of tool calls."""

import hashlib

__all__ = ["effect_key"]


def effect_key(turn: str, step: int, index: int) -> str:
    """The idempotency key of a call: of its place in the turn, not of how a model words it.

    Args:
        turn: The same for every attempt at the turn, and of no other.
        step: Number of model calls of the turn so far.
        index: Of the call in the step, from 0.
    """
    digest = hashlib.sha256(b"%b\0%d\0%d" % (turn.encode("utf-8", "replace"), step, index))
    return digest.hexdigest()[:32]
