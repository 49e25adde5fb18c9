"""An answer as it is put together from what a provider streams; decides, does no I/O."""

import logging
from typing import Protocol

import msgspec

from seawall.errors import UpstreamFailed
from seawall.models.failures import failure_of
from seawall.models.port import Finish, FinishReason
from seawall.turn import ToolCall, Usage

__all__ = ["Assembly", "Reader", "as_object"]

_MAX_ANSWER_CHARACTERS = 1 << 20
_MAX_CALLS = 64

_log = logging.getLogger("seawall.models")


class Reader(Protocol):
    """Reads one answer in one provider's wire format."""

    def feed(self, received: bytes) -> str:
        """Take what has come; the text that it brings, possibly none.

        Raises:
            UpstreamFailed: the provider failed in mid-answer, or sent something else.
            TransportError: the framing is broken.
        """
        ...

    def end(self) -> tuple[tuple[ToolCall, ...], Finish]:
        """The tool calls and the end, when nothing more comes.

        Raises:
            UpstreamFailed: the answer broke off before its end.
        """
        ...


class Assembly:
    """Text is counted, pieces of tool calls are gathered, the end is kept.

    A call is known by its index in the answer; `id` and `name` count once, arguments are joined.
    """

    __slots__ = ("_calls", "_characters", "_model", "reason", "usage")

    def __init__(self, model: str) -> None:
        self._model = model
        self._calls: dict[int, tuple[list[str], list[str], list[str]]] = {}
        self._characters = 0
        self.reason: FinishReason | None = None
        self.usage = Usage(model_calls=1)

    def count(self, characters: int) -> None:
        """So much more was written.

        Raises:
            UpstreamFailed: it is more than any answer may have.
        """
        self._characters += characters
        if self._characters > _MAX_ANSWER_CHARACTERS:
            raise self.failure(f"wrote more than {_MAX_ANSWER_CHARACTERS} characters")

    def call(
        self, index: int, *, call_id: str | None, name: str | None, arguments: str | None
    ) -> None:
        """A piece of the tool call at this index.

        Raises:
            UpstreamFailed: there are too many calls, or too much was written.
        """
        ids, names, pieces = self._calls.setdefault(index, ([], [], []))
        if len(self._calls) > _MAX_CALLS:
            raise self.failure(f"asked for more than {_MAX_CALLS} tool calls at once")
        if call_id and not ids:
            ids.append(call_id)
        if name and not names:
            names.append(name)
        if arguments:
            pieces.append(arguments)
            self.count(len(arguments))

    def end(self) -> tuple[tuple[ToolCall, ...], Finish]:
        """See `Reader.end`."""
        if self.reason is None:
            raise self.failure("broke off in the middle of its answer")
        calls = tuple(
            ToolCall("".join(ids) or f"call_{index}", "".join(names), "".join(arguments) or "{}")
            for index, (ids, names, arguments) in sorted(self._calls.items())
        )
        return calls, Finish("tool_calls" if calls else self.reason, self.usage)

    def failure(self, what: str) -> UpstreamFailed:
        """The failure to raise for what the model did."""
        return UpstreamFailed(f"The model '{self._model}' {what}.")

    def unreadable(self) -> UpstreamFailed:
        """The failure to raise for what is not in the provider's format."""
        return self.failure("sent something that is not part of an answer")

    def failed_midway(self, said: bytes, status: int | None = None) -> UpstreamFailed:
        """The failure to raise when the provider says in mid-answer that it failed.

        said: its words, for the log only. status: what it would have answered with, had it known
        before; None where it does not say.
        """
        _log.warning("model %s failed in mid-stream: %r", self._model, said[:2_000])
        if status is None:
            return self.failure("failed in the middle of its answer")
        return failure_of(self._model, status, None, midway=True)


def as_object(arguments: str) -> msgspec.Raw:
    """A tool call's arguments for providers that want a JSON object, not its text.

    What a model wrote need not be one; then the object says what it wrote.
    """
    try:
        msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeEncodeError):
        shown = arguments.encode("utf-8", "replace").decode()
        return msgspec.Raw(msgspec.json.encode({"unreadable": shown} if shown else {}))
    return msgspec.Raw(arguments.encode())
