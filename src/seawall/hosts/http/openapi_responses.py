"""The part of the OpenAPI description that is about OpenAI's Responses API."""

from collections.abc import Iterable
from typing import Any

from seawall.config import ServerSettings
from seawall.hosts.http.bodies import KEY_PATTERN
from seawall.hosts.http.client_tools import MAX_TOOLS
from seawall.hosts.http.responses_body import INCLUDED

__all__ = ["bound_responses", "response_paths", "response_schemas"]

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_OBJECT: Schema = {"type": "object"}
_NULL: Schema = {"type": "null"}
# Statuses of authenticated requests; of those that read; that send a body; of turns.
_OWNED = (400, 401, 405, 408, 431, 500, 503, 504)
_READ = (*_OWNED, 404, 422)
_POSTED = (*_READ, 413, 415)
_TURN = (*_POSTED, 403, 409, 429, 502)


def bound_responses(schemas: dict[str, Schema], settings: ServerSettings) -> None:
    """Add limits that are not part of the types.

    Args:
        schemas: By name; changed in place.
        settings: Their limits.
    """
    fields = schemas["ResponsesBody"]["properties"]
    text = {
        "type": "string",
        "minLength": 1,
        "maxLength": settings.max_text_characters,
        "pattern": "^[^\\u0000]*\\S[^\\u0000]*$",
    }
    items = _list_of(_OBJECT) | {"minItems": 1, "maxItems": settings.max_messages}
    fields["input"] = {"anyOf": [text, items]}
    fields["instructions"] = {"anyOf": [text, {"const": ""}, _NULL]}
    fields["tools"] = _nullable(_list_of(_OBJECT) | {"maxItems": MAX_TOOLS})
    fields["tool_choice"] = {"anyOf": [{"enum": ["none", "auto", "required"]}, _OBJECT, _NULL]}
    fields["include"] = _nullable(_list_of({"enum": list(INCLUDED)}) | {"maxItems": 32})
    for name in ("access_programs", "max_tool_calls", "moderation", "prompt"):
        fields[name] = _NULL
    for name in ("background_options", "image"):
        fields[name] = {"enum": [None, {}]}
    fields["context_management"] = {"enum": [None, []]}
    fields["top_logprobs"] = {"enum": [None, 0]}
    fields["truncation"] = {"enum": [None, "auto", "disabled"]}
    fields["service_tier"] = {"enum": [None, "auto", "default"]}
    fields = schemas["ConversationBody"]["properties"]
    fields["items"] = _nullable({"type": "array", "maxItems": 0})
    fields["metadata"] = _nullable(_OBJECT | {"maxProperties": 0})


def response_schemas() -> dict[str, Schema]:
    """The schemas of OpenAI's Responses API and its conversations."""
    text_or_null: Schema = {"type": ["string", "null"]}
    state = ["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    fields: dict[str, Schema] = {
        "id": _TEXT,
        "object": {"const": "response"},
        "created_at": _COUNT,
        "completed_at": _nullable(_COUNT),
        "status": {"enum": state},
        "background": {"type": "boolean"},
        "conversation": _nullable(_closed({"id": _TEXT})),
        "error": _nullable(_closed({"code": _TEXT, "message": _TEXT})),
        "incomplete_details": _nullable(_closed({"reason": _TEXT})),
        "instructions": text_or_null,
        "max_output_tokens": _nullable(_COUNT),
        "max_tool_calls": _NULL,
        "metadata": _OBJECT,
        "model": _TEXT,
        "output": _list_of(_OBJECT),
        "parallel_tool_calls": {"type": "boolean"},
        "previous_response_id": text_or_null,
        "prompt_cache_key": text_or_null,
        "reasoning": _OBJECT,
        "safety_identifier": text_or_null,
        "service_tier": _TEXT,
        "store": {"type": "boolean"},
        "text": _OBJECT,
        "tool_choice": {"type": ["string", "object"]},
        "tools": _list_of(_OBJECT),
        "top_logprobs": _COUNT,
        "truncation": _TEXT,
        "usage": _nullable(_OBJECT),
        "user": text_or_null,
        "seawall": _OBJECT,
    }
    for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty"):
        fields[name] = _NUMBER
    deleted = {"id": _TEXT, "deleted": {"const": True}}
    return {
        "Response": _closed(fields),
        "ResponseDeleted": _closed(deleted | {"object": {"const": "response"}}),
        "ItemList": _closed(
            {
                "object": {"const": "list"},
                "data": _list_of(_OBJECT),
                "first_id": _TEXT,
                "last_id": _TEXT,
                "has_more": {"type": "boolean"},
            }
        ),
        "Conversation": _closed(
            {
                "id": _TEXT,
                "object": {"const": "conversation"},
                "created_at": _COUNT,
                "metadata": _OBJECT,
            }
        ),
        "ConversationDeleted": _closed(deleted | {"object": {"const": "conversation.deleted"}}),
    }


