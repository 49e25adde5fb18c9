"""Assembly of an answer from what a provider streams; decides, does no I/O."""

import functools
import logging
import random
import re
import string
import time
from collections.abc import Callable
from typing import ClassVar

import msgspec

from seawall.errors import UpstreamFailed
from seawall.models import Finish, FinishReason, Progress, ToolCalls
from seawall.transport.sse import ServerSentEvent, SseParser
from seawall.turn import ToolCall, Usage

__all__ = ["Assembly", "Reader", "SseReader", "TextFrames", "UnreadableLog", "as_object"]

_MAX_ANSWER_CHARACTERS = 1 << 20
_MAX_ANSWER_BYTES = 64 << 20  # for that much text, a few characters in each chunk
_MAX_CALLS = 64
_MAX_COMPLETENESS_CHECKS = 256
_ALPHABET = string.ascii_letters + string.digits
_MAX_REASON_CHARACTERS = 100
_ID_LENGTH = 9  # letters and digits: the only ids that Mistral accepts, and all others do too
_EXCERPT_BYTES = 300
_LOG_SECONDS = 10.0
_MAX_FRAME_BYTES = 4_096
_MAX_CANDIDATES = 8
_PROBE = '"\x01\\'

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
# Not the end of an answer: the server aborted it.
_ABORTED = frozenset(
    {"abort", "aborted", "error", "failed", "cancelled", "canceled", "timeout", "network_error"}
    | {"insufficient_system_resource", "malformed_function_call", "unexpected_tool_call"}
    | {"malformed_tool_use", "malformed_model_output", "engine_error", "user_cancel"}
)

# Longer forms of some servers: "content_filter: RECITATION", "FinishReason.MAX_TOKENS".
_words = re.compile(r"[a-z_]+")
_SEVERITY = ("other", "stop", "tool_calls", "length", "content_filter")

_log = logging.getLogger("seawall.models")


class UnreadableLog:
    """Logs what a provider sent that cannot be read: at most one line every ten seconds.

    Args:
        model: Name in the configuration.
        provider: Kind of the API and its host.
    """

    __slots__ = ("_left_out", "_model", "_next_at", "_provider")

    def __init__(self, model: str, provider: str) -> None:
        self._model = model
        self._provider = provider
        self._next_at = 0.0
        self._left_out = 0

    def report(self, what: str, data: bytes) -> None:
        """Log it, unless a line was logged within the last ten seconds.

        Args:
            what: What was done with it.
            data: As received; only its beginning is logged.
        """
        now = time.monotonic()
        if now < self._next_at:
            self._left_out += 1
            return
        _log.warning(
            "model %s (%s) sent unreadable data, which was %s: %r (%d bytes); "
            "%d more since the last such line",
            self._model,
            self._provider,
            what,
            data[:_EXCERPT_BYTES],
            len(data),
            self._left_out,
        )
        self._next_at = now + _LOG_SECONDS
        self._left_out = 0


class _Call:
    """A tool call that arrives in pieces."""

    __slots__ = ("extra", "id", "index", "name", "pieces")

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = self.name = self.extra = ""
        self.pieces: list[str] = []

    def written(self) -> str:
        """Return its arguments, once: some servers send them complete beside the pieces."""
        pieces = self.pieces
        arguments = "".join(pieces)
        if len(pieces) > 1 and not _is_object(arguments):
            for end in (1, -1):
                first, rest = "".join(pieces[:end]), "".join(pieces[end:])
                if _is_object(first) and _is_object(rest) and _repeats(first, rest):
                    return rest
        return arguments

    def is_complete(self) -> bool:
        """Return whether its arguments are complete."""
        return _is_object("".join(self.pieces))


