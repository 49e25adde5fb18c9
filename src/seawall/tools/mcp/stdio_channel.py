"""Messages to and from a child process, one a line; any number of requests at a time."""

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any

from msgspec import Raw, Struct, field

from seawall.printable import printable
from seawall.tools.mcp.elicitation import Elicitations
from seawall.tools.mcp.jsonrpc import (
    InvalidMessage,
    Message,
    decode,
    encode_notification,
    encode_request,
)
from seawall.tools.mcp.protocol import answer_request, is_listing_change, progress_of
from seawall.tools.upstream import UpstreamFault

__all__ = ["Channel"]

_MAX_PENDING = 1_000
_MAX_UNREAD_BYTES = 8 << 20  # that the process has not taken from its input
_WINDOW_SECONDS = 10.0
_MAX_MESSAGES = 20_000  # in a window
_MAX_REQUESTS = 200  # of the server, in a window
_MAX_INVALID = 1_000  # lines that are no messages, since the last that was one
_MAX_LOGGED = 50  # lines of its standard error, in a window
_LINES_AT_ONCE = 100  # then other work has its turn
_SHOWN_CHARACTERS = 500
_HANDSHAKE = ("server/discover", "initialize")

_log = logging.getLogger("seawall.tools.mcp")


class _Pending(Struct, eq=False):
    answer: asyncio.Future[Message]
    method: str
    elicitations: Elicitations = field(default_factory=Elicitations)
    progress: str = ""


class _Window:
    """Counts what comes within a few seconds."""

    __slots__ = ("_ends_at", "count")

    def __init__(self) -> None:
        self._ends_at = 0.0
        self.count = 0

    def add(self) -> int:
        now = asyncio.get_running_loop().time()
        if now >= self._ends_at:
            self._ends_at = now + _WINDOW_SECONDS
            self.count = 0
        self.count += 1
        return self.count


