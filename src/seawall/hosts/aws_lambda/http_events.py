"""Events of HTTP integrations to ASGI scopes.

Sources: docs.aws.amazon.com: apigateway/latest/developerguide, set-up-lambda-proxy-integrations
(REST, format 1.0) and http-api-develop-integrations-lambda (HTTP, 1.0 and 2.0);
lambda/latest/dg, urls-invocation; elasticloadbalancing/latest/application, lambda-functions;
vpc-lattice/latest/ug, lambda-functions (event structure versions 1 and 2).
ASGI: asgi.readthedocs.io/en/latest/specs/www.html.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal
from urllib.parse import quote, unquote, unquote_to_bytes, urlencode

from msgspec import Struct

from seawall.errors import InvalidRequest

__all__ = ["HttpEvent", "Source", "other_source", "read_event", "source_of"]

Source = Literal["url", "http", "rest", "alb", "alb-multi", "lattice", "lattice-v1"]
_PATH_SAFE = "/!$&'()*+,;=:@~"
# As of the heads that the HTTP server takes; AWS's entries allow at most as much themselves.
_MAX_HEADERS = 1_000
_MAX_HEADER_BYTES = 65_536
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class HttpEvent(Struct, frozen=True):
    """A request as it came in an event.

    source: what sent it: a function URL, an HTTP API (format 2.0), a REST API (or format 1.0), a
    load balancer with single or with multi-value headers, VPC Lattice (version 2 or 1). claims:
    what the API's authorizer says of who asks.
    """

    source: Source
    scope: dict[str, Any]
    body: bytes
    claims: dict[str, Any]


def source_of(event: object) -> Source | None:
    """What sent the event; None if it is not an HTTP request."""
    if not isinstance(event, dict):
        return None
    context = event.get("requestContext")
    if not isinstance(context, dict):
        return "lattice-v1" if "raw_path" in event and "method" in event else None
    if "elb" in context:
        return "alb-multi" if "multiValueHeaders" in event else "alb"
    if isinstance(context.get("http"), dict):
        return "url" if ".lambda-url." in str(context.get("domainName")) else "http"
    if "httpMethod" in event:
        return "rest"
    return "lattice" if "serviceArn" in context and "method" in event else None


def other_source(event: object) -> str:
    """The service that sends such events, which are neither requests nor turns; "" for none."""
    if not isinstance(event, dict):
        return ""
    if isinstance(event.get("detail-type"), str):
        return f"EventBridge ({event['detail-type'][:100]})"
    context = event.get("requestContext")
    if isinstance(context, dict):
        return "a WebSocket API" if "connectionId" in context else "an unknown HTTP entry"
    records = event.get("Records")
    if isinstance(records, list) and records and isinstance(records[0], dict):
        if "cf" in records[0]:
            return "CloudFront (Lambda@Edge)"
        name = records[0].get("eventSource") or records[0].get("EventSource")
        return "" if name == "aws:sqs" else str(name)[:100]
    return ""


def read_event(event: Mapping[str, Any], source: Source, *, base_path: str = "") -> HttpEvent:
    """The request in an event.

    Raises:
        InvalidRequest: something in it is not what AWS documents.
    """
    try:
        body = _body(event)
        scope, claims = _READERS[source](event, source, base_path)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"The event is not one of HTTP: {type(error).__name__}.") from error
    return HttpEvent(source, scope, body, claims)


def _read_v2(
    event: Mapping[str, Any], _: Source, base_path: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    context = event["requestContext"]
    http = context["http"]
    stage = context.get("stage") or "$default"
    root = base_path if stage == "$default" else f"{base_path}/{stage}"
    headers = _headers((event["headers"] or {}).items())
    if cookies := event.get("cookies"):
        headers += _headers([("cookie", "; ".join(_list(cookies)))])
    raw = event.get("rawPath") or "/"
    # A stage is part of the path, unless a custom domain hides it.
    prefix = root if _is_below(raw, root) else base_path if _is_below(raw, base_path) else ""
    authorizer = context.get("authorizer") or {}
    claims = (authorizer.get("jwt") or {}).get("claims") or authorizer.get("lambda") or {}
    scope = _scope(
        method=http["method"],
        raw_path=raw,
        root=prefix,
        query=(event.get("rawQueryString") or "").encode("latin-1"),
        headers=headers,
        client=http.get("sourceIp"),
        version=str(http.get("protocol") or "HTTP/1.1").rpartition("/")[2],
    )
    return scope, dict(claims)


def _read_v1(
    event: Mapping[str, Any], source: Source, base_path: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    context = event["requestContext"]
    many = event.get("multiValueHeaders")
    headers = _headers(_pairs(many) if many else (event.get("headers") or {}).items())
    parameters = (
        event.get("multiValueQueryStringParameters") or event.get("queryStringParameters") or {}
    )
    if source in ("alb", "alb-multi"):  # a load balancer hands them on as they came
        query = "&".join(f"{name}={value}" for name, value in _pairs(parameters))
    else:
        query = urlencode(parameters, doseq=True)
    identity = context.get("identity") or {}
    raw = event.get("path") or "/"
    if source == "rest":
        raw = quote(unquote_to_bytes(raw), safe=_PATH_SAFE)
    authorizer = context.get("authorizer") or {}
    scope = _scope(
        method=event["httpMethod"],
        raw_path=raw,
        root=base_path if _is_below(raw, base_path) else "",
        query=query.encode("latin-1"),
        headers=headers,
        client=identity.get("sourceIp"),
        version=str(context.get("protocol") or "HTTP/1.1").rpartition("/")[2],
    )
    return scope, dict(authorizer.get("claims") or authorizer)


def _read_lattice(
    event: Mapping[str, Any], source: Source, base_path: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    first = source == "lattice-v1"
    raw, _, query = (event["raw_path" if first else "path"] or "/").partition("?")
    parameters = event.get("query_string_parameters" if first else "queryStringParameters") or {}
    scope = _scope(
        method=event["method"],
        raw_path=raw,
        root=base_path if _is_below(raw, base_path) else "",
        query=(query or urlencode(list(_pairs(parameters)))).encode("latin-1"),
        headers=_headers(_pairs(event["headers"] or {})),
        client=None,
        version="1.1",
    )
    return scope, {}


_READERS = {
    "url": _read_v2,
    "http": _read_v2,
    "rest": _read_v1,
    "alb": _read_v1,
    "alb-multi": _read_v1,
    "lattice": _read_lattice,
    "lattice-v1": _read_lattice,
}


def _scope(
    *,
    method: str,
    raw_path: str,
    root: str,
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    client: str | None,
    version: str,
) -> dict[str, Any]:
    if not _TOKEN.fullmatch(method.encode("ascii")):
        raise ValueError("the method is not a token")
    if not isinstance(client, str | None):
        raise TypeError("the client's address is not a text")
    found = dict(headers)
    host, _, port = found.get(b"host", b"localhost").decode("latin-1").partition(":")
    scheme = found.get(b"x-forwarded-proto", b"https").decode("latin-1")
    forwarded = found.get(b"x-forwarded-for", b"").decode("latin-1")
    # The last is the entry's own word; those before it are whatever the client has sent.
    address = client or forwarded.rpartition(",")[2].strip()
    path_bytes = raw_path.encode("utf-8")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": version if version in ("1.0", "1.1", "2", "3") else "1.1",
        "method": method.upper(),
        "scheme": scheme if scheme in ("http", "https") else "https",
        "path": unquote(raw_path),
        "raw_path": path_bytes,
        "root_path": root,
        "query_string": query,
        "headers": headers,
        "client": (address, 0) if address else None,
        "server": (host, _port(port) or (443 if scheme == "https" else 80)),
    }


def _port(text: str) -> int:
    """0 where it is none."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    return number if number <= 65_535 else 0


