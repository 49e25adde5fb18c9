"""Operations of a document: what a model sees of each, and how its arguments are sent."""

import re
from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import urljoin

from msgspec import Struct

from seawall.printable import printable
from seawall.tools.openapi.bodies import Body, is_media_type, read_body
from seawall.tools.openapi.document import Document, DocumentFault
from seawall.tools.openapi.parameters import (
    Arguments,
    Parameter,
    is_json,
    read_parameters,
    read_path,
)
from seawall.tools.openapi.schemas import SchemaReader
from seawall.tools.openapi.selection import Chosen, choose, name_operation
from seawall.transport.http_client import Endpoint

__all__ = ["Operation", "Operations", "read_operations"]

_READS = ("GET", "HEAD")
_SHOWN = 200  # characters of a path in a message
_LONGEST_DESCRIPTION = 1_024  # characters; OpenAI refuses longer ones
# What the client itself sends; the document has no say in it (and says nothing of it, by the
# specification, with `Accept`, `Content-Type` and `Authorization`).
_OWN_HEADERS = frozenset(
    {"accept", "accept-encoding", "authorization", "connection", "content-length", "content-type"}
    | {"cookie", "expect", "host", "keep-alive", "proxy-authorization", "proxy-connection", "te"}
    | {"trailer", "transfer-encoding", "upgrade"}
)
_variable = re.compile(r"\{([^{}]*)\}")


class Operation(Struct, frozen=True):
    """An operation.

    Attributes:
        name: What models call it.
        reference: Its method and path.
        operation_id: As the document has it; empty if it has none.
        description: For models.
        schema: Of the arguments: an object.
        changes: Whether it is an effect.
        method: Of its request.
        server: The address that its path follows.
        path: Text and arguments of its path, alternating: text first and last.
        parameters: Its parameters.
        body: Its body, if it has one.
        accept: The types of answers that it has.
        key_header: The header that carries the idempotency key; empty for none.
    """

    name: str
    reference: str
    operation_id: str
    description: str
    schema: dict[str, Any]
    changes: bool
    method: str
    server: str
    path: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    body: Body | None
    accept: str
    key_header: str


class Operations(Struct, frozen=True):
    """Chosen operations of a document.

    Attributes:
        usable: The operations.
        skipped: Why others cannot be used that were chosen by a tag or by "*".
    """

    usable: tuple[Operation, ...]
    skipped: tuple[str, ...]


def read_operations(
    document: Document,
    include: Sequence[str],
    *,
    base_url: str = "",
    location: str = "",
    headers: Collection[str] = (),
    key_header: str = "Idempotency-Key",
    hidden: Collection[tuple[str, str]] = (),
) -> Operations:
    """The operations that an allow-list names.

    Args:
        document: The document.
        include: See `choose`.
        base_url: The address that all paths follow; by default what the document's `servers` say.
        location: The address that the document comes from, to which its servers may be relative.
        headers: Names of headers that are sent with every request; they are no arguments.
        key_header: The header that carries the idempotency key, which is no argument; empty for
            none.
        hidden: Location ("query" or "cookie") and name of parameters that are no arguments.

    Raises:
        DocumentFault: An entry names nothing, two operations would have the same name, or one that
            is named explicitly cannot be used; the message says why.
    """
    chosen = choose(document, include)
    hidden = {("header", each.lower()) for each in (*headers, key_header, *_OWN_HEADERS)} | {
        *hidden
    }
    reader = _OperationReader(document, base_url, location, hidden, key_header)
    usable: dict[str, Operation] = {}
    skipped: list[str] = []
    for each in chosen:
        try:
            operation = reader.read(each)
        except DocumentFault as fault:
            why = printable(f"{each.reference[:_SHOWN]}: {fault}")
            if each.explicit:
                raise DocumentFault(f"{document.name}: {why}") from None
            skipped.append(why)
            continue
        if (other := usable.get(operation.name)) is not None:
            raise DocumentFault(
                f"{document.name}: include: {printable(other.reference[:_SHOWN])} and "
                f"{printable(each.reference[:_SHOWN])} would both be called {operation.name!r}; "
                "include one of them"
            )
        usable[operation.name] = operation
    if not usable and skipped:
        raise DocumentFault(f"{document.name}: no operation can be used; {skipped[0]}")
    return Operations(tuple(usable.values()), tuple(skipped))


