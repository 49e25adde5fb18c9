"""The part of the OpenAPI description that is about files."""

from typing import Any

from seawall.settings import AttachmentSettings

__all__ = ["bound_attachments", "file_paths", "file_schemas"]

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_READ = (400, 401, 405, 408, 413, 415, 422, 431, 500, 503, 504)


def bound_attachments(schemas: dict[str, Schema], files: AttachmentSettings | None) -> None:
    """Add the limits of files to the bodies of turns.

    Args:
        schemas: By name; changed in place.
        files: None where no files are taken.
    """
    fields = schemas["TurnBody"]["properties"]
    fields["attachments"] = {
        "anyOf": [
            {
                "type": "array",
                "items": {"$ref": "#/components/schemas/AttachedFile"},
                "maxItems": files.per_message if files is not None else 0,
            },
            {"type": "null"},
        ],
        "description": "Files of the message: JPEG, PNG, WebP, GIF, PDF, or text in UTF-8; with "
        "them, `text` may be empty."
        if files is not None
        else "This server takes no files.",
    }


def file_schemas() -> dict[str, Schema]:
    """Schemas of answers."""
    file = {
        "type": "object",
        "required": ["id", "object", "bytes", "created_at", "filename", "purpose", "status"],
        "properties": {
            "id": _TEXT,
            "object": {"const": "file"},
            "bytes": _COUNT,
            "created_at": _COUNT,
            "expires_at": _COUNT,
            "filename": _TEXT,
            "purpose": {"enum": ["user_data", "vision"]},
            "status": {"const": "processed"},
            "media_type": _TEXT,
            "session": {"type": ["string", "null"]},
        },
        "additionalProperties": False,
    }
    return {"File": file}


def file_paths() -> dict[str, Any]:
    """Paths of uploads and files."""
    file = {
        "name": "file",
        "in": "path",
        "required": True,
        "description": "Id of a file of the caller's own.",
        "schema": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
    }
    limit = {"type": "integer", "minimum": 1, "maximum": 10_000}
    page = [
        _query("limit", limit, "Files of a page; there are never more than 100."),
        _query("after", _TEXT, "Id of the file behind which the page begins."),
    ]
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {"type": "string", "contentMediaType": "application/octet-stream"},
            "purpose": {"enum": ["user_data", "vision"]},
        },
        "additionalProperties": False,
    }
    listed = {
        "type": "object",
        "required": ["object", "data", "has_more"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/File"}},
            "first_id": {"type": ["string", "null"]},
            "last_id": {"type": ["string", "null"]},
            "has_more": {"type": "boolean"},
        },
        "additionalProperties": False,
    }
    deleted = {
        "type": "object",
        "properties": {"id": _TEXT, "object": {"const": "file"}, "deleted": {"const": True}},
        "additionalProperties": False,
    }
    one = {"$ref": "#/components/schemas/File"}
    return {
        "/v1/files": {
            "post": {
                "summary": "Upload a file",
                "requestBody": {
                    "required": True,
                    "content": {"multipart/form-data": {"schema": form}},
                },
                "responses": _responses("The file.", one),
            },
            "get": {
                "summary": "The caller's files: uploads, then those of sessions",
                "parameters": page,
                "responses": _responses("A page of files.", listed),
            },
        },
        "/v1/files/{file}": {
            "get": {
                "summary": "What is known of a file",
                "parameters": [file],
                "responses": _responses("The file.", one, 404),
            },
            "delete": {
                "summary": "Delete a file; messages that have it name it from then on",
                "parameters": [file],
                "responses": _responses("It was deleted.", deleted, 404),
            },
        },
        "/v1/files/{file}/content": {
            "get": {
                "summary": "The bytes of a file",
                "parameters": [file],
                "responses": _responses("Its bytes.", _TEXT, 404, content_type="*/*"),
            }
        },
    }


def _query(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _responses(
    description: str, schema: Schema, *more: int, content_type: str = "application/json"
) -> Schema:
    answers: Schema = {
        "200": {
            "description": description,
            "headers": {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}},
            "content": {content_type: {"schema": schema}},
        }
    }
    for status in sorted((*_READ, *more)):
        answers[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
    return answers