class Assembly:
    """Counts text, gathers the pieces of tool calls, keeps the end.

    Attributes:
        bytes: Received, of any content.
        characters: That the model wrote.
        done: The provider has announced the end.
        quiet: Whether the model did nothing besides writing text since `take_progress`.
        reason: Why the answer ended; None before its end.
        usage: As the provider reported it.
    """

    __slots__ = (
        "_at",
        "_begun",
        "_blanks",
        "_by_id",
        "_calls",
        "_checks",
        "_log",
        "_model",
        "_origin",
        "_thought",
        "bytes",
        "characters",
        "done",
        "quiet",
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
        self.bytes = self.characters = self._checks = 0
        self._begun, self._blanks = False, ""
        self._thought = ""
        self.done = False
        self.quiet = True
        self.reason: FinishReason | None = None
        self.usage = Usage(model_calls=1)

    def count(self, characters: int, received: int = 0) -> None:
        """Count characters that the model wrote, and received bytes of any content.

        Raises:
            UpstreamFailed: There are more than any answer may have.
        """
        self.characters += characters
        self.bytes += received
        if self.characters > _MAX_ANSWER_CHARACTERS:
            raise self.failure(f"wrote more than {_MAX_ANSWER_CHARACTERS} characters")
        if self.bytes > _MAX_ANSWER_BYTES:
            raise self.failure(f"sent more than {_MAX_ANSWER_BYTES} bytes")

    def begin(self, text: str) -> str:
        """Return the text to pass on now: leading blanks are kept back until other text follows."""
        if self._begun or not text:
            return text
        self._blanks += text
        if self._blanks.isspace():
            self.quiet = False
            return ""
        self._begun = True
        return self._blanks

    def think(self, text: str) -> None:
        """Take a piece of the model's reasoning; empty where the provider hides it.

        Raises:
            UpstreamFailed: The answer is too long.
        """
        self._thought += text
        self.quiet = False
        self.count(len(text))

    def take_progress(self) -> Progress | None:
        """Return what the model did besides writing text since the last call; None for nothing."""
        if self.quiet:
            return None
        thought, self._thought, self.quiet = self._thought, "", True
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
        """Take a piece of a tool call.

        Args:
            index: Position in the answer; None, or the same for all, where the server has none.
            call_id: The server's id; a different one is a different call.
            name: The tool's; counts once, and begins another call after complete arguments.
            arguments: The next piece of their JSON.
            extra: JSON to send back to the same provider with the call.
            begins: The server announced the beginning of a call.

        Raises:
            UpstreamFailed: There are too many calls, or the answer is too long.
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
            if repeated and call.pieces and _is_object(arguments) and self._is_complete(call):
                call.pieces = [arguments]  # some servers send all of them in each chunk
            else:
                call.pieces.append(arguments)
        if extra and not call.extra:
            call.extra = extra
            self.count(len(extra))
        self.quiet = False

    def replace_arguments(self, index: int | None, call_id: str | None, arguments: str) -> None:
        """Replace the arguments of a call by the complete ones that the server sends at its end.

        Raises:
            UpstreamFailed: As `call`.
        """
        call = self._find(index, call_id, None)
        if call is not None:
            call.pieces.clear()
        self.call(index, call_id=call_id, arguments=arguments)

    def finish(self, reason: str) -> None:
        """End the answer; of several reasons the most severe is kept.

        Args:
            reason: The provider's own word.

        Raises:
            UpstreamFailed: The provider aborted the answer.
        """
        word = reason[:_MAX_REASON_CHARACTERS].lower().replace("-", "_")
        if word in _NO_REASONS:
            return
        found: FinishReason = "other"
        for each in (word,) if word in _REASONS else _words.findall(word):
            if each in _ABORTED:
                raise self.failure(f"aborted its answer ({word})")
            found = max(found, _REASONS.get(each, "other"), key=_SEVERITY.index)
        self.reason = max(self.reason or found, found, key=_SEVERITY.index)

    def end(self) -> tuple[ToolCalls | None, Finish]:
        """Return the tool calls and the end.

        Raises:
            UpstreamFailed: The answer broke off before its end.
        """
        reason = self.reason
        if reason is None:
            raise self.failure("broke off in the middle of its answer")
        if reason == "content_filter":  # calls of a withheld answer are not executed
            return None, Finish(reason, self.usage)
        calls: list[ToolCall] = []
        unfinished: list[ToolCall] = []
        named = [each for each in self._calls if each.name]
        seen: set[str] = set()
        for each in named:
            arguments = each.written()
            complete = _is_json(arguments) if arguments.strip() else None
            if complete is None:
                complete = reason in ("stop", "tool_calls") or each is not named[-1]
                arguments = "{}" if complete else arguments
            call_id = each.id if each.id and each.id not in seen else _made_up_id()
            seen.add(call_id)
            call = ToolCall(call_id, each.name, arguments, self._origin, each.extra)
            (calls if complete else unfinished).append(call)
        if len(named) < len(self._calls):
            _log.warning("model %s asked for a tool without its name", self._model)
        if not named:
            return None, Finish("stop" if reason == "tool_calls" else reason, self.usage)
        asked = ToolCalls(tuple(calls), tuple(unfinished))
        return asked, Finish("length" if reason == "length" else "tool_calls", self.usage)

    def failure(self, what: str) -> UpstreamFailed:
        """Return the failure to raise for what the model did."""
        return UpstreamFailed(f"The model '{self._model}' {what}.")

    def report_skipped(self, data: bytes) -> None:
        """Log data that is no part of an answer and not JSON either."""
        if data.strip():
            self._log.report("skipped", data)

    def unreadable(self, data: bytes) -> UpstreamFailed:
        """Log data that is not in the provider's format; return the failure to raise."""
        self._log.report("treated as a failure", data)
        return self.failure("sent something that is not part of an answer")

    def failed_midway(self, message: bytes, *codes: object) -> UpstreamFailed:
        """Return the failure to raise when the provider reports an error in mid-answer.

        Args:
            message: The provider's, for the log only.
            codes: Names or statuses of the error, the most specific first.
        """
        _log.warning("model %s failed in mid-stream: %r", self._model, message[:2_000])
        from seawall.models.failures import coded_failure  # noqa: PLC0415 - only for a failure

        return coded_failure(self._model, codes) or self.failure(
            "failed in the middle of its answer"
        )

    def _find(self, index: int | None, call_id: str | None, name: str | None) -> _Call | None:
        """Return the call to which a piece belongs; None where it begins another."""
        last = self._calls[-1] if self._calls else None
        current = last if index is None else self._at.get(index)
        known = self._by_id.get(call_id) if call_id else None
        if known is not None and (index is None or known.index == index):
            return known
        if current is None:
            return None
        if call_id and current.id:
            # A name begins a call; without one it is a piece under an id that changes.
            continues = not name and not self._is_complete(current)
            return current if continues else None
        if name and current.name and (name != current.name or self._is_complete(current)):
            return None
        return current

    def _is_complete(self, call: _Call) -> bool:
        """Return whether its arguments are complete; the number of checks is bounded."""
        self._checks += 1
        return self._checks <= _MAX_COMPLETENESS_CHECKS and call.is_complete()


class Reader:
    """Base of the readers: reads one answer in one provider's wire format."""

    __slots__ = ("assembly",)

    def __init__(self, model: str, origin: str = "", log: UnreadableLog | None = None) -> None:
        """Begin an answer.

        Args:
            model: Name in the configuration, for messages.
            origin: Identifies the provider; stored with the tool calls that it makes.
            log: Where unreadable data is logged; None for a log of its own.
        """
        self.assembly = Assembly(model, origin, log)

    def feed(self, received: bytes) -> str:
        """Take received bytes; return the text that they complete, possibly empty.

        Raises:
            UpstreamFailed: The provider failed in mid-answer, or sent something else.
            TransportError: The framing is broken.
        """
        raise NotImplementedError

    def rest(self) -> str:
        """Return the text of what was received without the end of its framing, at the body's end.

        Raises:
            UpstreamFailed, TransportError: As `feed`.
        """
        raise NotImplementedError

    def end(self) -> tuple[ToolCalls | None, Finish]:
        """Return the tool calls and the end, when nothing more comes.

        Raises:
            UpstreamFailed: The answer broke off before its end.
        """
        return self.assembly.end()


class TextFrames:
    """Reads events that differ from earlier ones in nothing but their text, without decoding them.

    Most servers repeat the same JSON around each piece of text. Two events in a row show what is
    repeated. It counts only if an event with a text of our own in its place reads as that text
    and nothing else: then it does so with any JSON string there, which has no line breaks.

    Attributes:
        known: Whether `read` can be used, between two events.
    """

    __slots__ = (
        "_begin",
        "_candidates",
        "_end",
        "_from",
        "_joint",
        "_key",
        "_least",
        "_to",
        "known",
    )

    def __init__(self, key: bytes) -> None:
        """Begin a stream.

        Args:
            key: Of the member that has the text.
        """
        self._key = key
        self._begin = self._end = self._joint = b""  # from and to the text, its quotes included
        self._from = self._to = self._least = 0
        self.known = False
        self._candidates = _MAX_CANDIDATES

    def read(self, received: bytes) -> str | None:
        """Return the text of received bytes; None if they are something else as well."""
        size = len(received) - self._least
        if size < 0 or not (received.startswith(self._begin) and received.endswith(self._end)):
            return None
        try:
            if size < self._least:
                return _decode_string(received[self._from : self._to])
            written = received[self._from + 1 : self._to - 1]
            return "".join([_decode_string(b'"%b"' % each) for each in written.split(self._joint)])
        except ValueError:
            return None

    def learn(self, received: bytes, text_of: Callable[[ServerSentEvent], str | None]) -> None:
        """Take bytes that had text and were decoded.

        Args:
            received: From the end of one event to the end of another.
            text_of: Returns the text of an event that has nothing else; None of another.
        """
        if self.known or not self._candidates or len(received) > _MAX_FRAME_BYTES:
            return
        self._candidates -= 1
        begin, end = self._begin, self._end
        if end and received.startswith(begin) and received.endswith(end):
            events = SseParser().feed(begin[:-1] + msgspec.json.encode(_PROBE) + end[1:])
            self.known = len(events) == 1 and text_of(events[0]) == _PROBE
            self._joint = end + begin
            self._from, self._to, self._least = len(begin) - 1, 1 - len(end), len(self._joint)
        elif (found := _pattern_of(self._key).search(received)) and received.endswith(b"\n\n"):
            self._begin, self._end = received[: found.start(1) + 1], received[found.end(1) - 1 :]

    def forget(self) -> None:
        """Read nothing before the repeated part was learned again."""
        self.known = False
        self._begin = self._end = b""


@functools.cache
def _pattern_of(key: bytes) -> re.Pattern[bytes]:
    return re.compile(rb'"%b": ?("(?:[^"\\]|\\.)*")' % key)


_decode_string = msgspec.json.Decoder(str).decode


class SseReader(Reader):
    """Base of the readers of server-sent events. A subclass implements `_read`.

    Where `text_key` names the member of an event that has the text, it implements `_text_of` too.
    """

    __slots__ = ("_frames", "_parser", "_ready")
    max_event_bytes: ClassVar[int] = 1 << 20
    text_key: ClassVar[bytes] = b""

    def __init__(self, model: str, origin: str = "", log: UnreadableLog | None = None) -> None:
        """See `Reader`."""
        super().__init__(model, origin, log)
        self._parser = SseParser(max_event_bytes=self.max_event_bytes)
        self._frames = TextFrames(self.text_key) if self.text_key else None
        self._ready: TextFrames | None = None  # between two events, when there is something to read

    def feed(self, received: bytes) -> str:
        """See `Reader.feed`."""
        text = self._ready.read(received) if self._ready is not None else None
        if text is None:
            text = self._read_and_learn(received)
        assembly = self.assembly
        written, size = assembly.characters + len(text), assembly.bytes + len(received)
        if written > _MAX_ANSWER_CHARACTERS or size > _MAX_ANSWER_BYTES:
            assembly.count(len(text), len(received))  # raises
        assembly.characters, assembly.bytes = written, size
        return text

    def rest(self) -> str:
        """See `Reader.rest`; some servers omit the blank line after the last event."""
        return self.feed(b"\n\n")

    def _read_and_learn(self, received: bytes) -> str:
        between = self._parser.between_events
        text = self._read(received)
        if (frames := self._frames) is not None:
            ends = self._parser.between_events
            if text and between and ends:
                frames.learn(received, self._text_of)
            self._ready = frames if frames.known and ends else None
        return text

    def _read(self, received: bytes) -> str:
        """Decode received bytes; as `feed`, but the text is not counted."""
        raise NotImplementedError

    def _text_of(self, event: ServerSentEvent) -> str | None:
        """Return the text of an event that has nothing else; None of another."""
        raise NotImplementedError


def as_object(arguments: str) -> msgspec.Raw:
    """Return a tool call's arguments as a JSON object, for providers that do not accept text.

    Where the model wrote something else, the object contains what it wrote.
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
