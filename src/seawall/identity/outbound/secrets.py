"""Secrets of the configuration: in environment variables, or in files that may change."""

from collections.abc import Mapping
from pathlib import Path

from seawall.errors import ConfigError
from seawall.identity.outbound.port import CredentialsUnavailable

__all__ = ["Secret"]

_MAX_BYTES = 65_536


class Secret:
    """One secret. A file is read again when it was replaced or written (rotation)."""

    def __init__(
        self, variable: str, file: str, *, key: str, environment: Mapping[str, str]
    ) -> None:
        """Read it.

        Args:
            variable: Name of the environment variable; empty for a file.
            file: Path of the file; empty for a variable.
            key: The key of the configuration without its ending, for errors.
            environment: Environment variables.

        Raises:
            ConfigError: It is not there, or empty.
        """
        self._file = file
        self._key = f"{key}_file" if file else f"{key}_env"
        self._seen: tuple[int, ...] = ()
        self._value = ""
        if not file:
            self._value = environment.get(variable, "")
            if not self._value:
                raise ConfigError(f"{self._key}: the variable {variable} is not set")
            return
        try:
            self.value()
        except CredentialsUnavailable as error:
            raise ConfigError(error.detail) from None

    def value(self) -> str:
        """The secret, as the file has it now.

        Raises:
            CredentialsUnavailable: The file cannot be read, or is empty.
        """
        if not self._file:
            return self._value
        try:
            found = Path(self._file).stat()
            seen = (found.st_mtime_ns, found.st_ino, found.st_size)
            if seen != self._seen:
                self._value = self._read()
                self._seen = seen
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            raise CredentialsUnavailable(f"{self._key}: {self._file}: {reason}") from None
        return self._value

    def _read(self) -> str:
        with Path(self._file).open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise CredentialsUnavailable(f"{self._key}: {self._file}: exceeds {_MAX_BYTES} bytes")
        value = text.decode("utf-8-sig").strip()
        if not value:
            raise CredentialsUnavailable(f"{self._key}: {self._file}: is empty")
        return value

    def __repr__(self) -> str:
        return f"Secret({self._key})"
