"""A model whose every attempt is within a quota, and charged: next to the adapter, inside retries.

Each attempt takes its place in the quota, and tells the turn's meter what it cost, whether it
ended well, failed, or was cut off: what a provider has worked on it charges for. Where it does not
say how much that was, four characters are taken for a token.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from weakref import WeakKeyDictionary

import msgspec

from seawall.budgets.prices import cost_of
from seawall.budgets.settings import PriceSettings
from seawall.errors import UpstreamFailed
from seawall.models.port import (
    Finish,
    Model,
    ModelEvent,
    ModelRequest,
    Prompt,
    Text,
    ToolCalls,
)
from seawall.resilience.quota import Quota, Taken
from seawall.turn import AssistantMessage, Message, ToolMessage, Usage

__all__ = ["MeteredModel"]

_CHARACTERS = 4
"""To a token, in English text (https://platform.openai.com/tokenizer)."""
_AROUND_MESSAGE = 16  # characters' worth of tokens that frame each message


class MeteredModel:
    """Implements the model port around another model. name: as it is configured."""

    def __init__(
        self, name: str, model: Model, *, price: PriceSettings | None, quota: Quota | None
    ) -> None:
        self._name = name
        self._model = model
        self._price = price
        self._quota = quota
        # Prompts live as long as their agents; each is measured once.
        self._fixed: WeakKeyDictionary[Prompt, int] = WeakKeyDictionary()

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`.

        Raises:
            UpstreamThrottled: also where the quota is used up.
        """
        taken = None
        if self._quota is not None:
            estimate = self._prompt_tokens(request)
            taken = await self._quota.take(estimate, request.max_tokens, deadline)
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
            self._account(request, attempt, taken)

    async def warm(self) -> None:
        """See `Model.warm`."""
        await self._model.warm()

    async def close(self) -> None:
        """See `Model.close`."""
        await self._model.close()

    def _account(self, request: ModelRequest, attempt: "_Attempt", taken: Taken | None) -> None:
        """Say what an attempt has used, to all who want to know; never waits."""
        usage, estimated = attempt.usage, not attempt.reported
        if estimated and not attempt.refused:
            usage = Usage(self._prompt_tokens(request), -(-attempt.written // _CHARACTERS), 1)
        if self._quota is not None and taken is not None:
            self._quota.settle(
                taken,
                tokens=usage.prompt_tokens + usage.completion_tokens,
                completion_tokens=usage.completion_tokens if attempt.reported else None,
            )
        if request.meter is not None and not attempt.refused:
            cost = cost_of(usage, self._price) if self._price is not None else 0
            request.meter.spent(self._name, usage, cost, estimated=estimated)

    def _prompt_tokens(self, request: ModelRequest) -> int:
        """About how many tokens a request has."""
        prompt = request.prompt
        fixed = self._fixed.get(prompt)
        if fixed is None:
            tools = msgspec.json.encode(prompt.tools)
            fixed = self._fixed[prompt] = len(prompt.instructions) + len(tools)
        return (fixed + sum(map(_characters, request.messages))) // _CHARACTERS + 1


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
        elif type(event) is ToolCalls:
            self.written += sum(len(call.name) + len(call.arguments) for call in event.calls)
        elif type(event) is Finish:
            self.usage = event.usage


def _characters(message: Message) -> int:
    if isinstance(message, ToolMessage):
        return _AROUND_MESSAGE + len(message.content)
    if isinstance(message, AssistantMessage):
        called = sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
        return _AROUND_MESSAGE + len(message.text) + called
    return _AROUND_MESSAGE + len(message.text)
