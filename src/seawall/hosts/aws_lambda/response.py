"""The answer to one invocation, as the Runtime API takes it."""

import asyncio
import logging
import traceback

import msgspec

from seawall.hosts.aws_lambda.context import InvocationContext
from seawall.hosts.aws_lambda.runtime_api import ApiConnection, ApiError, ApiResponse

__all__ = ["InvocationResponse", "error_body", "error_kind"]

_log = logging.getLogger("seawall.lambda")
_MAX_MESSAGE_CHARACTERS = 10_000
_MAX_KIND_CHARACTERS = 256
_MAX_FRAMES = 50
_FAIL_SECONDS = 5.0


class InvocationResponse:
    """Given whole, in pieces, or as an error; implements `asgi.ResponseWriter`."""

    __slots__ = ("_begun", "_connection", "_context", "_done")

    def __init__(self, connection: ApiConnection, context: InvocationContext) -> None:
        self._connection = connection
        self._context = context
        self._begun = False
        self._done = False

    async def respond(self, payload: bytes) -> None:
        """Send a whole answer.

        Raises:
            ApiError: it was not taken.
        """
        self._check_open()
        self._done = True
        self._check(
            await self._connection.post(
                f"invocation/{self._context.aws_request_id}/response",
                payload,
                invocation_id=self._context.invocation_id,
            )
        )

    async def begin(self, content_type: str) -> None:
        """Begin a streamed answer.

        Raises:
            ApiError: it was not taken.
        """
        self._check_open()
        self._begun = True
        await self._connection.begin_stream(
            f"invocation/{self._context.aws_request_id}/response",
            content_type,
            self._context.invocation_id,
        )

    async def write(self, piece: bytes) -> None:
        """Send a piece of it.

        Raises:
            ApiError: it was not taken.
        """
        self._check_open()
        await self._connection.write(piece)

    async def end(self) -> None:
        """It is whole.

        Raises:
            ApiError: it was not taken.
        """
        self._check_open()
        self._done = True
        self._check(await self._connection.end_stream())

    async def fail(self, kind: str, error: BaseException) -> None:
        """Report that the invocation failed: by trailers where an answer has begun.

        Whatever goes on beside it cannot add to the answer afterwards.
        """
        if self._done:
            self._connection.close()  # an answer that was being given is not whole
            return
        self._done = True
        body = error_body(kind, error)
        try:
            async with asyncio.timeout(_FAIL_SECONDS):
                if self._begun:
                    self._check(await self._connection.end_stream(error_type=kind, error=body))
                else:
                    self._check(
                        await self._connection.post(
                            f"invocation/{self._context.aws_request_id}/error",
                            body,
                            error_type=kind,
                            invocation_id=self._context.invocation_id,
                        )
                    )
        except (ApiError, TimeoutError) as failure:
            _log.error("the failure could not be reported to Lambda: %s", failure)
            self._connection.close()

    def _check_open(self) -> None:
        if self._done:
            raise ApiError("the invocation is already answered")

    def _check(self, answer: ApiResponse) -> None:
        if answer.status >= 300:
            said = answer.body[:500].decode("utf-8", "replace")
            raise ApiError(f"the Runtime API answered with {answer.status}: {said}")


def error_kind(error: BaseException) -> str:
    """The type that an error is reported by: its code where it has one that is a text."""
    code = getattr(error, "code", None)
    return code if isinstance(code, str) and code else type(error).__name__


def error_body(kind: str, error: BaseException) -> bytes:
    """An error as AWS's own runtime describes it."""
    try:
        message = str(error)[:_MAX_MESSAGE_CHARACTERS]
    except Exception:  # noqa: BLE001 - another's code, which may do anything
        message = type(error).__name__
    trace = traceback.format_tb(error.__traceback__, limit=-_MAX_FRAMES)
    return msgspec.json.encode(
        {
            "errorMessage": _encodable(message),
            "errorType": _encodable(kind[:_MAX_KIND_CHARACTERS]),
            "stackTrace": [_encodable(each) for each in trace],
        }
    )


def _encodable(text: str) -> str:
    """Without lone surrogates, which no JSON in UTF-8 can have."""
    return text.encode("utf-8", "backslashreplace").decode()
