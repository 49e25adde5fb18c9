"""The file of a person who has signed in: the client, and the tokens; mode 0600."""

import asyncio
import fcntl
import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from seawall.identity.outbound.port import CredentialsUnavailable
from seawall.identity.outbound.registration import RegisteredClient

__all__ = ["Login", "LoginFile"]

_MAX_BYTES = 65_536
_LOCK_SECONDS = 0.05


class Login(Struct, frozen=True):
    """What signing in has given.

    Attributes:
        resource: The MCP server.
        issuer: The authorization server.
        client: As which client; None for the one that is configured.
        access_token: The last one.
        expires_at: Of that, Unix seconds.
        refresh_token: For the next one; empty if there was none.
        scope: What was asked for.
    """

    resource: str
    issuer: str
    client: RegisteredClient | None
    access_token: str
    expires_at: float
    refresh_token: str = ""
    scope: str = ""

    def __repr__(self) -> str:
        return f"Login({self.resource!r}, {self.issuer!r})"


class LoginFile:
    """Reads and replaces the file; one process at a time may renew what is in it."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def read(self) -> Login:
        """What is in it.

        Raises:
            CredentialsUnavailable: There is none, or it cannot be read, or others can read it.
        """
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise CredentialsUnavailable(
                        f"{self._path}: other users may read it: chmod 600, and sign in again"
                    )
                return msgspec.json.decode(file.read(_MAX_BYTES), type=Login)
        except FileNotFoundError:
            raise CredentialsUnavailable(
                f"{self._path}: there is no sign-in yet: seawall tools login"
            ) from None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CredentialsUnavailable(f"{self._path}: {error}") from None

    def write(self, login: Login) -> None:
        """Replace the file.

        Raises:
            CredentialsUnavailable: It cannot be written.
        """
        try:
            descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
            try:
                with os.fdopen(descriptor, "wb") as file:  # mkstemp: mode 0600
                    file.write(msgspec.json.encode(login))
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(self._path)
            except BaseException:
                with suppress(OSError):
                    Path(name).unlink()
                raise
        except OSError as error:
            raise CredentialsUnavailable(f"{self._path}: {error.strerror}") from None

    @asynccontextmanager
    async def locked(self, *, deadline: float) -> AsyncGenerator[None, None]:
        """Keep other processes from renewing: a refresh token is often good for one use.

        Args:
            deadline: For getting the lock, on the event loop's clock.

        Raises:
            CredentialsUnavailable: Another process has it for too long.
        """
        clock = asyncio.get_running_loop().time
        try:
            descriptor = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise CredentialsUnavailable(f"{self._path}.lock: {error.strerror}") from None
        try:
            while not _lock(descriptor):
                if clock() >= deadline:
                    raise CredentialsUnavailable(f"{self._path}: another process is renewing it")
                await asyncio.sleep(_LOCK_SECONDS)
            yield
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
