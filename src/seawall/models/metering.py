"""Metered models: usage and cost of every call are charged to its turn."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from seawall.errors import UpstreamFailed
from seawall.models import (
    CHARACTERS_PER_TOKEN,
    DirectText,
    Finish,
    Meter,
    Model,
    ModelEvent,
    ModelRequest,
    Progress,
    Text,
    ToolCalls,
    estimate_prompt_tokens,
)
from seawall.settings import PriceSettings, cost_of
from seawall.turn import Usage

__all__ = ["MeteredModel"]


class MeteredModel:
    """Charges every attempt of a model to the turn's meter.

    Wrapped directly around the adapter, inside retries and hedges. An attempt is charged whether
    it succeeded, failed or was cut off, because providers bill for it. Where the provider does
    not report the usage, it is estimated.
    """

    def __init__(self, name: str, model: Model, *, price: PriceSettings | None) -> None:
        """Wrap a model.

        Args:
            name: Name in the configuration.
            model: The adapter.
            price: None to count tokens only.
        """
        self._name = name
        self._model = model
        self._price = price

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        attempt = _Attempt(request.sink)
        try:
            async with aclosing(self._model.stream(request, deadline=deadline)) as events:
                async for event in events:
                    attempt.take(event)
                    yield event
        except UpstreamFailed:
            attempt.refused = not attempt.written
            raise
        finally:
            if request.meter is not None and not attempt.refused:
                self._charge(request, request.meter, attempt)

    async def warm(self) -> None:
        """See `Model.warm`."""
        await self._model.warm()

    async def close(self) -> None:
        """See `Model.close`."""
        await self._model.close()

    def _charge(self, request: ModelRequest, meter: Meter, attempt: "_Attempt") -> None:
        usage, estimated = attempt.usage, not attempt.reported
        if estimated:
            written = -(-attempt.written // CHARACTERS_PER_TOKEN)
            usage = Usage(estimate_prompt_tokens(request), written, 1)
        cost = cost_of(usage, self._price) if self._price is not None else 0
        meter.charge(self._name, usage, cost, estimated=estimated)


class _Attempt:
    """One attempt so far: characters written, usage, and whether it failed before any output."""

    __slots__ = ("_direct", "_taken_before", "_yielded", "refused", "usage")

    def __init__(self, direct: DirectText | None) -> None:
        self._direct = direct
        self._taken_before = len(direct.taken) if direct is not None else 0
        self._yielded = 0
        self.usage = Usage()
        self.refused = False

    @property
    def reported(self) -> bool:
        """Whether the provider reported the usage."""
        return bool(self.usage.prompt_tokens or self.usage.completion_tokens)

    @property
    def written(self) -> int:
        """Characters, also of what went to the sink."""
        if self._direct is None:
            return self._yielded
        return self._yielded + sum(map(len, self._direct.taken[self._taken_before :]))

    def take(self, event: ModelEvent) -> None:
        """Count an event."""
        if type(event) is Text:
            self._yielded += len(event.text)
        elif type(event) is Progress:
            self._yielded += len(event.reasoning)
        elif type(event) is ToolCalls:
            called = event.calls + event.unfinished
            self._yielded += sum(len(call.name) + len(call.arguments) for call in called)
        elif type(event) is Finish:
            self.usage = event.usage
