"""Which operations of a document are tools, and what they are called."""

import difflib
import hashlib
import re
from collections.abc import Container, Iterable, Sequence

from msgspec import Struct

from seawall.printable import printable
from seawall.tools.openapi.document import Document, DocumentFault, Node

__all__ = ["Chosen", "argument_name", "choose", "name_operation"]

_METHODS = ("get", "head", "post", "put", "patch", "delete", "options", "trace")
_MOST_CHOSEN = 2_000
_LONGEST_NAME = 64
_MOST_OF_A_NAME = 100
_SHOWN = 3  # near matches
_MOST_NAMES = 20_000  # that near matches are looked for among
_unnamed = re.compile(r"[^a-zA-Z0-9_-]+")
_unargued = re.compile(r"[^a-zA-Z0-9_.-]+")
_method = re.compile(r"([A-Za-z]+) +(/.*)")


class Chosen(Struct, frozen=True):
    """An operation of a document, not yet read.

    Attributes:
        method: In upper case.
        path: Its template.
        item: The path's entry.
        operation: The operation itself, which may be in another file.
        explicit: Whether it was chosen by its own name, not by a tag or with all others.
    """

    method: str
    path: str
    item: Node
    operation: Node
    explicit: bool = False

    @property
    def reference(self) -> str:
        """Its method and path, as `include` names them."""
        return f"{self.method} {self.path}"

    @property
    def operation_id(self) -> str:
        """Its `operationId`; empty if it has none, or one that reads as something else.

        Else an operation could get in, or be changed, by what the configuration says of another.
        """
        given = self.operation.value.get("operationId")
        if not isinstance(given, str) or given == "*" or given.startswith("tag:"):
            return ""
        return "" if _method.match(given) else given

    @property
    def tags(self) -> tuple[str, ...]:
        """Its tags."""
        given = self.operation.value.get("tags")
        return tuple(map(str, given)) if isinstance(given, list) else ()


def choose(document: Document, include: Sequence[str]) -> list[Chosen]:
    """The operations that an allow-list names, in the order of the document.

    Args:
        document: The document.
        include: Values of `operationId`, "METHOD /path", "tag:NAME", "*" for all, or names that
            `name_operation` gives.

    Raises:
        DocumentFault: An entry names nothing, or too many are chosen; or the document has no paths.
    """
    operations = list(_operations(document))
    by_entry = _by_entry(operations)
    chosen: dict[int, bool] = {}
    for entry in include:
        written = _method.fullmatch(entry)
        known = f"{written[1].upper()} {written[2]}" if written else entry
        if known not in by_entry:
            near = _near(known, by_entry)
            raise DocumentFault(
                f"{document.name}: include: it has no operation {entry[:200]!r}{near}"
            )
        explicit = known != "*" and not known.startswith("tag:")
        for index in by_entry[known]:
            chosen[index] = chosen.get(index, False) or explicit
    if len(chosen) > _MOST_CHOSEN:
        raise DocumentFault(
            f"{document.name}: include: {len(chosen)} operations are chosen; at most "
            f"{_MOST_CHOSEN} can be"
        )
    return [
        Chosen(each.method, each.path, each.item, each.operation, chosen[index])
        for index, each in enumerate(operations)
        if index in chosen
    ]


def _by_entry(operations: Sequence[Chosen]) -> dict[str, list[int]]:
    """The operations that each possible entry of an allow-list names, as indices."""
    found: dict[str, list[int]] = {"*": list(range(len(operations)))}
    names: dict[str, list[int]] = {}
    for index, each in enumerate(operations):
        for entry in (each.operation_id, each.reference, *(f"tag:{tag}" for tag in each.tags)):
            if entry:
                found.setdefault(entry, []).append(index)
        names.setdefault(name_operation(each), []).append(index)
    return names | found


def _operations(document: Document) -> Iterable[Chosen]:
    paths = document.root.get("paths")
    if not isinstance(paths, dict) or not paths:
        raise DocumentFault(f"{document.name}: it has no paths")
    for path, value in paths.items():
        if not path.startswith("/") or not isinstance(value, dict):
            continue  # an extension
        item = Node(value, "", "")
        if "$ref" in value:
            found = document.follow(value)
            if not isinstance(found.value, dict):
                continue
            item = Node({**found.value, **value}, found.file, found.pointer)
        for method in _METHODS:
            if isinstance(item.value.get(method), dict):
                operation = document.follow(item.value[method], item.file)
                if isinstance(operation.value, dict):
                    yield Chosen(method.upper(), path, item, operation)


def _near(entry: str, known: Iterable[str]) -> str:
    names = [each for _, each in zip(range(_MOST_NAMES), known, strict=False)]
    folded = {each.casefold(): each for each in names}
    close = difflib.get_close_matches(entry[:200].casefold(), list(folded), _SHOWN, 0.6)
    close += [f"tag:{entry}".casefold()] if f"tag:{entry}".casefold() in folded else []
    if not close:
        return ""
    found = ", ".join(f'"{folded[each][:200]}"' for each in dict.fromkeys(close))
    return f"; near are {printable(found)}"


def name_operation(operation: Chosen) -> str:
    """A name that models accept, of the `operationId` or else of method and path."""
    return _cut(_unnamed.sub("_", operation.operation_id).strip("_")) or _cut(
        _unnamed.sub("_", f"{operation.method.lower()}{operation.path}").strip("_")
    )


def argument_name(name: str, location: str, taken: Container[str]) -> str:
    """A name that models accept for a parameter or a property of the body.

    Args:
        name: As the document has it.
        location: Where it is sent; it distinguishes two of one name.
        taken: The names that are in use.
    """
    short = _unargued.sub("_", name)
    short = _cut(short if short and short == name else short.strip("_") or "argument")
    if short not in taken:
        return short
    for ending in ("", *range(2, _MOST_OF_A_NAME)):
        if (candidate := _cut(f"{short}_{location}{ending}")) not in taken:
            return candidate
    raise DocumentFault(f"too many parameters are called {name[:80]!r}")


def _cut(name: str) -> str:
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - 9]}_{digest}"
