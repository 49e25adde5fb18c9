"""An answer as it is put together from what a provider streams; decides, does no I/O."""

import logging
import random
import re
import string
from typing import Protocol

import msgspec

from seawall.errors import UpstreamFailed
from seawall.models.failures import coded_failure
from seawall.models.port import Finish, FinishReason, Progress, ToolCalls
from seawall.models.unreadable import UnreadableLog
from seawall.turn import ToolCall, Usage

__all__ = ["Assembly", "Reader", "as_object"]

_MAX_ANSWER_CHARACTERS = 1 << 20
_MAX_ANSWER_BYTES = 64 << 20  # for that much text, a few characters in each chunk
_MAX_CALLS = 64
_MAX_LOOKS = 256
_ALPHABET = string.ascii_letters + string.digits
_MAX_REASON_CHARACTERS = 100
_ID_LENGTH = 9  # of letters and digits: Mistral takes nothing else, and everyone takes that

_REASONS: dict[str, FinishReason] = {
    **dict.fromkeys(("stop", "end_turn", "stop_sequence", "eos", "eos_token"), "stop"),
    **dict.fromkeys(("completed", "complete", "done", "end"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens", "model_length"), "length"),
    **dict.fromkeys(("model_context_window_exceeded", "max_length"), "length"),
    **dict.fromkeys(("maxtokens", "max_new_tokens", "token_limit", "error_limit"), "length"),
    **dict.fromkeys(("time_limit", "max_tokens_reached"), "length"),
    **dict.fromkeys(("tool_calls", "tool_use", "function_call", "tool_call"), "tool_calls"),
    **dict.fromkeys(("content_filter", "content_filtered", "refusal", "safety"), "content_filter"),
    **dict.fromkeys(("guardrail_intervened", "recitation", "blocklist"), "content_filter"),
    **dict.fromkeys(("prohibited_content", "spii", "sensitive"), "content_filter"),
    **dict.fromkeys(("contentfilter", "image_safety", "error_toxic", "language"), "content_filter"),
}
_NO_REASONS = frozenset({"null", "none", "not_finished"})
# Not the end of an answer, but of the attempt at one.
_ABORTED = frozenset(
    {"abort", "aborted", "error", "failed", "cancelled", "canceled", "timeout", "network_error"}
    | {"insufficient_system_resource", "malformed_function_call", "unexpected_tool_call"}
    | {"malformed_tool_use", "malformed_model_output", "engine_error", "user_cancel"}
)

# Longer words of some servers: "content_filter: RECITATION", "FinishReason.MAX_TOKENS".
_words = re.compile(r"[a-z_]+")
_SEVERITY = ("other", "stop", "tool_calls", "length", "content_filter")

_log = logging.getLogger("seawall.models")


class Reader(Protocol):
    """Reads one answer in one provider's wire format."""

    assembly: "Assembly"

    def feed(self, received: bytes) -> str:
        """Take what has come; the text that it brings, possibly none.

        Raises:
            UpstreamFailed: the provider failed in mid-answer, or sent something else.
            TransportError: the framing is broken.
        """
        ...

    def rest(self) -> str:
        """The text of what has come without the end of its framing, when the body has ended.

        Raises:
            UpstreamFailed, TransportError: as `feed`.
        """
        ...

    def end(self) -> tuple[ToolCalls | None, Finish]:
        """The tool calls and the end, when nothing more comes.

        Raises:
            UpstreamFailed: the answer broke off before its end.
        """
        ...


class _Call:
    """A tool call of which pieces come."""

    __slots__ = ("extra", "id", "index", "name", "pieces")

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = self.name = self.extra = ""
        self.pieces: list[str] = []

    def written(self) -> str:
        """Its arguments, once: some servers send them whole beside the pieces, or empty before."""
        pieces = self.pieces
        arguments = "".join(pieces)
        if len(pieces) > 1 and not _is_object(arguments):
            for end in (1, -1):
                first, rest = "".join(pieces[:end]), "".join(pieces[end:])
                if _is_object(first) and _is_object(rest) and _repeats(first, rest):
                    return rest
        return arguments

    def whole(self) -> bool:
        """Whether its arguments are complete."""
        return _is_object("".join(self.pieces))


class Assembly:
    """Text is counted, pieces of tool calls are gathered, the end is kept.

    origin: the provider, by which it knows the calls that it made again. done: the provider said
    that nothing more comes.
    """

    __slots__ = (
        "_at",
        "_begun",
        "_blanks",
        "_by_id",
        "_bytes",
        "_calls",
        "_characters",
        "_log",
        "_looks",
        "_model",
        "_origin",
        "_thought",
        "done",
        "reason",
        "usage",
    )

    def __init__(self, model: str, origin: str = "", log: UnreadableLog | None = None) -> None:
        self._model = model
        self._origin = origin
        self._log = log or UnreadableLog(model, origin)
        self._calls: list[_Call] = []
        self._at: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self._bytes = self._characters = self._looks = 0
        self._begun, self._blanks = False, ""
        self._thought: str | None = None
        self.done = False
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

    def receive(self, size: int) -> None:
        """So many more bytes came, of whatever they are.

        Raises:
            UpstreamFailed: there are more than any answer has.
        """
        self._bytes += size
        if self._bytes > _MAX_ANSWER_BYTES:
            raise self.failure(f"sent more than {_MAX_ANSWER_BYTES} bytes")

    def begin(self, text: str) -> str:
        """The text to pass on now: blanks wait for what follows them, since it may be nothing."""
        if self._begun or not text:
            return text
        self._blanks += text
        if self._blanks.isspace():
            self._thought = self._thought or ""
            return ""
        self._begun = True
        return self._blanks

    def think(self, text: str) -> None:
        """A piece of the model's reasoning; empty where the provider hides it.

        Raises:
            UpstreamFailed: too much was written.
        """
        self._thought = (self._thought or "") + text
        self.count(len(text))

    def take_progress(self) -> Progress | None:
        """What the model did beside writing text since it was last asked; None for nothing."""
        if self._thought is None:
            return None
        thought, self._thought = self._thought, None
        return Progress(thought)

    def call(
        self,
        index: int | None,
        *,
        call_id: str | None = None,
        name: str | None = None,
        arguments: str | None = None,
        extra: str = "",
        begins: bool = False,
    ) -> None:
        """A piece of a tool call.

        Args:
            index: Its place in the answer; None, or the same for all, where the server has none.
            call_id: The server's; another one is another call.
            name: Of the tool; counts once, and begins another call after complete arguments.
            arguments: The next piece of its JSON.
            extra: JSON that has to go back with the call to where it came from.
            begins: The server says that a call begins here.

        Raises:
            UpstreamFailed: there are too many calls, or too much was written.
        """
        call = None if begins else self._find(index, call_id, name)
        if call is None:
            if len(self._calls) == _MAX_CALLS:
                raise self.failure(f"asked for more than {_MAX_CALLS} tool calls at once")
            call = _Call(index)
            self._calls.append(call)
        if index is not None:
            self._at[index] = call
        if call_id and not call.id:
            call.id = call_id
            self._by_id[call_id] = call
            self.count(len(call_id))
        repeated = bool(name and call.name and arguments and call_id)
        if name and not call.name:
            call.name = name
            self.count(len(name))
        if arguments:
            self.count(len(arguments))
            if repeated and call.pieces and _is_object(arguments) and self._whole(call):
                call.pieces = [arguments]  # sent whole in each chunk, by some
            else:
                call.pieces.append(arguments)
        if extra and not call.extra:
            call.extra = extra
            self.count(len(extra))
        if self._thought is None:
            self._thought = ""

    def replace_arguments(self, index: int | None, call_id: str | None, arguments: str) -> None:
        """The arguments of a call as the server says that they are, now that it has them all.

        Raises:
            UpstreamFailed: as `call`.
        """
        call = self._find(index, call_id, None)
        if call is not None:
            call.pieces.clear()
        self.call(index, call_id=call_id, arguments=arguments)

    def finish(self, reason: str) -> None:
        """The answer ended, in the provider's own word for why; of several the gravest holds.

        Raises:
            UpstreamFailed: the provider gave it up.
        """
        word = reason[:_MAX_REASON_CHARACTERS].lower().replace("-", "_")
        if word in _NO_REASONS:
            return
        found: FinishReason = "other"
        for each in (word,) if word in _REASONS else _words.findall(word):
            if each in _ABORTED:
                raise self.failure(f"gave up in the middle of its answer ({word})")
            found = max(found, _REASONS.get(each, "other"), key=_SEVERITY.index)
        self.reason = max(self.reason or found, found, key=_SEVERITY.index)

    def end(self) -> tuple[ToolCalls | None, Finish]:
        """See `Reader.end`."""
        reason = self.reason
        if reason is None:
            raise self.failure("broke off in the middle of its answer")
        if reason == "content_filter":  # nothing of what is withheld is done
            return None, Finish(reason, self.usage)
        calls: list[ToolCall] = []
        unfinished: list[ToolCall] = []
        named = [each for each in self._calls if each.name]
        seen: set[str] = set()
        for each in named:
            arguments = each.written()
            whole = _is_json(arguments) if arguments.strip() else None
            if whole is None:
                whole = reason in ("stop", "tool_calls") or each is not named[-1]
                arguments = "{}" if whole else arguments
            call_id = each.id if each.id and each.id not in seen else _made_up_id()
            seen.add(call_id)
            call = ToolCall(call_id, each.name, arguments, self._origin, each.extra)
            (calls if whole else unfinished).append(call)
        if len(named) < len(self._calls):
            _log.warning("model %s asked for a tool without its name", self._model)
        if not named:
            return None, Finish("stop" if reason == "tool_calls" else reason, self.usage)
        asked = ToolCalls(tuple(calls), tuple(unfinished))
        return asked, Finish("length" if reason == "length" else "tool_calls", self.usage)

    def failure(self, what: str) -> UpstreamFailed:
        """The failure to raise for what the model did."""
        return UpstreamFailed(f"The model '{self._model}' {what}.")

    def report_skipped(self, data: bytes) -> None:
        """The operator learns of what says nothing of the answer, and is not even JSON."""
        if data.strip():
            self._log.report("passed over", data)

    def unreadable(self, data: bytes) -> UpstreamFailed:
        """The failure to raise for what is not in the provider's format; it is logged."""
        self._log.report("taken for a failure", data)
        return self.failure("sent something that is not part of an answer")

    def failed_midway(self, said: bytes, *codes: object) -> UpstreamFailed:
        """The failure to raise when the provider says in mid-answer that it failed.

        Args:
            said: Its words, for the log only.
            codes: What tells the kind of the error, the most telling first: names or statuses.
        """
        _log.warning("model %s failed in mid-stream: %r", self._model, said[:2_000])
        return coded_failure(self._model, codes) or self.failure(
            "failed in the middle of its answer"
        )

    def _find(self, index: int | None, call_id: str | None, name: str | None) -> _Call | None:
        """The call to which a piece belongs; None where it begins another."""
        last = self._calls[-1] if self._calls else None
        current = last if index is None else self._at.get(index)
        known = self._by_id.get(call_id) if call_id else None
        if known is not None and (index is None or known.index == index):
            return known
        if current is None:
            return None
        if call_id and current.id:
            # A name begins a call; without one it is a piece under an id that changes.
            going_on = not name and not self._whole(current)
            return current if going_on else None
        if name and current.name and (name != current.name or self._whole(current)):
            return None
        return current

    def _whole(self, call: _Call) -> bool:
        """Whether its arguments are complete; a server cannot make this look for ever."""
        self._looks += 1
        return self._looks <= _MAX_LOOKS and call.whole()


def as_object(arguments: str) -> msgspec.Raw:
    """A tool call's arguments for providers that want a JSON object, not its text.

    What a model wrote need not be one; then the object says what it wrote.
    """
    if _is_object(arguments):
        return msgspec.Raw(arguments.encode())
    shown = arguments.encode("utf-8", "replace").decode()
    return msgspec.Raw(msgspec.json.encode({"unreadable": shown} if shown.strip() else {}))


def _is_object(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    return True


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    return True


def _repeats(first: str, rest: str) -> bool:
    empty: dict[str, object] = {}
    return msgspec.json.decode(first) in (empty, msgspec.json.decode(rest))


def _made_up_id() -> str:
    return "".join(random.choices(_ALPHABET, k=_ID_LENGTH))  # noqa: S311 - a name, not a secret
