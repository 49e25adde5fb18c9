"""Events of HTTP integrations to ASGI scopes.

Sources: docs.aws.amazon.com: apigateway/latest/developerguide, set-up-lambda-proxy-integrations
(REST, format 1.0) and http-api-develop-integrations-lambda (HTTP, 1.0 and 2.0);
lambda/latest/dg, urls-invocation; elasticloadbalancing/latest/application, lambda-functions.
ASGI: asgi.readthedocs.io/en/latest/specs/www.html.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote, unquote, unquote_to_bytes, urlencode

from msgspec import Struct

from seawall.errors import InvalidRequest

__all__ = ["HttpEvent", "Source", "read_event", "source_of"]

Source = Literal["url", "http", "rest", "alb", "alb-multi"]
_PATH_SAFE = "/!$&'()*+,;=:@~"


class HttpEvent(Struct, frozen=True):
    """A request as it came in an event.

    source: what sent it: a function URL, an HTTP API (format 2.0), a REST API (or format 1.0), a
    load balancer with single or with multi-value headers. claims: what the API's authorizer says
    of who asks.
    """

    source: Source
    scope: dict[str, Any]
    body: bytes
    claims: dict[str, Any]


def source_of(event: object) -> Source | None:
    """What sent the event; None if it is not an HTTP request."""
    if not isinstance(event, dict) or not isinstance(event.get("requestContext"), dict):
        return None
    context = event["requestContext"]
    if "elb" in context:
        return "alb-multi" if "multiValueHeaders" in event else "alb"
    if isinstance(context.get("http"), dict):
        return "url" if ".lambda-url." in str(context.get("domainName")) else "http"
    return "rest" if "httpMethod" in event else None


def read_event(event: Mapping[str, Any], source: Source, *, base_path: str = "") -> HttpEvent:
    """The request in an event.

    Raises:
        InvalidRequest: something in it is not what AWS documents.
    """
    try:
        body = _body(event)
        read = _read_v2 if source in ("url", "http") else _read_v1
        scope, claims = read(event, source, base_path)
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
    headers = [(_name(name), _value(value)) for name, value in (event["headers"] or {}).items()]
    if event.get("cookies"):
        headers.append((b"cookie", _value("; ".join(event["cookies"]))))
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
    pairs = (
        [(name, value) for name, values in many.items() for value in values]
        if many
        else list((event.get("headers") or {}).items())
    )
    headers = [(_name(name), _value(value)) for name, value in pairs]
    parameters = (
        event.get("multiValueQueryStringParameters") or event.get("queryStringParameters") or {}
    )
    if source in ("alb", "alb-multi"):  # a load balancer hands them on as they came
        listed = [
            (name, value)
            for name, values in parameters.items()
            for value in (values if isinstance(values, list) else [values])
        ]
        query = "&".join(f"{name}={value}" for name, value in listed)
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
    found = dict(headers)
    host, _, port = found.get(b"host", b"localhost").decode("latin-1").partition(":")
    scheme = found.get(b"x-forwarded-proto", b"https").decode("latin-1")
    forwarded = found.get(b"x-forwarded-for", b"").decode("latin-1")
    address = client or forwarded.split(",")[0].strip()
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
        "server": (host, int(port) if port.isdigit() else 443 if scheme == "https" else 80),
    }


def _is_below(path: str, prefix: str) -> bool:
    return bool(prefix) and (path == prefix or path.startswith(prefix + "/"))


def _body(event: Mapping[str, Any]) -> bytes:
    body = event.get("body") or ""
    if event.get("isBase64Encoded"):
        try:
            return base64.b64decode(body, validate=True)
        except binascii.Error as error:
            raise ValueError(str(error)) from error
    encoded: bytes = body.encode("utf-8", "surrogatepass")
    return encoded


def _name(name: str) -> bytes:
    return name.lower().encode("latin-1")


def _value(value: object) -> bytes:
    text = str(value)
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
