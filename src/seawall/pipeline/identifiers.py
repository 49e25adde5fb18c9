"""Identifiers of turns and sessions: unguessable, and sorted by the time of their making."""

import os
import time

__all__ = ["new_session_id", "new_turn_id"]


def new_turn_id() -> str:
    """48 bits of Unix milliseconds and 80 random bits, as UUIDv7 has them (RFC 9562 §5.7)."""
    return "trn_" + _sortable()


def new_session_id() -> str:
    """As `new_turn_id`."""
    return "ses_" + _sortable()


def _sortable() -> str:
    milliseconds = time.time_ns() // 1_000_000
    return f"{milliseconds:012x}{os.urandom(10).hex()}"