def response_paths() -> dict[str, Any]:
    """OpenAI's Responses API, and its conversations, which are sessions."""
    identifier = {"type": "string", "minLength": 1}
    response = _parameter("response", "path", "A response of the caller's own.", identifier)
    conversation = _parameter("conversation", "path", "A conversation.", identifier)
    name = {"type": "string", "pattern": KEY_PATTERN}
    key = _parameter("Idempotency-Key", "header", "A retry with it returns the first answer.", name)
    whole = _json("Response") | {
        "text/event-stream": {"schema": _closed({"data": _TEXT}, event=_TEXT)}
    }
    size = {"type": "integer", "minimum": 1, "maximum": 100}
    page = [
        _parameter("limit", "query", "Size of the page; 20 by default.", size),
        _parameter("order", "query", "desc by default.", {"enum": ["asc", "desc"]}),
        _parameter("after", "query", "Id of the last item of the previous page.", _TEXT),
    ]
    flag = {"enum": ["true", "false"]}
    number = {"type": "string", "pattern": "^[0-9]{1,12}$"}
    optional = {"required": False, "content": _json("ConversationBody")}
    return {
        "/v1/responses": {
            "post": _operation(
                "A turn in the format of OpenAI's Responses API, or what continues one",
                {
                    "200": _answer(
                        "A response, or its events.",
                        whole,
                        "Seawall-Session",
                        "Seawall-Client-Instructions",
                    )
                },
                _TURN,
                body="ResponsesBody",
                parameters=[key],
            )
        },
        "/v1/responses/{response}": {
            "get": _operation(
                "A response as far as it is, or its events as they happen",
                {"200": _answer("The response, or its events.", whole)},
                (*_READ, 409, 413, 415, 429, 502),
                parameters=[
                    response,
                    _parameter("stream", "query", "Whether its events are streamed.", flag),
                    _parameter("starting_after", "query", "The last known number.", number),
                ],
            ),
            "delete": _operation(
                "Delete the conversation of a response, if it has no other response",
                {"200": _answer("It was deleted.", _json("ResponseDeleted"))},
                (*_OWNED, 404, 409),
                parameters=[response],
            ),
        },
        "/v1/responses/{response}/cancel": {
            "post": _operation(
                "End a response; one that has ended is shown as it is",
                {"200": _answer("The response.", _json("Response"))},
                (*_OWNED, 404, 409, 413, 415),
                parameters=[response],
            )
        },
        "/v1/responses/{response}/input_items": {
            "get": _operation(
                "What was new in the request of a response",
                {"200": _answer("A page of items.", _json("ItemList"))},
                _READ,
                parameters=[response, *page],
            )
        },
        "/v1/conversations": {
            "post": _operation(
                "The name of a new conversation",
                {"200": _answer("The conversation.", _json("Conversation"))},
                _POSTED,
                requestBody=optional,
            )
        },
        "/v1/conversations/{conversation}": {
            "get": _operation(
                "A conversation",
                {"200": _answer("The conversation.", _json("Conversation"))},
                (*_OWNED, 404),
                parameters=[conversation],
            ),
            "post": _operation(
                "A conversation; nothing of it can be changed",
                {"200": _answer("The conversation.", _json("Conversation"))},
                _POSTED,
                parameters=[conversation],
                requestBody=optional,
            ),
            "delete": _operation(
                "Delete a conversation with all its turns",
                {"200": _answer("It was deleted.", _json("ConversationDeleted"))},
                (*_OWNED, 404),
                parameters=[conversation],
            ),
        },
        "/v1/conversations/{conversation}/items": {
            "get": _operation(
                "The items of a conversation's newest turns",
                {"200": _answer("A page of items.", _json("ItemList"))},
                _READ,
                parameters=[conversation, *page],
            ),
            "post": _operation(
                "Always refused: items come from responses alone",
                {},
                (*_OWNED, 422),
                parameters=[conversation],
            ),
        },
        "/v1/conversations/{conversation}/items/{item}": {
            "get": _operation(
                "An item of a conversation's newest turns",
                {"200": _answer("The item.", {"application/json": {"schema": {"type": "object"}}})},
                (*_OWNED, 404),
                parameters=[
                    conversation,
                    _parameter("item", "path", "Of an item.", {"type": "string"}),
                ],
            ),
        },
    }


def _operation(
    summary: str, answers: dict[str, Any], problems: Iterable[int], body: str = "", **rest: object
) -> dict[str, Any]:
    listed = {str(each): {"$ref": f"#/components/responses/Problem{each}"} for each in problems}
    if body:
        rest["requestBody"] = {"required": True, "content": _json(body)}
    return {"summary": summary, "responses": answers | listed, **rest}


def _answer(description: str, content: Schema, *headers: str) -> dict[str, Any]:
    sent = {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-ID", *headers)}
    return {"description": description, "headers": sent, "content": content}


def _json(name: str) -> Schema:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, _NULL]}


def _closed(fields: dict[str, Schema], **optional: Schema) -> Schema:
    """An object with these fields, optionally others of `optional`, and no further ones."""
    return {
        "type": "object",
        "properties": fields | optional,
        "required": list(fields),
        "additionalProperties": False,
    }


def _parameter(name: str, where: str, description: str, schema: Schema) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": schema,
    }
