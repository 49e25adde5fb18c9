"""OpenAPI documents: files to JSON values, references followed.

References lead to parts of the document and to files beside it, never out of its folder and never
to the network.
"""

import posixpath
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct

from seawall.errors import ConfigError

__all__ = ["MAX_DOCUMENT_BYTES", "Document", "DocumentFault", "Node", "open_document"]

MAX_DOCUMENT_BYTES = 16 << 20
"""Of a document with all files that it refers to."""

_MAX_FILES = 4_096
_MAX_VALUES = 2_000_000
_MAX_STEPS = 32  # of references that lead to references
_VERSIONS = ("3.0", "3.1", "3.2")  # what 3.2 has added is not read

ReadFile = Callable[[str], bytes]


class DocumentFault(ConfigError):
    """A document, or a part of it, cannot be used; the message names file and part."""


class Node(Struct, frozen=True):
    """A part of a document.

    Attributes:
        value: The part.
        file: The file that it is in, relative to the document's folder.
        pointer: The JSON pointer that has led to it; empty for the file itself.
    """

    value: Any
    file: str
    pointer: str


class Document:
    """A document and the files beside it, which are read when a reference leads to them.

    Attributes:
        name: What errors call it.
        version: `openapi`, such as "3.0.3".
        root: The document itself.
    """

    def __init__(self, name: str, text: bytes, read_file: ReadFile | None) -> None:
        """Read a document.

        Args:
            name: What errors call it: a file name or an address.
            text: JSON or YAML.
            read_file: Reads a file by its path relative to the document's folder; None if there is
                nothing beside the document.

        Raises:
            DocumentFault: It is not OpenAPI 3.
        """
        self.name = name
        self._read_file = read_file
        self._bytes = 0
        self._files: dict[str, Any] = {}
        self._found: dict[tuple[str, str], Node] = {}
        root = self._files[""] = self._parsed(name, text)
        if not isinstance(root, dict):
            raise DocumentFault(f"{name}: it is not an OpenAPI document: no object")
        self.root: dict[str, Any] = root
        self.version = str(root.get("openapi", ""))
        if "swagger" in root and not self.version:
            raise DocumentFault(
                f"{name}: Swagger {root['swagger']!s:.10} is not supported; OpenAPI 3.0 and 3.1 "
                "are (tools such as swagger2openapi convert it)"
            )
        if self.version[:3] not in _VERSIONS or self.version[3:4] not in ("", "."):
            raise DocumentFault(
                f"{name}: `openapi` is {self.version[:20]!r}; supported are 3.0 and 3.1"
            )

    @property
    def siblings(self) -> bool:
        """Whether keywords beside `$ref` count."""
        return self.version[:3] != "3.0"

    def follow(self, value: Any, file: str = "") -> Node:  # noqa: ANN401 - JSON
        """The value itself, or what it refers to: never a reference, except to a schema's siblings.

        Args:
            value: A value of the document.
            file: The file that it is in.

        Raises:
            DocumentFault: A reference leads nowhere, out of the folder, or in a circle.
        """
        node = Node(value, file, "")
        for _ in range(_MAX_STEPS):
            if not isinstance(node.value, dict) or not isinstance(node.value.get("$ref"), str):
                return node
            node = self.resolve(node.value["$ref"], node.file)
        raise DocumentFault(f"{self._called(node.file)}: {node.pointer}: it refers to itself")

    def resolve(self, reference: str, file: str = "") -> Node:
        """What a reference leads to; it may be a reference again.

        Args:
            reference: The value of `$ref`.
            file: The file that it is in.

        Raises:
            DocumentFault: See `follow`.
        """
        found = self._found.get((file, reference))
        if found is None:
            found = self._found[file, reference] = self._resolve(reference, file)
        return found

    def _resolve(self, reference: str, file: str) -> Node:
        address, _, fragment = reference.partition("#")
        target = self._target(reference, address, file) if address else file
        pointer = unquote(fragment)
        if pointer and not pointer.startswith("/"):
            raise self._fault(file, reference, "names an anchor; only JSON pointers are followed")
        if target not in self._files:
            self._files[target] = self._opened(target, reference, file)
        value = self._files[target]
        for step in pointer.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and name in value:
                value = value[name]
            elif isinstance(value, list) and name.isdecimal() and int(name[:9]) < len(value):
                value = value[int(name[:9])]
            else:
                raise self._fault(file, reference, "leads nowhere")
        return Node(value, target, pointer)

    def _target(self, reference: str, address: str, file: str) -> str:
        """The path of a file, relative to the document's folder."""
        if urlsplit(address).scheme or address.startswith(("/", "\\")):
            raise self._fault(file, reference, "leads elsewhere; only files beside it are read")
        if self._read_file is None:
            raise self._fault(file, reference, "leads to a file; there is none beside an address")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(file), unquote(address)))
        if path.split("/", 1)[0] == ".." or "\0" in path or "\\" in path:
            raise self._fault(file, reference, "leads out of the document's folder")
        return "" if path == self.name else path

    def _opened(self, target: str, reference: str, file: str) -> Any:  # noqa: ANN401 - JSON
        assert self._read_file is not None  # noqa: S101 - else there would be no target
        if len(self._files) >= _MAX_FILES:
            raise self._fault(file, reference, f"leads to more than {_MAX_FILES} files")
        try:
            text = self._read_file(target)
        except OSError as error:
            raise self._fault(file, reference, f"cannot be read: {error.strerror}") from None
        return self._parsed(target, text)

    def _parsed(self, name: str, text: bytes) -> Any:  # noqa: ANN401 - JSON
        self._bytes += len(text)
        if self._bytes > MAX_DOCUMENT_BYTES:
            raise DocumentFault(
                f"{name}: it has more than {MAX_DOCUMENT_BYTES >> 20} MiB, files beside it included"
            )
        if sum(map(text.count, (b",", b"[", b"{"))) > _MAX_VALUES:  # before it takes the memory
            raise DocumentFault(f"{name}: it has more than {_MAX_VALUES} values")
        try:
            if text.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
                try:
                    return msgspec.json.decode(text.removeprefix(b"\xef\xbb\xbf"))
                except msgspec.DecodeError:
                    if name.endswith(".json"):
                        raise
            from seawall.tools.openapi.yaml_reader import (  # noqa: PLC0415 - not for JSON
                MalformedYaml,
                read_yaml,
            )

            try:
                return read_yaml(text, max_nodes=_MAX_VALUES)
            except MalformedYaml as error:
                raise DocumentFault(f"{name}: {error}") from None
        except msgspec.DecodeError as error:
            raise DocumentFault(f"{name}: {error}") from None
        except RecursionError:
            raise DocumentFault(f"{name}: it is nested too deeply") from None

    def _fault(self, file: str, reference: str, fault: str) -> DocumentFault:
        return DocumentFault(f"{self._called(file)}: $ref {reference[:200]!r} {fault}")

    def _called(self, file: str) -> str:
        return file or self.name


def open_document(path: Path) -> Document:
    """Read a document from a file; references may lead to files in its folder.

    Args:
        path: The file.

    Raises:
        DocumentFault: It cannot be read, or is not OpenAPI 3.
    """
    folder = path.parent.resolve()

    def read_file(name: str) -> bytes:
        found = (folder / name).resolve()
        if not found.is_relative_to(folder):
            raise PermissionError(0, "it is outside the document's folder")
        return _bytes_of(found)

    try:
        text = _bytes_of(path)
    except OSError as error:
        raise DocumentFault(f"{path}: it cannot be read: {error.strerror}") from None
    return Document(path.name, text, read_file)


def _bytes_of(path: Path) -> bytes:
    """A file's bytes; one more than allowed at most."""
    if not path.is_file():
        raise FileNotFoundError(0, "there is no such file")
    with path.open("rb") as file:
        return file.read(MAX_DOCUMENT_BYTES + 1)
