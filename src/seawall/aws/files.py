"""Tokens that the platform keeps in files, and replaces there."""

import asyncio
from pathlib import Path

from seawall.aws.credentials import CredentialsUnavailable

__all__ = ["read_token"]

_MAX_BYTES = 65_536


async def read_token(path: str, variable: str) -> str:
    """The token in a file that an environment variable names; off the event loop.

    Raises:
        CredentialsUnavailable: the file cannot be read, or holds no token.
    """

    def read() -> bytes:
        with Path(path).open("rb") as file:
            return file.read(_MAX_BYTES + 1)

    try:
        found = await asyncio.to_thread(read)
        token = found.decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsUnavailable(f"{variable}: {path}: {type(error).__name__}") from None
    if not token or len(found) > _MAX_BYTES:
        raise CredentialsUnavailable(f"{variable}: {path}: empty, or longer than any token")
    return token
