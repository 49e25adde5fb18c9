"""Idempotency keys of tool calls: the same when the turn is run again."""

import hashlib

from msgspec import Struct

__all__ = ["Claim", "EffectKeys"]


class Claim(Struct, frozen=True):
    """The key of a call, and its index among the equal calls of its turn, from 0."""

    key: str
    call: bytes
    ordinal: int


class EffectKeys:
    """The idempotency keys of one turn.

    A key depends on the turn, the tool, the arguments in canonical form, and how many equal calls
    of the turn have succeeded or are running; not on the wording, nor on other calls. A failed
    call gives its key back: if the model repeats it, it is the same effect.
    """

    __slots__ = ("_claimed", "_turn")

    def __init__(self, turn: str) -> None:
        """Start without calls.

        Args:
            turn: The same for every retry of the turn, and of no other.
        """
        self._turn = turn.encode("utf-8", "replace")
        self._claimed: dict[bytes, set[int]] = {}

    def claim(self, tool: str, arguments: bytes) -> Claim:
        """The key of the next call of a tool with these canonical arguments."""
        call = tool.encode("utf-8", "replace") + b"\0" + arguments
        claimed = self._claimed.setdefault(call, set())
        ordinal = next(each for each in range(len(claimed) + 1) if each not in claimed)
        claimed.add(ordinal)
        digest = hashlib.sha256(b"%b\0%d\0%b" % (self._turn, ordinal, call))
        return Claim(digest.hexdigest()[:32], call, ordinal)

    def release(self, claim: Claim) -> None:
        """The call failed: the next equal call gets its key."""
        self._claimed[claim.call].discard(claim.ordinal)
