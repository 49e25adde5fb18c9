"""The body of an upload: multipart/form-data with one file, within bounds.

https://www.rfc-editor.org/rfc/rfc7578
"""

from msgspec import Struct
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from seawall.errors import InvalidField, InvalidRequest, UnsupportedEncoding

__all__ = ["FORM_BYTES", "Upload", "parse_upload"]

FORM_BYTES = 16_384
"""What a form may have beside the file."""

_MAX_PARTS = 8
_MAX_BOUNDARY = 200
_PURPOSES = ("user_data", "vision")
_FIELDS = ("file", "purpose")


class Upload(Struct, frozen=True):
    """An uploaded file, as it was sent."""

    content: bytes
    name: str
    purpose: str


class _Form:
    """Collects the parts of a form."""

    def __init__(self) -> None:
        self.parts: list[tuple[dict[bytes, bytes], bytearray]] = []
        self.complete = False
        self._name = bytearray()
        self._value = bytearray()

    def begin(self) -> None:
        """A part begins."""
        if len(self.parts) >= _MAX_PARTS:
            raise InvalidRequest(f"A form may have {_MAX_PARTS} parts at most.")
        self.parts.append(({}, bytearray()))

    def header_field(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's name."""
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        """A piece of its value."""
        self._value += data[start:end]

    def header_end(self) -> None:
        """A header ends."""
        self.parts[-1][0][bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def data(self, data: bytes, start: int, end: int) -> None:
        """A piece of a part."""
        self.parts[-1][1].extend(memoryview(data)[start:end])

    def end(self) -> None:
        """The form ends."""
        self.complete = True


def parse_upload(body: bytes, content_type: bytes) -> Upload:
    """The file of a form.

    Args:
        body: Of `POST /v1/files`.
        content_type: Its header.

    Raises:
        UnsupportedEncoding: It is no multipart/form-data.
        InvalidRequest: It is not well-formed.
        InvalidField: A field is missing, unknown, or has no valid value.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= _MAX_BOUNDARY:
        raise UnsupportedEncoding("The body must be multipart/form-data with a boundary.")
    form = _Form()
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": form.begin,
            "on_header_field": form.header_field,
            "on_header_value": form.header_value,
            "on_header_end": form.header_end,
            "on_part_data": form.data,
            "on_end": form.end,
        },
    )
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidRequest("The form is not well-formed.") from error
    if not form.complete:
        raise InvalidRequest("The form has no end.")
    return _upload(form)


def _upload(form: _Form) -> Upload:
    found: dict[str, tuple[bytes, str]] = {}
    for headers, part in form.parts:
        kind, options = parse_options_header(headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if kind != b"form-data" or name not in _FIELDS or name in found:
            raise InvalidField(
                "Is no field of this form, or there twice; its fields are file and purpose.",
                field=name[:100] or None,
            )
        found[name] = (bytes(part), options.get(b"filename", b"").decode("utf-8", "replace"))
    if "file" not in found:
        raise InvalidField("Required.", field="file")
    purpose = found["purpose"][0][:100].decode("utf-8", "replace") if "purpose" in found else ""
    if purpose not in ("", *_PURPOSES):
        raise InvalidField(f"Must be one of: {', '.join(_PURPOSES)}.", field="purpose")
    file, shown = found["file"]
    return Upload(file, shown, purpose)
