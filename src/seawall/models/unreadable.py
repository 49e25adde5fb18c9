"""What a provider sends that cannot be read, in the log: bounded in length and in number."""

import logging
import time

__all__ = ["UnreadableLog"]

_EXCERPT_BYTES = 300
_SECONDS_BETWEEN = 10.0

_log = logging.getLogger("seawall.models")


class UnreadableLog:
    """Of one model; a line at most every ten seconds, with the number of those left out.

    Args:
        model: Its name in the configuration.
        provider: What it speaks, and the host that it is asked at.
    """

    __slots__ = ("_left_out", "_model", "_next_at", "_provider")

    def __init__(self, model: str, provider: str) -> None:
        self._model = model
        self._provider = provider
        self._next_at = 0.0
        self._left_out = 0

    def report(self, what: str, data: bytes) -> None:
        """Log it, unless there was a line a moment ago.

        Args:
            what: What became of it.
            data: As it came; only its beginning is logged.
        """
        now = time.monotonic()
        if now < self._next_at:
            self._left_out += 1
            return
        _log.warning(
            "model %s (%s) sent something unreadable, which was %s: %r (%d bytes); "
            "%d more since the last such line",
            self._model,
            self._provider,
            what,
            data[:_EXCERPT_BYTES],
            len(data),
            self._left_out,
        )
        self._next_at = now + _SECONDS_BETWEEN
        self._left_out = 0
