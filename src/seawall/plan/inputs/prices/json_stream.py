"""Reading large JSON documents member by member, in bounded memory."""

import json
from collections.abc import Iterator
from typing import IO, Any

from seawall.errors import ConfigError

__all__ = ["JsonStream"]

_LARGEST = 1 << 24  # of a value
_BLANK = " \t\r\n"
_NUMBER = "0123456789.eE+-"  # the empty text is in it


class JsonStream:
    """A JSON document that is read from its beginning to its end, once.

    Objects are entered (`members`), other values are read whole (`value`).

    Args:
        text: The document.
        name: Of the file, for errors.
        chunk: Characters that are read at once.
    """

    def __init__(self, text: IO[str], name: str, chunk: int = 1 << 20) -> None:
        self._text, self._name, self._chunk = text, name, chunk
        self._buffer, self._at, self._ended = "", 0, False
        self._decode = json.JSONDecoder().raw_decode

    def members(self) -> Iterator[str]:
        """The keys of the object that comes next; the value of each must be read before the next.

        Raises:
            ConfigError: No object comes next, or it is not JSON.
        """
        self._expect("{")
        if self._peek() == "}":
            self._at += 1
            return
        while True:
            if not isinstance(key := self.value(), str):
                raise self._error("a key is expected")
            self._expect(":")
            yield key
            if self._peek() == "}":
                self._at += 1
                return
            self._expect(",")

    def value(self) -> Any:  # noqa: ANN401 - whatever the document has there
        """The value that comes next. Raises ConfigError if it is not JSON, or too large."""
        self._peek()
        while True:
            try:
                found, end = self._decode(self._buffer, self._at)
            except RecursionError:
                raise self._error("nested too deep") from None
            except json.JSONDecodeError as error:
                if self._ended:
                    raise self._error(error.msg) from None
            except ValueError as error:  # a whole number of thousands of digits
                raise self._error(str(error)) from None
            else:
                # A number may go on, as far as the buffer shows.
                if self._ended or self._buffer[end : end + 1] not in _NUMBER:
                    self._at = end
                    return found
            if len(self._buffer) - self._at > _LARGEST:
                raise self._error(f"a value of more than {_LARGEST >> 20} million characters")
            self._read()

    def _peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            while self._at < len(self._buffer):
                if self._buffer[self._at] not in _BLANK:
                    self._fill()
                    return self._buffer[self._at]
                self._at += 1
            if self._ended:
                return ""
            self._read()

    def _expect(self, wanted: str) -> None:
        if (found := self._peek()) != wanted:
            raise self._error(f"{wanted!r} expected, {found!r} found" if found else "it is cut off")
        self._at += 1

    def _fill(self) -> None:
        """Have a good part of what follows in the buffer."""
        if len(self._buffer) - self._at < self._chunk // 2 and not self._ended:
            self._read()

    def _read(self) -> None:
        chunk = self._text.read(self._chunk)
        self._ended = not chunk
        self._buffer = self._buffer[self._at :] + chunk
        self._at = 0

    def _error(self, why: str) -> ConfigError:
        return ConfigError(f"{self._name}: not JSON: {why}")
