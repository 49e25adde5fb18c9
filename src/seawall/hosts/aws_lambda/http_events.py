"""HTTP integrations: events as ASGI scopes, and responses in the format of each integration.

Sources: docs.aws.amazon.com: apigateway/latest/developerguide, set-up-lambda-proxy-integrations
(REST, format 1.0) and http-api-develop-integrations-lambda (HTTP, 1.0 and 2.0);
lambda/latest/dg, urls-invocation; elasticloadbalancing/latest/application, lambda-functions;
vpc-lattice/latest/ug, lambda-functions (event structure versions 1 and 2). Streams:
lambda/latest/dg, configuration-response-streaming, and apigateway/latest/developerguide,
response-transfer-mode-lambda.
ASGI: asgi.readthedocs.io/en/latest/specs/www.html.
"""

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Literal
from urllib.parse import quote, unquote, unquote_to_bytes, urlencode

import msgspec
from msgspec import Struct

from seawall.errors import InvalidRequest

__all__ = [
    "INTEGRATION",
    "AsgiApp",
    "HttpEvent",
    "Message",
    "Source",
    "http_response",
    "is_schedule",
    "other_source",
    "read_event",
    "source_of",
    "stream_prelude",
]

Header = tuple[bytes, bytes]
Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [dict[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]

INTEGRATION = "application/vnd.awslambda.http-integration-response"

Source = Literal["url", "http", "rest", "alb", "alb-multi", "lattice", "lattice-v1"]
_PATH_SAFE = "/!$&'()*+,;=:@~"
# As in the HTTP server; AWS's integrations allow at most as much.
_MAX_HEADERS = 1_000
_MAX_HEADER_BYTES = 65_536
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_SEPARATOR = b"\0" * 8
_TEXT = ("text/", "application/json", "application/javascript", "application/xml")
_TEXT_ENDS = ("+json", "+xml")
_encode = msgspec.json.Encoder().encode


class HttpEvent(Struct, frozen=True):
    """An HTTP request in an event.

    Attributes:
        source: The integration: a function URL, an HTTP API (format 2.0), a REST API (or format
            1.0), a load balancer with single or multi-value headers, VPC Lattice (version 2 or 1).
        scope: Of ASGI.
        body: Decoded from base64, if necessary.
        claims: About the caller, from the API's authorizer.
    """

    source: Source
    scope: dict[str, Any]
    body: bytes
    claims: dict[str, Any]


def source_of(event: object) -> Source | None:
    """The integration that sent the event; None if it is not an HTTP request."""
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


def is_schedule(event: object) -> bool:
    """Whether a schedule of EventBridge sends the event."""
    return isinstance(event, dict) and event.get("detail-type") == "Scheduled Event"


def other_source(event: object) -> str:
    """The service that sends such events; "" if it may be a turn."""
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
    """Read the HTTP request of an event.

    Args:
        event: From Lambda.
        source: See `source_of`.
        base_path: What a custom domain puts before every path.

    Raises:
        InvalidRequest: The event is not as AWS documents it.
    """
    try:
        body = _body(event)
        scope, claims = _READERS[source](event, source, base_path)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"The event is not an HTTP event: {type(error).__name__}.") from error
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
    if source in ("alb", "alb-multi"):  # a load balancer passes them on as sent
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
    # The last is from the integration itself; the client can send those before it.
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
    """The port; 0 if the text is not one."""
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
    """Headers in ASGI's format.

    Raises:
        ValueError: A header is invalid, or there are too many.
    """
    headers: list[tuple[bytes, bytes]] = []
    size = 0
    for name, value in pairs:
        key, content = name.lower().encode("latin-1"), _value(value)
        size += len(key) + len(content)
        if len(headers) >= _MAX_HEADERS or size > _MAX_HEADER_BYTES:
            raise ValueError("more headers than a request may have")
        if not _TOKEN.fullmatch(key) or _CONTROL.search(content):
            raise ValueError("a header is not valid in HTTP")
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
    """Pairs of name and value; a name may have several values."""
    for name, values in found.items():
        for value in _list(values) if isinstance(values, list) else [values]:
            if not isinstance(value, str):
                raise TypeError("a value is not a text")
            yield name, value


def _list(found: object) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise TypeError("not a list of texts")
    return found


def stream_prelude(status: int, headers: Iterable[Header], source: Source) -> bytes:
    """The beginning of a streamed response: status and headers as JSON, and eight NUL bytes."""
    return _encode(_head(status, headers, source)) + _SEPARATOR


def http_response(status: int, headers: Iterable[Header], body: bytes, source: Source) -> bytes:
    """A complete response as JSON; a body that is not text is encoded in base64."""
    headers = list(headers)
    answer = _head(status, headers, source)
    text = _as_text(headers, body)
    answer["isBase64Encoded"] = text is None
    answer["body"] = base64.b64encode(body).decode() if text is None else text
    return _encode(answer)


def _head(status: int, headers: Iterable[Header], source: Source) -> dict[str, Any]:
    answer: dict[str, Any] = {"statusCode": status}
    many: dict[str, list[str]] = {}
    for name, value in headers:
        many.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    if source in ("url", "http"):
        if cookies := many.pop("set-cookie", []):
            answer["cookies"] = cookies
        answer["headers"] = {name: ", ".join(values) for name, values in many.items()}
        return answer
    if source not in ("rest", "lattice-v1"):
        from http import HTTPStatus  # noqa: PLC0415 - only for these sources

        try:
            answer["statusDescription"] = f"{status} {HTTPStatus(status).phrase}"
        except ValueError:
            answer["statusDescription"] = f"{status} Status"
    if source in ("alb", "lattice", "lattice-v1"):
        answer["headers"] = _single(many)
    else:
        answer["multiValueHeaders"] = many
    return answer


def _single(many: dict[str, list[str]]) -> dict[str, str]:
    """One value for each name. Cookies cannot be joined, so they get names that differ in case."""
    single = {name: ", ".join(values) for name, values in many.items() if name != "set-cookie"}
    for index, cookie in enumerate(many.get("set-cookie", [])):
        single[_cased("set-cookie", index)] = cookie
    return single


def _cased(name: str, index: int) -> str:
    """Spell a name differently for each index, by upper and lower case."""
    letters = [position for position, letter in enumerate(name) if letter.isalpha()]
    spelled = list(name)
    for bit, position in enumerate(letters):
        if index >> bit & 1:
            spelled[position] = spelled[position].upper()
    return "".join(spelled)


def _as_text(headers: Iterable[Header], body: bytes) -> str | None:
    """The body as text; None if it may not be text."""
    found = {name.lower(): value for name, value in headers}
    if found.get(b"content-encoding", b"identity") != b"identity":
        return None
    kind = found.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    if body and not (kind.startswith(_TEXT) or kind.endswith(_TEXT_ENDS)):
        return None
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return None
