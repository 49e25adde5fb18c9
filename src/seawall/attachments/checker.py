"""Checks files before they are stored: images and PDFs in a process of its own.

What decodes files that strangers made can take any time and memory, and a thread cannot be ended.
So one child process of each server process decodes, one file at a time, under limits of the
operating system; one that takes too long is killed. It has none of the server's environment, and
starts with the first file.
"""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import msgspec
from msgspec import Struct

from seawall.attachments.inspection import Inspected, Inspection
from seawall.attachments.media import PDF, TEXT, recognise, text_tokens
from seawall.attachments.owner_locks import OwnerLocks
from seawall.errors import InternalError, InvalidField, Overloaded
from seawall.settings import AttachmentSettings
from seawall.turn import Principal

__all__ = ["Checked", "Checker"]

_log = logging.getLogger("seawall.attachments")

_START_SECONDS = 15.0
_IDLE_SECONDS = 60.0
_MAX_FILES = 500  # then it is replaced: what a decoder leaks goes with it
_MAX_HEAD_BYTES = 4_096
_READ_BYTES = 1 << 16
_ENVIRONMENT = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TMPDIR")
_BOM = b"\xef\xbb\xbf"
_TIMED_OUT = "Reading the file took too long."


class Checked(Struct, frozen=True):
    """A file that is accepted, as it is stored.

    Attributes:
        content: Of an image, encoded anew.
        media_type: Of the content.
        tokens: About how many tokens a model reads for it.
    """

    content: bytes
    media_type: str
    tokens: int


class Checker:
    """Checks files, one at a time."""

    def __init__(self, settings: AttachmentSettings) -> None:
        """Create it; starts nothing.

        Args:
            settings: Bounds of files.
        """
        self._settings = settings
        self._process = asyncio.Lock()
        self._owners = OwnerLocks()
        self._child: asyncio.subprocess.Process | None = None
        self._files = 0
        self._idle: asyncio.TimerHandle | None = None

    async def check(self, content: bytes, field: str, owner: Principal | None = None) -> Checked:
        """Check a file. Each owner has one file in the queue: no owner delays the others.

        Args:
            content: Its bytes.
            field: For errors.
            owner: Whose file it is; None for no owner's.

        Raises:
            InvalidField: It is not accepted.
            Overloaded: Other files keep the process busy.
        """
        media_type = recognise(content, text_bytes=self._settings.text_bytes)
        if not media_type:
            raise InvalidField(
                "Is no file that is accepted: JPEG, PNG, WebP, GIF, PDF, or text in UTF-8.",
                field=field,
            )
        if media_type == TEXT:
            return self._text(content, field)
        asked = Inspection(
            media_type=media_type,
            pixels=self._settings.image_pixels,
            side=self._settings.image_side,
            pages=self._settings.pdf_pages,
            seconds=self._settings.decode_seconds,
            size=len(content),
        )
        async with self._turn_of(owner):
            answer, made = await self._inspect(asked, content)
        if answer.denied:
            _log.warning("a decoder of files was denied %r", answer.denied)
        if answer.fault:
            raise InvalidField(answer.fault, field=field)
        if media_type == PDF:
            return Checked(content, PDF, answer.tokens)
        return Checked(made, answer.media_type, answer.tokens)

    async def close(self) -> None:
        """End the child."""
        await self._end()

    def _text(self, content: bytes, field: str) -> Checked:
        content = content.removeprefix(_BOM)
        most = self._settings.text_bytes
        if len(content) > most:
            raise InvalidField(f"A text file may have {most} bytes at most.", field=field)
        return Checked(content, TEXT, text_tokens(len(content)))

    async def _inspect(self, asked: Inspection, content: bytes) -> tuple[Inspected, bytes]:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        try:
            return await self._exchange(asked, content)
        finally:
            if self._files >= _MAX_FILES:
                await self._end()
            elif self._child is not None:
                self._idle = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._kill)

    @asynccontextmanager
    async def _turn_of(self, owner: Principal | None) -> AsyncGenerator[None, None]:
        """The process, for one file; in the order in which owners came."""
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(4 * self._settings.decode_seconds):
                    await held.enter_async_context(self._owners.held(owner))
                    await held.enter_async_context(self._process)
            except TimeoutError as error:
                raise Overloaded("Too many files are being read.", retry_after=2.0) from error
            yield

    async def _exchange(self, asked: Inspection, content: bytes) -> tuple[Inspected, bytes]:
        child = await self._started()
        assert child.stdin is not None  # noqa: S101 - both are pipes
        assert child.stdout is not None  # noqa: S101 - likewise
        self._files += 1
        try:
            async with asyncio.timeout(self._settings.decode_seconds):
                head = msgspec.json.encode(asked)
                child.stdin.write(len(head).to_bytes(4) + head + content)
                await child.stdin.drain()
                size = int.from_bytes(await child.stdout.readexactly(4))
                if size > _MAX_HEAD_BYTES:
                    raise InternalError("The process that checks files has failed.")
                head = await child.stdout.readexactly(size)
                answer = msgspec.json.decode(head, type=Inspected)
                if answer.size > self._settings.max_bytes:
                    await self._end()  # what it still writes is not for the next file
                    return Inspected("The image is too large after it was encoded anew."), b""
                return answer, await child.stdout.readexactly(answer.size)
        except TimeoutError:
            await self._end()
            return Inspected(_TIMED_OUT), b""
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError):
            # It was ended by one of its limits, or a decoder has failed: by this file.
            await self._end()
            _log.warning("the process that checks files ended while it read one")
            return Inspected("The file cannot be read within the limits."), b""
        except BaseException:
            await self._end()
            raise

    async def _started(self) -> asyncio.subprocess.Process:
        if self._child is not None and self._child.returncode is None:
            return self._child
        self._files = 0
        environment = {each: os.environ[each] for each in _ENVIRONMENT if each in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(each for each in sys.path if each)
        megabytes = str(self._settings.decode_memory_mb)
        arguments = ("-P", "-B", "-m", "seawall.attachments.child", megabytes)
        try:
            self._child = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # a signal for the server's group is not for it
            )
        except OSError as error:  # no descriptors, processes or memory are left: now
            _log.warning("the process that checks files was not started: %s", error)
            raise Overloaded("Files cannot be read now.", retry_after=5.0) from error
        assert self._child.stdout is not None  # noqa: S101 - a pipe
        try:
            async with asyncio.timeout(_START_SECONDS):
                ready = await self._child.stdout.read(1)
        except TimeoutError:
            ready = b""
        except BaseException:
            await self._end()
            raise
        if ready != b"+":
            await self._end()
            raise InternalError("The process that checks files cannot be started.")
        return self._child

    def _kill(self) -> None:
        """End a child that has nothing to do; the event loop reaps it."""
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()

    async def _end(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        child = self._child
        self._child = None
        if child is None:
            return
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
        assert child.stdout is not None  # noqa: S101 - a pipe
        # The loop counts a process as ended when its output has been read to the end.
        while await child.stdout.read(_READ_BYTES):
            pass
        await child.wait()
