"""Answers of an API as text for a model: reduced, compact, and bounded."""

import codecs
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from seawall.tools.select import Selector

__all__ = ["AnswerText", "answer_text", "cut_json", "error_text"]

_MOST_ERROR_BYTES = 4_096
_MOST_LEVELS = 16  # that cutting goes into
_MOST_NOTES = 8
_NOTE_BYTES = 512
_media_type = re.compile(r"\s*([^\s;]+)")
_charset = re.compile(r"charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)
_charsets = re.compile(r"(utf-(8|16|32)|iso8859|cp125|ascii|latin|shift|euc|gb|big5|koi8).*")
_TEXT = ("/xml", "+xml", "/yaml", "+yaml", "/javascript", "/x-www-form-urlencoded", "/x-ndjson")
_ELLIPSIS = "…"


class AnswerText(Struct, frozen=True):
    """An answer for a model.

    Attributes:
        text: What the model reads.
        whole: Whether nothing was cut.
    """

    text: str
    whole: bool


def answer_text(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    select: Selector | None = None,
    max_bytes: int = 16_384,
) -> AnswerText:
    """A successful answer as text.

    Args:
        status: Its HTTP status.
        headers: By lower-case name.
        body: Its body.
        select: What is shown of JSON; other answers are then not shown at all.
        max_bytes: Bytes of the text at most, notes of what was cut included; at least 256.
    """
    if not body:
        place = headers.get("location", "")[:200]
        return AnswerText(
            f"Done: the service answered {status} without content"
            f"{f'; location: {place}' if place else ''}.",
            True,
        )
    value, text = _read(headers, body)
    if text is None and value is msgspec.UNSET:
        kind = _type_of(headers)[:80] or "unknown type"
        return AnswerText(f"The answer is {len(body)} bytes of {kind}; it cannot be shown.", True)
    if value is not msgspec.UNSET:
        if select is not None:
            try:
                value = select(value)
            except ValueError as error:
                return AnswerText(
                    f"Done ({status}), but the answer is not as expected: {error}"[:500], True
                )
        return cut_json(value, max_bytes)
    if select is not None:
        return AnswerText(f"Done ({status}), but the answer is not JSON as expected.", True)
    assert text is not None  # noqa: S101 - else it is JSON or binary
    return _cut_text(text, max_bytes)


def error_text(status: int, headers: Mapping[str, str], body: bytes, title: str = "") -> str:
    """What a model can act on of an answer that is an error.

    Args:
        status: Its HTTP status.
        headers: By lower-case name.
        body: Its body: problem details (RFC 9457), other JSON, or text.
        title: What the status is called.
    """
    value, text = _read(headers, body)
    said = ""
    if value is not msgspec.UNSET:
        said = cut_json(value, _MOST_ERROR_BYTES).text
    elif text is not None and "<html" not in text[:1_000].lower():  # pages say nothing to a model
        said = _cut_text(text, _MOST_ERROR_BYTES).text
    head = f"The service refused the call: {status} {title}".rstrip()
    return f"{head}. {said}" if said else f"{head}."


def cut_json(value: Any, max_bytes: int) -> AnswerText:  # noqa: ANN401 - JSON
    """A value as compact JSON; if it is too long, with fewer items and shorter texts.

    Args:
        value: The value.
        max_bytes: Bytes of the text at most; at least 256.
    """
    encoded = msgspec.json.encode(value)
    if len(encoded) <= max_bytes:
        return AnswerText(encoded.decode(), True)
    if isinstance(value, str):
        return _cut_text(value, max_bytes)
    notes: list[str] = []
    note_bytes = min(_NOTE_BYTES, max_bytes // 2)
    cut = _cut(value, max_bytes - note_bytes, "", notes, 0)
    more = f"; {len(notes) - _MOST_NOTES} more" if len(notes) > _MOST_NOTES else ""
    note = f"{'; '.join(notes[:_MOST_NOTES])}{more}".encode("utf-8", "replace")
    shown = note[: note_bytes - 40].decode("utf-8", "ignore")
    text = msgspec.json.encode(cut).decode()
    return AnswerText(f"{text}\n[Cut: {shown}. Ask for less at once.]", False)


def _cut(value: Any, budget: int, path: str, notes: list[str], level: int) -> Any:  # noqa: ANN401
    """A value of at most `budget` bytes as JSON; what was cut is noted."""
    if isinstance(value, str):
        return _cut_string(value, budget, path, notes)
    if level >= _MOST_LEVELS or budget < 8 or not isinstance(value, list | dict):
        notes.append(f"{path or 'answer'}: left out")
        return None
    if isinstance(value, list):
        return _cut_list(value, budget, path, notes, level)
    sizes = {key: _size(key) + 2 + _size(each) for key, each in value.items()}
    left, waiting = budget - 2, len(value)
    kept: dict[str, Any] = {}
    for key in sorted(
        sizes, key=sizes.__getitem__
    ):  # the large ones share what the small ones leave
        share = left // waiting
        waiting -= 1
        if sizes[key] <= share:
            kept[key] = value[key]
            left -= sizes[key]
        elif share > _size(key) + 16:
            inner = f"{path}.{key}"[:120].lstrip(".")
            kept[key] = _cut(value[key], share - _size(key) - 2, inner, notes, level + 1)
            left -= _size(key) + 2 + _size(kept[key])
    if len(kept) < len(value):
        notes.append(f"{path or 'answer'}: {len(kept)} of {len(value)} members")
    return {key: kept[key] for key in value if key in kept}


def _cut_list(value: list[Any], budget: int, path: str, notes: list[str], level: int) -> list[Any]:
    kept: list[Any] = []
    left = budget - 2
    for each in value:
        size = _size(each) + 1
        if size > left:
            break
        kept.append(each)
        left -= size
    inner: list[str] = []
    if not kept:  # a part of the first says more than nothing
        kept.append(_cut(value[0], left - 1, f"{path}[0]", inner, level + 1))
    notes.append(f"{path or 'answer'}: {len(kept)} of {len(value)} items")
    notes += inner
    return kept


def _cut_string(value: str, budget: int, path: str, notes: list[str]) -> str:
    shown = value[: max(0, budget)]
    while shown and _size(shown) > budget - len(_ELLIPSIS.encode()):
        shown = shown[: min(len(shown) - 1, len(shown) * budget // _size(shown))]
    notes.append(f"{path or 'answer'}: {len(shown)} of {len(value)} characters")
    return shown + _ELLIPSIS


def _size(value: Any) -> int:  # noqa: ANN401 - JSON
    return len(msgspec.json.encode(value))


def _cut_text(text: str, max_bytes: int) -> AnswerText:
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return AnswerText(data.decode(), True)
    shown = data[: max_bytes - 100].decode("utf-8", "ignore")
    note = f"Cut: {len(shown)} of {len(text)} characters are shown; ask for less at once."
    return AnswerText(f"{shown}\n[{note}]", False)


def _read(headers: Mapping[str, str], body: bytes) -> tuple[Any, str | None]:
    """A body as JSON or as text; UNSET and None if it is neither."""
    kind = _type_of(headers)
    is_json = kind.endswith(("/json", "+json"))
    if is_json or not kind:
        try:
            return msgspec.json.decode(_utf8(headers, body)), None
        except (msgspec.DecodeError, RecursionError, ValueError):
            pass
    if is_json or kind.startswith("text/") or kind.endswith(_TEXT):
        return msgspec.UNSET, _decoded(headers, body)
    if not kind:
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return msgspec.UNSET, None
        return msgspec.UNSET, None if "\0" in text else text
    return msgspec.UNSET, None


def _type_of(headers: Mapping[str, str]) -> str:
    found = _media_type.match(headers.get("content-type", ""))
    return found[1].lower() if found else ""


def _utf8(headers: Mapping[str, str], body: bytes) -> bytes | str:
    if body.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE)):
        return _decoded(headers, body)
    found = _charset.search(headers.get("content-type", ""))
    return (
        body if found is None or found[1].lower() in ("utf-8", "utf8") else _decoded(headers, body)
    )


def _decoded(headers: Mapping[str, str], body: bytes) -> str:
    """A body as text, by its charset; what is not in it is replaced."""
    found = _charset.search(headers.get("content-type", ""))
    name = found[1] if found else "utf-8"
    if body.startswith((codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE)):
        name = "utf-16"
    elif body.startswith(codecs.BOM_UTF8):
        name = "utf-8-sig"
    try:
        known = _charsets.fullmatch(codecs.lookup(name).name)
    except (LookupError, ValueError):
        known = None
    return body.decode(name if known else "utf-8", "replace")
