"""The answer to one invocation, as the Runtime API takes it."""

import logging
import traceback

import msgspec

from seawall.hosts.aws_lambda.context import InvocationContext
from seawall.hosts.aws_lambda.runtime_api import ApiAnswer, ApiConnection, ApiError

__all__ = ["Answer", "error_body"]

_log = logging.getLogger("seawall.lambda")
_MAX_MESSAGE_CHARACTERS = 10_000


class Answer:
    """Given whole, in pieces, or as an error; implements `asgi.Answering`."""

    __slots__ = ("_begun", "_connection", "_context", "_done")

    def __init__(self, connection: ApiConnection, context: InvocationContext) -> None:
        self._connection = connection
        self._context = context
        self._begun = False
        self._done = False

    async def whole(self, payload: bytes) -> None:
        """Send a whole answer.

        Raises:
            ApiError: it was not taken.
        """
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
        await self._connection.write(piece)

    async def end(self) -> None:
        """It is whole.

        Raises:
            ApiError: it was not taken.
        """
        self._done = True
        self._check(await self._connection.end_stream())

    async def fail(self, kind: str, error: BaseException) -> None:
        """Say that the invocation failed: by trailers where an answer has begun."""
        if self._done:
            return
        self._done = True
        body = error_body(kind, error)
        try:
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
        except ApiError as unheard:
            _log.error("Lambda could not be told of the failure: %s", unheard)
            self._connection.close()

    def _check(self, answer: ApiAnswer) -> None:
        if answer.status >= 300:
            said = answer.body[:500].decode("utf-8", "replace")
            raise ApiError(f"the Runtime API answered with {answer.status}: {said}")


def error_body(kind: str, error: BaseException) -> bytes:
    """An error as AWS's own runtime describes it."""
    return msgspec.json.encode(
        {
            "errorMessage": str(error)[:_MAX_MESSAGE_CHARACTERS],
            "errorType": kind,
            "stackTrace": traceback.format_tb(error.__traceback__),
        }
    )