def _is_below(path: str, prefix: str) -> bool:
    return bool(prefix) and (path == prefix or path.startswith(prefix + "/"))


def _body(event: Mapping[str, Any]) -> bytes:
    body = event.get("body") or ""
    encoded_as = event.get("isBase64Encoded", event.get("is_base64_encoded"))
    if encoded_as not in (True, False, None):
        raise ValueError("isBase64Encoded is not a boolean")
    if encoded_as:
        try:
            return base64.b64decode(body, validate=True)
        except binascii.Error as error:
            raise ValueError(str(error)) from error
    encoded: bytes = body.encode("utf-8", "surrogatepass")
    return encoded


def _headers(pairs: Iterable[tuple[str, Any]]) -> list[tuple[bytes, bytes]]:
    """As ASGI has them.

    Raises:
        ValueError: One is none, or they are too many.
    """
    headers: list[tuple[bytes, bytes]] = []
    size = 0
    for name, value in pairs:
        key, content = name.lower().encode("latin-1"), _value(value)
        size += len(key) + len(content)
        if len(headers) >= _MAX_HEADERS or size > _MAX_HEADER_BYTES:
            raise ValueError("more headers than a request may have")
        if not _TOKEN.fullmatch(key) or _CONTROL.search(content):
            raise ValueError("a header is not one of HTTP")
        headers.append((key, content))
    return headers


def _value(value: object) -> bytes:
    if not isinstance(value, str):
        raise TypeError("a header's value is not a text")
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode()


def _pairs(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values, of which a name may have several."""
    for name, values in found.items():
        for value in _list(values) if isinstance(values, list) else [values]:
            if not isinstance(value, str):
                raise TypeError("a value is not a text")
            yield name, value


def _list(found: object) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise TypeError("not a list of texts")
    return found
