"""The response to one invocation, sent to the Runtime API."""

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
    """A response: complete, streamed, or an error. Implements `asgi.ResponseWriter`."""

    __slots__ = ("_begun", "_connection", "_context", "_done")

    def __init__(self, connection: ApiConnection, context: InvocationContext) -> None:
        self._connection = connection
        self._context = context
        self._begun = False
        self._done = False

    async def respond(self, payload: bytes) -> None:
        """Send a complete response.

        Raises:
            ApiError: The Runtime API did not accept it.
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
        """Begin a streamed response.

        Raises:
            ApiError: The Runtime API did not accept it.
        """
        self._check_open()
        self._begun = True
        await self._connection.begin_stream(
            f"invocation/{self._context.aws_request_id}/response",
            content_type,
            self._context.invocation_id,
        )

    async def write(self, piece: bytes) -> None:
        """Send a piece of a streamed response.

        Raises:
            ApiError: The Runtime API did not accept it.
        """
        self._check_open()
        await self._connection.write(piece)

    async def end(self) -> None:
        """End a streamed response.

        Raises:
            ApiError: The Runtime API did not accept it.
        """
        self._check_open()
        self._done = True
        self._check(await self._connection.end_stream())

    async def fail(self, kind: str, error: BaseException) -> None:
        """Report that the invocation failed; by trailers if a response has begun.

        Nothing can be added to the response afterwards.

        Args:
            kind: The type of the error.
            error: Its message and traceback are reported.
        """
        if self._done:
            self._connection.close()  # a response that was being sent is incomplete
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
            raise ApiError("the invocation was answered already")

    def _check(self, answer: ApiResponse) -> None:
        if answer.status >= 300:
            text = answer.body[:500].decode("utf-8", "replace")
            raise ApiError(f"the Runtime API answered with {answer.status}: {text}")


def error_kind(error: BaseException) -> str:
    """The type by which an error is reported: its code, if it has one, else its class."""
    code = getattr(error, "code", None)
    return code if isinstance(code, str) and code else type(error).__name__


def error_body(kind: str, error: BaseException) -> bytes:
    """An error in the format of AWS's runtime."""
    try:
        message = str(error)[:_MAX_MESSAGE_CHARACTERS]
    except Exception:  # noqa: BLE001 - user code may raise anything
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
    """Escape lone surrogates, which JSON in UTF-8 cannot contain."""
    return text.encode("utf-8", "backslashreplace").decode()