class _OperationReader:
    """Reads operations of one document."""

    def __init__(
        self,
        document: Document,
        base_url: str,
        location: str,
        hidden: Collection[tuple[str, str]],
        key_header: str,
    ) -> None:
        self._document = document
        self._base_url = base_url
        self._location = location
        self._key_header = key_header
        self._hidden = {*hidden, *_credentials(document)}
        self._schemas = SchemaReader(document)

    def read(self, chosen: Chosen) -> Operation:
        """Read an operation.

        Raises:
            DocumentFault: It cannot be used.
        """
        arguments = Arguments()
        parameters = read_parameters(self._document, self._schemas, chosen, self._hidden, arguments)
        path = read_path(chosen.path, parameters, arguments)
        body = None
        operation = chosen.operation
        if "requestBody" in operation.value:
            given = operation.value["requestBody"]
            body = read_body(self._document, self._schemas, given, operation.file, arguments)
        schema: dict[str, Any] = {"type": "object", "properties": arguments.properties}
        if arguments.required:
            schema["required"] = arguments.required
        schema["additionalProperties"] = False
        if arguments.refers:
            schema["$defs"] = self._schemas.definitions(arguments.refers)
        return Operation(
            name=name_operation(chosen),
            reference=chosen.reference,
            operation_id=chosen.operation_id,
            description=_description(chosen),
            schema=schema,
            changes=chosen.method not in _READS,
            method=chosen.method,
            server=self._server(chosen),
            path=path,
            parameters=tuple(parameters),
            body=body,
            accept=self._accept(chosen),
            key_header=self._key_header,
        )

    def _server(self, chosen: Chosen) -> str:
        if self._base_url:
            return self._base_url.rstrip("/")
        for owner in (chosen.operation.value, chosen.item.value, self._document.root):
            servers = owner.get("servers")
            if isinstance(servers, list) and servers and isinstance(servers[0], dict):
                said = _server_url(servers[0])
                break
        else:
            said = "/"
        try:
            url = urljoin(self._location, said)
            Endpoint.parse(url)
        except ValueError as error:
            raise DocumentFault(
                f"the document names no server with a whole address ({str(error)[:200]}); set "
                "base_url"
            ) from None
        if "?" in url or "#" in url:
            raise DocumentFault("its server's address has a query or a fragment; set base_url")
        return url.rstrip("/")

    def _accept(self, chosen: Chosen) -> str:
        """The types of successful answers, JSON first."""
        responses = chosen.operation.value.get("responses")
        types: dict[str, None] = {}
        for status, each in responses.items() if isinstance(responses, dict) else ():
            if not (status.startswith("2") or status == "default"):
                continue
            try:
                response = self._document.follow(each, chosen.operation.file).value
            except DocumentFault:  # answers are read by the type that they have
                continue
            content = response.get("content") if isinstance(response, dict) else None
            if isinstance(content, dict):
                types |= dict.fromkeys(filter(is_media_type, content))
        ordered = sorted(types, key=lambda each: not is_json(each))[:8]
        return ", ".join([*ordered, "*/*;q=0.1"]) if ordered else "application/json, */*;q=0.1"


def _server_url(server: dict[str, Any]) -> str:
    """A server's address, its variables replaced by their defaults."""
    variables = server.get("variables")

    def default(expression: re.Match[str]) -> str:
        variable = variables.get(expression[1]) if isinstance(variables, dict) else None
        value = variable.get("default") if isinstance(variable, dict) else None
        if not isinstance(value, str | int):
            raise DocumentFault(
                f"the variable {expression[1][:40]!r} of its server has no default; set base_url"
            )
        return str(value)

    address: str = _variable.sub(default, str(server.get("url", "/")))
    return address


def _credentials(document: Document) -> set[tuple[str, str]]:
    """Parameters that are API keys: they come from the configuration, not from a model."""
    components = document.root.get("components")
    schemes = components.get("securitySchemes") if isinstance(components, dict) else None
    found: set[tuple[str, str]] = set()
    for each in schemes.values() if isinstance(schemes, dict) else ():
        scheme = document.follow(each).value
        if isinstance(scheme, dict) and scheme.get("type") == "apiKey":
            name, where = str(scheme.get("name")), str(scheme.get("in"))
            found.add((where, name.lower() if where == "header" else name))
    return found


def _description(chosen: Chosen) -> str:
    said = [chosen.operation.value.get(each) for each in ("summary", "description")]
    if said[1] is None:
        said[1] = chosen.item.value.get("description")
    texts = [each.strip() for each in said if isinstance(each, str) and each.strip()]
    if len(texts) == 2 and texts[1].startswith(texts[0].rstrip(".")):
        texts = texts[1:]
    text = "\n\n".join(texts) or chosen.reference
    if chosen.operation.value.get("deprecated") is True:
        text = f"Deprecated. {text}"
    return text if len(text) <= _LONGEST_DESCRIPTION else f"{text[: _LONGEST_DESCRIPTION - 1]}…"
