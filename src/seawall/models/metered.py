"""A model whose every attempt is charged: next to the adapter, inside retries and hedges.

Each attempt tells the turn's meter what it cost, whether it ended well, failed, or was cut off:
what a provider has worked on it charges for. Where it does not say how much that was, four
characters are taken for a token.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from seawall.budgets.prices import cost_of
from seawall.budgets.settings import PriceSettings
from seawall.errors import UpstreamFailed
from seawall.models.estimate import CHARACTERS, prompt_tokens
from seawall.models.port import (
    Finish,
    Meter,
    Model,
    ModelEvent,
    ModelRequest,
    Progress,
    Text,
    ToolCalls,
)
from seawall.turn import Usage

__all__ = ["MeteredModel"]


class MeteredModel:
    """Implements the model port around another model. name: as it is configured."""

    def __init__(self, name: str, model: Model, *, price: PriceSettings | None) -> None:
        self._name = name
        self._model = model
        self._price = price

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        attempt = _Attempt()
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
            usage = Usage(prompt_tokens(request), -(-attempt.written // CHARACTERS), 1)
        cost = cost_of(usage, self._price) if self._price is not None else 0
        meter.spent(self._name, usage, cost, estimated=estimated)


class _Attempt:
    """What came of one attempt so far. written: characters. refused: it was not even begun."""

    __slots__ = ("refused", "usage", "written")

    def __init__(self) -> None:
        self.written = 0
        self.usage = Usage()
        self.refused = False

    @property
    def reported(self) -> bool:
        """Whether the provider said what it used."""
        return bool(self.usage.prompt_tokens or self.usage.completion_tokens)

    def take(self, event: ModelEvent) -> None:
        """The next event."""
        if type(event) is Text:
            self.written += len(event.text)
        elif type(event) is Progress:
            self.written += len(event.reasoning)
        elif type(event) is ToolCalls:
            called = event.calls + event.unfinished
            self.written += sum(len(call.name) + len(call.arguments) for call in called)
        elif type(event) is Finish:
            self.usage = event.usage