class Channel:
    """The standard streams of a server.

    Attributes:
        reason: Why it has ended; empty before.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        name: str,
        limit: int,
        changed: Callable[[], None],
    ) -> None:
        """Create it.

        Args:
            process: The server, with pipes for all three streams.
            name: Of the source, for the log.
            limit: Bytes of a line.
            changed: Called when the server says that its tools have changed.
        """
        assert process.stdin is not None  # noqa: S101 - as the arguments say
        self._process = process
        self._input = process.stdin
        self._name = name
        self._limit = limit
        self._changed = changed
        self._numbers = itertools.count(1)
        self._pending: dict[int | str, _Pending] = {}
        self._abandoned: set[int | str] = set()  # given up, and not answered since
        self._messages = _Window()
        self._requests = _Window()
        self._invalid = 0
        self.reason = ""

    async def call(
        self,
        method: str,
        params: dict[str, Any],
        meta: dict[str, Any] | None = None,
        elicitations: Elicitations | None = None,
        *,
        deadline: float,
    ) -> Raw:
        """Send a request and wait for its answer; the result.

        Args:
            method: The method.
            params: Its parameters.
            meta: Of `_meta`; None if the parameters have it or need none.
            elicitations: Answers what the server asks meanwhile; None to decline it.
            deadline: In seconds on the event loop's clock.

        Raises:
            RpcError: The server answered with an error.
            UpstreamFault: It did not answer.
        """
        if len(self._pending) >= _MAX_PENDING:
            raise UpstreamFault("throttled", f"{_MAX_PENDING} requests are in progress")
        number = next(self._numbers)
        if meta is not None:
            params = {**params, "_meta": {"progressToken": number, **meta}}
        loop = asyncio.get_running_loop()
        pending = self._pending[number] = _Pending(
            loop.create_future(), method, elicitations or Elicitations()
        )
        try:
            self.write(encode_request(number, method, params))
            async with asyncio.timeout_at(deadline):
                message = await pending.answer
        except TimeoutError:
            self._give_up(number, pending)
            raise UpstreamFault("late", f"no answer to {method} in time") from None
        except asyncio.CancelledError:
            self._give_up(number, pending)
            raise
        finally:
            del self._pending[number]
        return message.outcome()

    def listen(self, meta: dict[str, Any]) -> None:
        """Have a modern server say when its tools change. Its answer comes at the end, if ever."""
        params = {"notifications": {"toolsListChanged": True}, "_meta": meta}
        self.write(encode_request(next(self._numbers), "subscriptions/listen", params))

    def write(self, message: bytes) -> None:
        """Send a message.

        Raises:
            UpstreamFault: The process does not read its input, or has ended.
        """
        if self.reason:
            raise UpstreamFault("unreachable", self.reason)
        if self._input.transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
            raise UpstreamFault("unreachable", "it does not read its input")
        self._input.write(message + b"\n")

    def end(self, reason: str) -> None:
        """Let everything fail that waits; for the first reason."""
        self.reason = self.reason or reason
        for pending in self._pending.values():
            if not pending.answer.done():
                pending.answer.set_exception(UpstreamFault("broken", self.reason))

    async def read(self) -> None:
        """Read both outputs of the process until it ends or breaks the protocol."""
        output, errors = self._process.stdout, self._process.stderr
        assert output is not None  # noqa: S101 - both are pipes
        assert errors is not None  # noqa: S101 - as above
        logging_errors = asyncio.create_task(self._log_errors(errors))
        try:
            await self._read_messages(output)
        finally:
            logging_errors.cancel()
            await asyncio.gather(logging_errors, return_exceptions=True)

    async def _read_messages(self, output: asyncio.StreamReader) -> None:
        while not self.reason:
            for _ in range(_LINES_AT_ONCE):
                try:
                    line = await output.readline()
                except ValueError:
                    self.end(f"it wrote a line of more than {self._limit} bytes")
                    return
                if not line:
                    self.end("it has ended")
                    return
                self._take_line(line)
                if self.reason:
                    return
            await asyncio.sleep(0)

    def _take_line(self, line: bytes) -> None:
        if self._messages.add() > _MAX_MESSAGES:
            self.end(f"it sent more than {_MAX_MESSAGES} messages in {_WINDOW_SECONDS:g} s")
            return
        if not line.strip():
            return
        try:
            messages = decode(line)
        except InvalidMessage as error:
            self._invalid += 1
            if self._invalid > _MAX_INVALID:
                self.end("it writes what is not a message on its standard output")
            elif self._invalid == 1:
                _log.warning("%s: a line that is not a message: %s", self._name, error)
            return
        self._invalid = 0
        for message in messages:
            self._take(message)

    def _take(self, message: Message) -> None:
        if message.is_answer:
            pending = self._pending.get(message.id) if message.id is not None else None
            if pending is not None and not pending.answer.done():
                pending.answer.set_result(message)
            elif message.id is not None and len(self._abandoned) < _MAX_PENDING:
                self._abandoned.discard(message.id)
        elif message.id is None:
            self._take_notification(message)
        elif self._requests.add() > _MAX_REQUESTS:
            self.end(f"it asked more than {_MAX_REQUESTS} times in {_WINDOW_SECONDS:g} s")
        else:
            # What it asks belongs to one call only if there is no other, nor one that it may still
            # work on although nothing waits for it: a question of one customer's call must not
            # get into the result of another's.
            calls = [each for each in self._pending.values() if each.method not in _HANDSHAKE]
            known = len(calls) == 1 and not self._abandoned
            try:
                self.write(
                    answer_request(message, calls[0].elicitations if known else Elicitations())
                )
            except UpstreamFault as fault:
                self.end(fault.detail)

    def _take_notification(self, message: Message) -> None:
        if is_listing_change(message):
            self._changed()
        elif (progress := progress_of(message)) is not None:
            pending = self._pending.get(progress[0])
            if pending is not None:
                pending.progress = progress[1]

    def _give_up(self, number: int, pending: _Pending) -> None:
        """Tell the server that nothing waits for an answer any more."""
        if pending.method in _HANDSHAKE or self.reason:
            return
        if len(self._abandoned) < _MAX_PENDING:  # beyond, none is taken out any more
            self._abandoned.add(number)
        if pending.progress:
            _log.info("%s: a call was given up; its progress was %s", self._name, pending.progress)
        params = {"requestId": number, "reason": "the turn does not wait any longer"}
        try:
            self.write(encode_notification("notifications/cancelled", params))
        except UpstreamFault as fault:
            _log.debug("%s: a call was not cancelled: %s", self._name, fault.detail)

    async def _log_errors(self, errors: asyncio.StreamReader) -> None:
        """Copy what the process writes to its standard error into the log."""
        logged = _Window()
        while True:
            try:
                line = await errors.readline()
            except ValueError:
                continue  # the line is too long; it is dropped
            if not line:
                return
            count = logged.add()
            text = printable(line.decode("utf-8", "replace").rstrip()[:_SHOWN_CHARACTERS])
            if count <= _MAX_LOGGED:
                _log.info("%s: %s", self._name, text)
            elif count == _MAX_LOGGED + 1:
                _log.info("%s: writes more than is logged", self._name)
            if count % _LINES_AT_ONCE == 0:
                await asyncio.sleep(0)
