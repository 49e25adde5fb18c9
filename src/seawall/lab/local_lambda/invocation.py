"""An invocation, between its caller and the environment that answers it."""

import asyncio
from collections.abc import AsyncGenerator

import msgspec
from msgspec import Struct

__all__ = ["FunctionError", "Head", "Invocation", "error_body"]

_MAX_BUFFERED_PIECES = 64


class FunctionError(Exception):
    """The function failed; `body` is what AWS shows the caller, `kind` its error type."""

    def __init__(self, kind: str, body: bytes) -> None:
        super().__init__(f"{kind}: {body[:500].decode('utf-8', 'replace')}")
        self.kind = kind
        self.body = body


class Head(Struct, frozen=True):
    """The start of a response."""

    content_type: str
    streaming: bool


class Invocation:
    """An invocation, answered by an environment piece by piece.

    Attributes:
        id: Request id.
        payload: The event.
        deadline: On the event loop's clock.
        deadline_ms: Milliseconds since the epoch, for the environment.
        trace: Trace header.
        client_context: Of the caller, in base64.
        answering: Whether a response has begun.
        cold: Whether an environment was started for it.
        environment_started_at: When that was, on the event loop's clock.
        first_byte_at: When the response began; 0 before.
        ended_at: When it ended; 0 before.
        returned: Whether the environment ended before it received the invocation.
        ended: Whether the response is complete, or the function has failed.
    """

    def __init__(
        self, request_id: str, payload: bytes, *, deadline: float, deadline_ms: int, trace: str
    ) -> None:
        self.id = request_id
        self.payload = payload
        self.deadline = deadline
        self.deadline_ms = deadline_ms
        self.trace = trace
        self.client_context = ""
        self.answering = False
        self.cold = False
        self.environment_started_at = 0.0
        self.first_byte_at = 0.0
        self.ended_at = 0.0
        self._abandoned = False
        self._head: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        self._pieces: asyncio.Queue[bytes | FunctionError | None] = asyncio.Queue(
            _MAX_BUFFERED_PIECES
        )
        self.returned = False
        self.ended = False
        self._done = asyncio.Event()
        self._last: FunctionError | None = None

    # For the environment.

    @property
    def failed(self) -> bool:
        """Whether it ended with an error of the function."""
        return self.ended and self._last is not None

    def begin(self, head: Head) -> None:
        """Begin the response."""
        if not self._head.done():
            self._head.set_result(head)

    async def put(self, piece: bytes) -> None:
        """Add a piece of the response; waits for a slow caller, not for a disconnected one."""
        if not self.first_byte_at:
            self.first_byte_at = asyncio.get_running_loop().time()
        if not self._abandoned:
            await self._pieces.put(piece)

    def finish(self, error: FunctionError | None = None) -> None:
        """End the response, or fail the invocation; only the first call has an effect."""
        if self.ended:
            return
        self.ended_at = asyncio.get_running_loop().time()
        self.ended = True
        self._done.set()
        self._last = error
        if not self._head.done():
            if error is not None:
                self._head.set_exception(error)
                self._head.exception()  # mark it as retrieved: the caller may have gone
                return
            self._head.set_result(Head("application/json", streaming=False))
        if self._pieces.full() and self._abandoned:
            self._pieces = asyncio.Queue()
        if not self._pieces.full():
            self._pieces.put_nowait(error)

    def return_undelivered(self) -> None:
        """Return it to the function: its environment ended before it received the invocation."""
        self.returned = True
        self._done.set()

    async def wait(self) -> None:
        """Wait until it has ended or was returned."""
        self._done.clear()
        if not (self.ended or self.returned):
            await self._done.wait()

    # For the caller.

    async def head(self) -> Head:
        """Wait for the response to begin.

        Raises:
            FunctionError: The function failed before that.
        """
        return await asyncio.shield(self._head)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The response as it arrives.

        Raises:
            FunctionError: The function failed within the response.
        """
        while True:
            if self.ended and self._pieces.empty():
                piece: bytes | FunctionError | None = self._last
            else:
                piece = await self._pieces.get()
            if piece is None:
                return
            if isinstance(piece, FunctionError):
                raise piece
            yield piece

    async def whole(self) -> bytes:
        """The whole response.

        Raises:
            FunctionError: The function failed.
        """
        await self.head()
        return b"".join([piece async for piece in self.pieces()])

    def abandon(self) -> None:
        """The caller disconnected: the function continues, its response is discarded."""
        self._abandoned = True
        while not self._pieces.empty():
            self._pieces.get_nowait()


def error_body(kind: str, message: str) -> bytes:
    """The error that AWS returns to the caller of a failed function."""
    return msgspec.json.encode({"errorType": kind, "errorMessage": message})
