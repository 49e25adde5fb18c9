"""A model whose answer ends before any of the texts that a client named.

The provider is asked to stop there; whether it does, or knows of such texts at all, the answer is
cut here. Imported only for turns that ask for it.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec import structs

from seawall.models.estimate import CHARACTERS, prompt_tokens
from seawall.models.port import Finish, Model, ModelEvent, ModelRequest, Progress, Text
from seawall.turn import Usage

__all__ = ["StopSequenceModel"]


class StopSequenceModel:
    """Implements the model port over another model. stop: texts that are not empty."""

    def __init__(self, model: Model, stop: tuple[str, ...]) -> None:
        self._model = model
        self._stop = stop

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        request = structs.replace(request, stop=self._stop)
        pending = ""  # it may be the beginning of one of the texts
        written = 0
        async with aclosing(self._model.stream(request, deadline=deadline)) as events:
            async for event in events:
                if type(event) is not Text:
                    if pending and type(event) is not Progress:
                        yield Text(pending)
                        pending = ""
                    yield event
                    continue
                pending += event.text
                written += len(event.text)
                end = min(
                    (at for each in self._stop if (at := pending.find(each)) >= 0), default=-1
                )
                if end >= 0:
                    if pending[:end]:
                        yield Text(pending[:end])
                    # What the call has used is not known: its end was not waited for.
                    spent = Usage(prompt_tokens(request), written // CHARACTERS + 1, 1)
                    yield Finish("stop", spent)
                    return
                kept = max(_overlap(pending, each) for each in self._stop)
                if len(pending) > kept:
                    yield Text(pending[: len(pending) - kept])
                    pending = pending[len(pending) - kept :]

    async def warm(self) -> None:
        """See `Model.warm`."""
        await self._model.warm()

    async def close(self) -> None:
        """See `Model.close`; the other model is closed by its owner."""


def _overlap(text: str, stop: str) -> int:
    """How many of the text's last characters could begin `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0
