"""What an ASGI application answers, as each HTTP integration wants it.

Sources: as of `http_events`; for streams lambda/latest/dg, configuration-response-streaming, and
apigateway/latest/developerguide, response-transfer-mode-lambda.
"""

import base64
from collections.abc import Iterable
from typing import Any

import msgspec

from seawall.hosts.aws_lambda.http_events import Source

__all__ = ["INTEGRATION", "http_response", "stream_prelude"]

Header = tuple[bytes, bytes]

INTEGRATION = "application/vnd.awslambda.http-integration-response"
_SEPARATOR = b"\0" * 8
_TEXT = ("text/", "application/json", "application/javascript", "application/xml")
_TEXT_ENDS = ("+json", "+xml")
_encode = msgspec.json.Encoder().encode


def stream_prelude(status: int, headers: Iterable[Header], source: Source) -> bytes:
    """What comes before a streamed body: status and headers as JSON, and eight NUL bytes."""
    return _encode(_head(status, headers, source)) + _SEPARATOR


def http_response(status: int, headers: Iterable[Header], body: bytes, source: Source) -> bytes:
    """A whole answer as JSON; a body that is not text goes in base64."""
    headers = list(headers)
    answer = _head(status, headers, source)
    text = _text(headers, body)
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
        from http import HTTPStatus  # noqa: PLC0415 - only of these sources

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
    """One value a name. Cookies cannot be joined, but names are told apart by case on the way."""
    single = {name: ", ".join(values) for name, values in many.items() if name != "set-cookie"}
    for index, cookie in enumerate(many.get("set-cookie", [])):
        single[_cased("set-cookie", index)] = cookie
    return single


def _cased(name: str, index: int) -> str:
    """Another spelling of a name for each index, by upper and lower case."""
    letters = [position for position, letter in enumerate(name) if letter.isalpha()]
    spelled = list(name)
    for bit, position in enumerate(letters):
        if index >> bit & 1:
            spelled[position] = spelled[position].upper()
    return "".join(spelled)


def _text(headers: Iterable[Header], body: bytes) -> str | None:
    """The body as text; None where it is not, or might not be."""
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
