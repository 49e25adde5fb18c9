"""The other workers of the server: any of them answers the console for all.

Each worker has a Unix socket in a folder that only this user can enter. A question is one line of
JSON, and so is the answer; a worker that does not answer in time is left out.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

__all__ = ["Peers", "Question"]

_log = logging.getLogger("seawall.console")
_MAX_PATH_BYTES = 100  # of a socket's address
_MAX_ANSWER_BYTES = 33_554_432
_MAX_QUESTION_BYTES = 65_536
_SECONDS = 2.0

T = TypeVar("T", bound=Struct)


class Question(Struct, omit_defaults=True):
    """What a worker is asked; exactly one but `content` is given.

    Attributes:
        after: Samples since this second.
        search: Recent turns, by the values of their fields.
        turn: The turn with this id.
        content: Whether its events are wanted as well.
        logins: The logins that it has seen are wanted; "anew" if one of them was ended.
        surge: Its surge is wanted; the one with this id, unless it is empty, is to be stopped.
    """

    after: int | None = None
    search: dict[str, str] | None = None
    turn: str | None = None
    content: bool = False
    logins: str | None = None
    surge: str | None = None


Answering = Callable[[Question], Struct]


class Peers:
    """Asks all workers, this one directly."""

    def __init__(self, index: int, folder: Path | None, answer: Answering) -> None:
        """Create it; `open` makes this worker one that others ask.

        Args:
            index: Of this worker.
            folder: Shared by the workers of this server; None for a process by itself.
            answer: Answers the questions to this worker.
        """
        self._index = index
        self._folder = folder
        self._answer = answer
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Answer questions of others from now on."""
        if self._folder is None:
            return
        path = self._path(self._index)
        if len(bytes(path)) > _MAX_PATH_BYTES:
            _log.warning("%s is too long for a socket: the console shows single workers", path)
            self._folder = None
            return
        path.unlink(missing_ok=True)  # of a worker that this one replaces
        self._server = await asyncio.start_unix_server(self._serve, path, limit=_MAX_QUESTION_BYTES)

    async def close(self) -> None:
        """Answer no more questions."""
        if self._server is not None:
            self._server.close()
            with suppress(OSError):
                self._path(self._index).unlink()

    async def ask(
        self, question: Question, kind: type[T], *, seconds: float = _SECONDS
    ) -> dict[int, T]:
        """The answers of all workers, by index.

        Args:
            question: What they are asked.
            kind: Type of the answers.
            seconds: How long a worker may take; one that takes longer is left out.
        """
        answers: dict[int, T] = {}
        own = self._answer(question)
        assert isinstance(own, kind)  # noqa: S101 - a question has one kind of answer
        answers[self._index] = own
        if self._folder is None:
            return answers
        others = [
            int(number)
            for each in self._folder.glob("console-*.sock")
            if (number := each.stem.removeprefix("console-")).isdecimal()
        ]
        line = msgspec.json.encode(question) + b"\n"
        decoder = msgspec.json.Decoder(kind)

        async def ask(index: int) -> None:
            with suppress(OSError, TimeoutError, ValueError, msgspec.MsgspecError):
                async with asyncio.timeout(seconds):
                    answers[index] = decoder.decode(await self._ask(index, line))

        async with asyncio.TaskGroup() as group:
            for index in others:
                if index != self._index:
                    group.create_task(ask(index))
        return dict(sorted(answers.items()))

    async def _ask(self, index: int, line: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(
            self._path(index), limit=_MAX_ANSWER_BYTES
        )
        try:
            writer.write(line)
            await writer.drain()
            return await reader.readline()
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                question = msgspec.json.decode(await reader.readline(), type=Question)
                writer.write(msgspec.json.encode(self._answer(question)) + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            _log.info("a question of another worker was not answered: %s", error)
        finally:
            writer.close()

    def _path(self, index: int) -> Path:
        assert self._folder is not None  # noqa: S101 - only with one
        return self._folder / f"console-{index}.sock"
