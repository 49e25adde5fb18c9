"""A model that was registered in code: whatever it raises ends its turn and nothing else."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from seawall.cancellation import is_own_cancellation
from seawall.errors import InternalError
from seawall.models.port import Model, ModelEvent, ModelRequest

__all__ = ["GuardedModel"]

_log = logging.getLogger("seawall.models")


class GuardedModel:
    """Implements the model port around foreign code."""

    def __init__(self, name: str, model: Model) -> None:
        """Wrap a model.

        Args:
            name: As it was registered.
            model: May raise anything.
        """
        self._name = name
        self._model = model

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
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
                    raise InternalError("Something went wrong here; it is logged.") from error
                if event is None:
                    return
                yield event

    async def warm(self) -> None:
        """See `Model.warm`."""
        await self._model.warm()

    async def close(self) -> None:
        """See `Model.close`."""
        await self._model.close()
