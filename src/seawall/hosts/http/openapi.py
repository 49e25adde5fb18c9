"""The OpenAPI description of the HTTP host, from the same types that read its requests."""

from typing import Any

import msgspec

from seawall import errors
from seawall.events import Event
from seawall.hosts.http.bodies import ChatBody, TurnBody
from seawall.turn import TurnRecord

__all__ = ["openapi_document"]

_REFERENCE = "#/components/schemas/{name}"


def openapi_document() -> bytes:
    """An OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.0), as JSON."""
    (turn_body, chat_body, turn_record, event), components = msgspec.json.schema_components(
        [TurnBody, ChatBody, TurnRecord, Event], ref_template=_REFERENCE
    )
    components["Problem"] = _problem_schema()
    components["Session"] = _session_schema()
    problem = {
        "description": "Problem details (RFC 9457); `code` is stable.",
        "content": {
            "application/problem+json": {"schema": {"$ref": _REFERENCE.format(name="Problem")}}
        },
    }

    def operation(summary: str, answers: dict[str, Any], **rest: object) -> dict[str, Any]:
        return {"summary": summary, "responses": {**answers, "default": problem}, **rest}

    def body(schema: dict[str, Any]) -> dict[str, Any]:
        return {"required": True, "content": {"application/json": {"schema": schema}}}

    def answer(description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
        content = {"content": {"application/json": {"schema": schema}}} if schema else {}
        return {"description": description, **content}

    session = {"$ref": _REFERENCE.format(name="Session")}
    one = [_parameter("session", "path", "A session of the caller's own.")]
    page = [
        _parameter("limit", "query", "How many at the most, 1 to 200."),
        _parameter("cursor", "query", "Where the page before ended."),
    ]
    key = [_parameter("Idempotency-Key", "header", "A retry with it gets the first answer.")]
    sse = {"text/event-stream": {"schema": event}}
    paths: dict[str, Any] = {
        "/v1/turns": {
            "post": operation(
                "Run a turn; streamed where `Accept: text/event-stream` or `stream` asks for it",
                {
                    "200": {
                        "description": "The answer, durable; or its events as they happen.",
                        "content": {"application/json": {"schema": {"type": "object"}}, **sse},
                    },
                    "202": answer("A turn in the background, not streamed: `events` says where."),
                },
                requestBody=body(turn_body),
                parameters=key,
            )
        },
        "/v1/turns/{turn}/events": {
            "get": operation(
                "The events of a turn, as they happen or again",
                {"200": {"description": "A stream of events.", "content": sse}},
                parameters=[
                    _parameter("turn", "path", "A turn of the caller's own."),
                    _parameter("Last-Event-ID", "header", "The last event that was received."),
                ],
            )
        },
        "/v1/chat/completions": {
            "post": operation(
                "A turn in OpenAI's format",
                {"200": answer("A chat completion, or a stream of chunks.", {"type": "object"})},
                requestBody=body(chat_body),
                parameters=[
                    *key,
                    _parameter("Seawall-Session", "header", "The session to continue."),
                ],
            )
        },
        "/v1/models": {
            "get": operation("The agents, as models", {"200": answer("A list of models.")})
        },
        "/v1/sessions": {
            "get": operation(
                "The caller's sessions, the one opened last first",
                {"200": answer("A page of sessions.")},
                parameters=page,
            )
        },
        "/v1/sessions/{session}": {
            "get": operation(
                "A session with its turns, newest first",
                {"200": answer("The session; `turns` as TurnRecord.", session)},
                parameters=one + page,
            ),
            "delete": operation("Delete a session", {"204": answer("It is gone.")}, parameters=one),
        },
        "/livez": {"get": operation("Whether the process lives", {"200": answer("It does.")})},
        "/readyz": {"get": operation("Whether turns are taken", {"200": answer("They are.")})},
        "/metrics": {"get": operation("Prometheus metrics", {"200": answer("Their text.")})},
    }
    components["TurnRecord"] = components.get("TurnRecord", turn_record)
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Seawall", "version": "1"},
        "paths": paths,
        "security": [{"bearer": []}, {"apiKey": []}],
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }
    return msgspec.json.encode(document)


def _parameter(name: str, where: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": {"type": "string"},
    }


def _problem_schema() -> dict[str, Any]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = sorted({kind.code for kind in kinds if issubclass(kind, errors.Problem)})
    return {
        "type": "object",
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "enum": codes},
            "detail": {"type": "string"},
            "field": {"type": "string"},
            "retry_after": {"type": "number"},
        },
        "required": ["type", "title", "status", "code", "detail"],
    }


def _session_schema() -> dict[str, Any]:
    number = {"type": "number"}
    return {
        "type": "object",
        "properties": {
            "session": {"type": "string"},
            "version": {"type": "integer"},
            "agent": {"type": ["string", "null"]},
            "created_at": number,
            "updated_at": number,
            "expires_at": number,
        },
    }
