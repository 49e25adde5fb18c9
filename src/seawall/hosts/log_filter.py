"""Log filter against floods: repeated messages are suppressed and counted."""

import logging
import time
from collections import OrderedDict

__all__ = ["FloodFilter"]

_MESSAGES = 256  # that are counted at the same time
_MAX_CHARACTERS = 500  # that are compared
_UNLIMITED = ("seawall.access", "seawall.audit")  # one line for each event is their purpose


class FloodFilter(logging.Filter):
    """Lets a message pass `burst` times in each `seconds`; the next one says how many were not.

    Messages are the same if logger, level and format string are; arguments do not count. To be
    added to handlers: a filter of a logger does not see the records of child loggers.
    """

    def __init__(self, *, burst: int = 10, seconds: float = 10.0) -> None:
        super().__init__()
        self._most = burst
        self._seconds = seconds
        self._seen: OrderedDict[tuple[str, int, str], _Window] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter.filter`."""
        if record.name in _UNLIMITED:
            return True
        key = (record.name, record.levelno, str(record.msg)[:_MAX_CHARACTERS])
        now = time.monotonic()
        window = self._seen.get(key)
        if window is None:
            window = self._seen[key] = _Window(now)
            if len(self._seen) > _MESSAGES:
                self._seen.popitem(last=False)
        elif now >= window.began + self._seconds:
            if window.count > self._most:
                _append(record, window.count - self._most)
            window.began, window.count = now, 0
        window.count += 1
        return window.count <= self._most


class _Window:
    __slots__ = ("began", "count")

    def __init__(self, began: float) -> None:
        self.began = began
        self.count = 0


def _append(record: logging.LogRecord, left_out: int) -> None:
    try:
        text = record.getMessage()  # before the record is changed
    except Exception:  # noqa: BLE001 - the handler reports it, as always in logging
        return
    record.msg, record.args = "%s (and %d more like it before)", (text, left_out)
