"""Model wrappers: isolation of user code, and stop sequences."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec import structs

from seawall.cancellation import is_own_cancellation
from seawall.errors import InternalError
from seawall.models import (
    CHARACTERS_PER_TOKEN,
    Finish,
    Model,
    ModelEvent,
    ModelRequest,
    Progress,
    Text,
    estimate_prompt_tokens,
)
from seawall.turn import Usage

__all__ = ["GuardedModel", "StopSequenceModel"]

_log = logging.getLogger("seawall.models")


class GuardedModel:
    """Wraps a model that was registered in code: its exceptions fail its turn only.

    It yields all text: it may be around another model, whose text must not pass it by.
    """

    def __init__(self, name: str, model: Model) -> None:
        """Wrap a model.

        Args:
            name: The name under which it was registered.
            model: May raise anything.
        """
        self._name = name
        self._model = model

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        if request.sink is not None:
            request = structs.replace(request, sink=None)
        async with aclosing(self._model.stream(request, deadline=deadline)) as events:
            while True:
                try:
                    event = await anext(events, None)
                except Exception:
                    raise
                except BaseException as error:
                    if is_own_cancellation(error):
                        raise
                    _log.error("model %s failed", self._name, exc_info=error)
                    raise InternalError(
                        "Internal error; the details are in the log of the server."
                    ) from error
                if event is None:
                    return
                yield event

    async def warm(self) -> None:
        """See `Model.warm`."""
        await self._model.warm()

    async def close(self) -> None:
        """See `Model.close`."""
        await self._model.close()


class StopSequenceModel:
    """Ends the answer of another model before the first of the texts that a client named.

    The provider is asked to stop there; whether or not it does, the answer is cut here.
    """

    def __init__(self, model: Model, stop: tuple[str, ...]) -> None:
        """Wrap a model.

        Args:
            model: Closed by its owner.
            stop: Texts, none of them empty.
        """
        self._model = model
        self._stop = stop

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        request = structs.replace(request, stop=self._stop, sink=None)
        pending = ""  # may be the beginning of one of the texts
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
                found = [at for each in self._stop if (at := pending.find(each)) >= 0]
                end = min(found, default=-1)
                if end >= 0:
                    if pending[:end]:
                        yield Text(pending[:end])
                    # The end of the call, which reports the usage, is not waited for.
                    prompt = estimate_prompt_tokens(request)
                    yield Finish("stop", Usage(prompt, written // CHARACTERS_PER_TOKEN + 1, 1))
                    return
                kept = max(_overlap(pending, each) for each in self._stop)
                if len(pending) > kept:
                    yield Text(pending[: len(pending) - kept])
                    pending = pending[len(pending) - kept :]

    async def warm(self) -> None:
        """See `Model.warm`."""
        await self._model.warm()

    async def close(self) -> None:
        """See `Model.close`; the wrapped model is closed by its owner."""


def _overlap(text: str, stop: str) -> int:
    """Return how many of the text's last characters could begin `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0
