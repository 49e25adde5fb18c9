"""Models whose calls are part of a recorded turn: their tokens, prices and failures."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from seawall.budgets import Spending
from seawall.console.spans import CourseSpan
from seawall.models import Finish, Model, ModelEvent, ModelRequest
from seawall.spans import current_span, error_type

__all__ = ["RecordedModel"]


class RecordedModel:
    """A model around another; calls of turns that are not recorded go directly to that one."""

    def __init__(self, label: str, model: Model, *, traced: bool) -> None:
        """Wrap a model.

        Args:
            label: Name of the span.
            model: The model.
            traced: Whether telemetry has a span for the call, which is then the one that is
                completed here.
        """
        self._label = label
        self._model = model
        self._traced = traced

    def stream(self, request: ModelRequest, *, deadline: float) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        if type(current_span.get()) is not CourseSpan:
            return self._model.stream(request, deadline=deadline)
        return self._recorded(request, deadline)

    async def _recorded(
        self, request: ModelRequest, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        parent = current_span.get()  # that of telemetry for this call, by now
        assert type(parent) is CourseSpan  # noqa: S101 - see `stream`
        clock = asyncio.get_running_loop().time
        began = clock()
        span = parent if self._traced else parent.child(self._label, "client")
        meter = request.meter if isinstance(request.meter, Spending) else None
        before = meter.cost if meter is not None else 0
        first = False
        error: str | None = "cancelled"  # unless it ends in another way
        try:
            async with aclosing(self._model.stream(request, deadline=deadline)) as events:
                while True:
                    # Only while the model runs: a generator shares its caller's context.
                    current_span.set(span)
                    event = await events.__anext__()
                    current_span.set(parent)
                    if not first:
                        first = True
                        span.put("gen_ai.response.time_to_first_chunk", clock() - began)
                    if type(event) is Finish:
                        span.put("gen_ai.usage.input_tokens", event.usage.prompt_tokens)
                        span.put("gen_ai.usage.output_tokens", event.usage.completion_tokens)
                        span.put("gen_ai.response.finish_reasons", [event.reason])
                    yield event
        except StopAsyncIteration:
            error = None
        except Exception as failure:
            error = error_type(failure)
            raise
        finally:
            current_span.set(parent)
            if meter is not None and meter.cost > before:
                span.put("seawall.cost", (meter.cost - before) / 1e9)
            if not self._traced:
                span.end(error)

    async def warm(self) -> None:
        """See `Model.warm`."""
        await self._model.warm()

    async def close(self) -> None:
        """See `Model.close`."""
        await self._model.close()
