"""Classifying off the event loop: on a thread of its own, whatever has gathered at once."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

__all__ = ["BatchClassifier", "BatchWorker"]

Answer = tuple[str, float]
_Pending = tuple[str, "asyncio.Future[Answer]"]

_MOST_WAITING = 64
_MOST_AT_ONCE = 16


class BatchClassifier(Protocol):
    """A classifier that is too slow for the event loop."""

    def best_of(self, texts: Sequence[str]) -> list[Answer]:
        """The likeliest intent of each text and its calibrated probability."""
        ...


class BatchWorker:
    """Asks a classifier on a thread. In a crowd, those who find too many waiting go without."""

    def __init__(self, classifier: BatchClassifier) -> None:
        self._classifier = classifier
        self._waiting: deque[_Pending] = deque()
        # Only where there are embeddings: each start pays for what it imports.
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

        self._thread = ThreadPoolExecutor(1, thread_name_prefix="seawall-intents")

    async def best(self, text: str) -> Answer | None:
        """The likeliest intent and its probability; None where too many are waiting."""
        if len(self._waiting) >= _MOST_WAITING:
            return None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((text, future))
        self._thread.submit(self._work, loop)
        return await future

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Once for each that came; most find that an earlier call took theirs along."""
        batch: list[_Pending] = []
        while self._waiting and len(batch) < _MOST_AT_ONCE:
            text, future = self._waiting.popleft()
            if not future.cancelled():
                batch.append((text, future))
        if not batch:
            return
        try:
            answers: list[Answer] | Exception = self._classifier.best_of(
                [each for each, _ in batch]
            )
        except Exception as error:  # noqa: BLE001 - told to those who wait
            answers = error
        loop.call_soon_threadsafe(_resolve, batch, answers)


def _resolve(batch: Sequence[_Pending], answers: list[Answer] | Exception) -> None:
    for index, (_, future) in enumerate(batch):
        if future.done():
            continue
        if isinstance(answers, Exception):
            future.set_exception(answers)
        else:
            future.set_result(answers[index])
