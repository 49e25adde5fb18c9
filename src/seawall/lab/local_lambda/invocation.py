"""One invocation between whoever called and the environment that answers."""

import asyncio
from collections.abc import AsyncGenerator

import msgspec
from msgspec import Struct

__all__ = ["FunctionError", "Head", "Invocation", "error_body"]

_MAX_BUFFERED_PIECES = 64  # pieces of an answer that its reader has not taken yet


class FunctionError(Exception):
    """The function failed; `body` is what AWS shows the caller, `kind` its error type."""

    def __init__(self, kind: str, body: bytes) -> None:
        super().__init__(f"{kind}: {body[:500].decode('utf-8', 'replace')}")
        self.kind = kind
        self.body = body


class Head(Struct, frozen=True):
    """How an answer begins."""

    content_type: str
    streaming: bool


class Invocation:
    """Given to an environment, answered by it piece by piece.

    deadline: on the event loop's clock. first_byte_at, ended_at: on that clock, 0 until then.
    ended: nothing more comes. cold: an environment was started for it. returned: the environment
    that was to answer ended before it was told of it.
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
        """The answer begins."""
        if not self._head.done():
            self._head.set_result(head)

    async def put(self, piece: bytes) -> None:
        """A piece of the answer; waits for a caller that is slow, not for one that has gone."""
        if not self.first_byte_at:
            self.first_byte_at = asyncio.get_running_loop().time()
        if not self._abandoned:
            await self._pieces.put(piece)

    def finish(self, error: FunctionError | None = None) -> None:
        """The answer is whole, or the function has failed; the first word counts."""
        if self.ended:
            return
        self.ended_at = asyncio.get_running_loop().time()
        self.ended = True
        self._done.set()
        self._last = error
        if not self._head.done():
            if error is not None:
                self._head.set_exception(error)
                self._head.exception()  # known: a caller may have gone
                return
            self._head.set_result(Head("application/json", streaming=False))
        if self._pieces.full() and self._abandoned:
            self._pieces = asyncio.Queue()
        if not self._pieces.full():
            self._pieces.put_nowait(error)

    def return_undelivered(self) -> None:
        """The environment has ended without having seen it."""
        self.returned = True
        self._done.set()

    async def wait(self) -> None:
        """Wait until nothing more comes, or it is handed back."""
        self._done.clear()
        if not (self.ended or self.returned):
            await self._done.wait()

    # For the caller.

    async def head(self) -> Head:
        """Wait for the answer to begin.

        Raises:
            FunctionError: the function failed before it.
        """
        return await asyncio.shield(self._head)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The answer as it comes.

        Raises:
            FunctionError: the function failed in the middle.
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
        """The whole answer.

        Raises:
            FunctionError: the function failed.
        """
        await self.head()
        return b"".join([piece async for piece in self.pieces()])

    def abandon(self) -> None:
        """The caller has gone: the function goes on, nobody reads what it says."""
        self._abandoned = True
        while not self._pieces.empty():
            self._pieces.get_nowait()


def error_body(kind: str, message: str) -> bytes:
    """What AWS shows a caller of a function that failed."""
    return msgspec.json.encode({"errorType": kind, "errorMessage": message})
