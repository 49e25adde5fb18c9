"""OpenAPI description of the HTTP host, generated from the types of its requests.

Imported on the first request for it.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from seawall import errors
from seawall.config import ServerSettings
from seawall.events import Event
from seawall.hosts.http.ag_ui_body import AgUiBody
from seawall.hosts.http.bodies import IDENTIFIER_PATTERN, KEY_PATTERN, TurnBody
from seawall.hosts.http.chat_body import ChatBody
from seawall.hosts.http.client_tools import MAX_TOOLS, TOOL_NAME_PATTERN, OwnToolDefinition
from seawall.hosts.http.effects import ResultBody
from seawall.hosts.http.memory import CorrectionBody
from seawall.hosts.http.openai_conversations import ConversationBody
from seawall.hosts.http.openapi_files import bound_attachments, file_paths, file_schemas
from seawall.hosts.http.openapi_responses import (
    bound_responses,
    response_paths,
    response_schemas,
)
from seawall.hosts.http.responses_body import ResponsesBody
from seawall.hosts.http.sessions import SessionTurn
from seawall.hosts.http.ui_body import UiBody
from seawall.settings import AttachmentSettings, MemorySettings

__all__ = ["openapi_document"]

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_OBJECT: Schema = {"type": "object"}

# Statuses of any request; of authenticated ones; of those that read or write an object; of turns.
_ANY = (400, 405, 408, 431, 500, 503)
_OWNED = (*_ANY, 401, 504)
_READ = (*_OWNED, 404, 422)
_POSTED = (*_READ, 413, 415)
_DECIDED = (*_POSTED, 403, 409)
_TURN = (*_POSTED, 409, 429, 502)
_RUN_TURNS = (
    *("/v1/turns", "/v1/chat/completions", "/v1/responses", "/v1/ui/chat"),
    *("/v1/ag-ui", "/v1/ag-ui/{agent}", "/mcp"),
)
_TITLES = {
    400: "The request cannot be parsed.",
    401: "The credential is missing or invalid.",
    403: "The caller does not have the role that this needs.",
    404: "The object does not exist, or not for this caller.",
    405: "The method is not allowed; `Allow` lists those that are.",
    408: "The request did not arrive in time.",
    409: "The state of the session, the turn or the call does not allow it.",
    413: "The body is too large.",
    415: "The content coding of the body is not supported.",
    422: "A field is invalid; `field` names it.",
    429: "A budget of the caller's tenant is exhausted.",
    431: "The head is too large.",
    500: "A limit of the agent was reached, or an internal error occurred.",
    502: "A model failed, or its answer is not usable.",
    503: "The server is at capacity, or a dependency is not available.",
    504: "A stage, or the turn, exceeded its deadline.",
}
_VERDICT: Schema = {
    "type": "object",
    "required": ["decision"],
    "properties": {
        "decision": {"enum": ["approve", "reject", "edit", "accept", "decline", "cancel"]},
        "arguments": {"type": ["object", "null"]},
        "note": {"type": "string", "maxLength": 2_000},
        "question": {"type": ["integer", "null"]},
        "content": {"type": ["object", "null"]},
    },
    "additionalProperties": False,
    "description": "`arguments` go with `edit`, and only with it; `question` with `accept`, "
    "`decline` and `cancel`, and only with them; `content` with `accept` only.",
    "allOf": [
        {
            "if": {"properties": {"decision": {"const": "edit"}}},
            "then": {"required": ["arguments"], "properties": {"arguments": {"type": "object"}}},
            "else": {"properties": {"arguments": {"type": "null"}}},
        },
        {
            "if": {"properties": {"decision": {"enum": ["accept", "decline", "cancel"]}}},
            "then": {"required": ["question"], "properties": {"question": {"type": "integer"}}},
            "else": {"properties": {"question": {"type": "null"}}},
        },
        {
            "if": {"properties": {"decision": {"const": "accept"}}},
            "else": {"properties": {"content": {"type": "null"}}},
        },
    ],
}
_RESOLUTION: Schema = {
    "type": "object",
    "required": ["outcome"],
    "properties": {
        "outcome": {"enum": ["done", "not-done"]},
        "result": {"type": "string", "maxLength": 16_384},
        "note": {"type": "string", "maxLength": 2_000},
    },
    "additionalProperties": False,
    "description": "A `result` goes with `done` only.",
    "if": {"properties": {"outcome": {"const": "not-done"}}},
    "then": {"properties": {"result": {"const": ""}}},
}
_PERSON_MESSAGE: Schema = {
    "type": "object",
    "required": ["turn"],
    "properties": {
        "turn": {"type": "string"},
        "return": {"type": "boolean"},
        "text": {"type": "string", "maxLength": 16_384, "pattern": "^[^\\u0000]*$"},
        "note": {"type": "string", "maxLength": 2_000},
    },
    "additionalProperties": False,
    "description": "Without `return`, a message: its `text` is not blank, and it has no `note`.",
    "if": {"required": ["return"], "properties": {"return": {"const": True}}},
    "else": {
        "required": ["text"],
        "properties": {
            "text": {"pattern": "^[^\\u0000]*\\S[^\\u0000]*$"},
            "note": {"const": ""},
        },
    },
}
_CALL_FIELDS: dict[str, Schema] = {
    "turn": _TEXT,
    "session": _TEXT,
    "subject": _TEXT,
    "call": _TEXT,
    "tool": _TEXT,
    "agent": _TEXT,
    "arguments": _TEXT,
    "created_at": _NUMBER,
}
_SESSION_FIELDS: dict[str, Schema] = {
    "session": _TEXT,
    "version": _COUNT,
    "agent": {"type": ["string", "null"]},
    "created_at": _NUMBER,
    "updated_at": _NUMBER,
    "expires_at": _NUMBER,
}


def openapi_document(
    settings: ServerSettings,
    memory: MemorySettings,
    *,
    mcp: bool = False,
    files: AttachmentSettings | None = None,
    console: bool = False,
) -> bytes:
    """Build the OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.0).

    Args:
        settings: Their limits become part of the schemas.
        memory: Likewise.
        mcp: Whether there is the endpoint of the Model Context Protocol.
        files: Likewise; None where no files are taken.
        console: Whether there is a console, which records the turns that ask for it.

    Returns:
        JSON.
    """
    (*_, event), schemas = msgspec.json.schema_components(
        [
            *(TurnBody, ChatBody, ResponsesBody, ConversationBody, UiBody, AgUiBody),
            *(CorrectionBody, SessionTurn, OwnToolDefinition, ResultBody, Event),
        ],
        ref_template="#/components/schemas/{name}",
    )
    schemas["Event"] = event
    _bound_turn(schemas["TurnBody"]["properties"], settings)
    _bound_chat(schemas, settings)
    bound_responses(schemas, settings)
    _bound_ui(schemas, settings)
    schemas["CorrectionBody"]["properties"]["text"] = {
        "type": "string",
        "minLength": 1,
        "maxLength": memory.characters,
        "pattern": "^[^\\u0000]*\\S[^\\u0000]*$",
    }
    schemas["Verdict"] = _VERDICT
    schemas["ResolutionBody"] = _RESOLUTION
    schemas["PersonMessage"] = _PERSON_MESSAGE
    bound_attachments(schemas, files)
    schemas |= _answers() | response_schemas()
    schemas |= file_schemas() if files is not None else {}
    paths = _paths() | response_paths()
    paths |= _mcp_paths() if mcp else {}
    paths |= file_paths() if files is not None else {}
    if console:
        _add_recording(paths)
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Seawall", "version": "1"},
        "paths": paths,
        "security": [{"bearer": []}, {"apiKey": []}],
        "components": {
            "schemas": schemas,
            "responses": {f"Problem{status}": _problem(status) for status in _TITLES},
            "headers": _headers(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }
    return msgspec.json.encode(document)


def _bound_turn(fields: dict[str, Schema], settings: ServerSettings) -> None:
    """Limits that are not part of the types."""
    fields["text"] = _message_text(settings)
    for name in ("session", "agent"):
        fields[name] = _nullable({"type": "string", "pattern": IDENTIFIER_PATTERN})
    _bound_own_tools(fields, settings)


def _bound_own_tools(fields: dict[str, Schema], settings: ServerSettings) -> None:
    """What a client brings to a turn, in formats of our own."""
    fields["tools"] = _nullable(_list_of(_ref("OwnToolDefinition")) | {"maxItems": MAX_TOOLS})
    fields["tool_choice"] = _nullable({"type": "string", "pattern": TOOL_NAME_PATTERN})
    fields["instructions"] = {"anyOf": [_message_text(settings), {"const": ""}, _NULL]}


def _bound_chat(schemas: dict[str, Schema], settings: ServerSettings) -> None:
    fields = schemas["ChatBody"]["properties"]
    fields["messages"] |= {"minItems": 1, "maxItems": settings.max_messages}
    stop = {"type": "string", "minLength": 1, "maxLength": 256}
    fields["stop"] = {"anyOf": [stop, {"type": "array", "items": stop, "maxItems": 4}, _NULL]}
    fields["n"] = {"enum": [1, None]}
    schemas["SchemaFormat"]["properties"]["schema"] = _nullable(
        _OBJECT | {"description": "A JSON Schema; `pattern` and `format` in it are not checked."}
    )
    for name in ("ToolDefinition", "OwnToolDefinition"):
        described = schemas[name]["properties"]
        described["name"] = {"type": "string", "pattern": TOOL_NAME_PATTERN}
        described["parameters"] = _nullable(
            _OBJECT | {"description": "A JSON Schema of the type object."}
        )
    fields["tools"] = _nullable(_list_of(_ref("ChatTool")) | {"maxItems": MAX_TOOLS})
    fields["functions"] = _nullable({"type": "array", "maxItems": 0})
    for name in ("audio", "moderation", "web_search_options"):
        fields[name] = _NULL
    fields["tool_choice"] = {
        "anyOf": [{"enum": ["none", "auto", "required"]}, _OBJECT, _NULL],
        "description": "Also a function of `tools`, or `allowed_tools`.",
    }
    fields["function_call"] = {"enum": [None, "none"]}
    fields["logprobs"] = {"enum": [None, False]}
    fields["top_logprobs"] = {"enum": [None, 0]}
    fields["modalities"] = {"enum": [None, [], ["text"]]}


def _bound_ui(schemas: dict[str, Schema], settings: ServerSettings) -> None:
    fields = schemas["UiBody"]["properties"]
    fields["id"] = {"type": "string", "pattern": IDENTIFIER_PATTERN}
    fields["agent"] = _nullable({"type": "string", "pattern": IDENTIFIER_PATTERN})
    fields["messages"] |= {
        "minItems": 1,
        "maxItems": settings.max_messages,
        "description": "The last one is the user's, with an `id` and parts of text; or the "
        "assistant's, with decisions about calls that wait, or results of the client's tools.",
    }
    _bound_own_tools(fields, settings)
    fields = schemas["AgUiBody"]["properties"]
    fields["threadId"] = {"type": "string", "pattern": IDENTIFIER_PATTERN}
    fields["runId"] = {"type": "string", "pattern": KEY_PATTERN, "maxLength": 128}
    fields["messages"] |= {
        "maxItems": settings.max_messages,
        "description": "The last one is the user's, with text, or the result of one of the "
        "client's tools; it does not count with `resume`.",
    }
    fields["tools"] = _nullable(_list_of(_ref("ToolDefinition")) | {"maxItems": MAX_TOOLS})
    fields["context"] = _nullable({"type": "array", "maxItems": 0})
    fields["state"] = {"enum": [None, {}, [], ""]}
    fields["resume"] = _nullable(_list_of(_ref("Resume")) | {"maxItems": 100})


def _answers() -> dict[str, Schema]:
    """The schemas of responses."""
    turn = {"turn": _TEXT, "session": _TEXT}
    choice = _closed({"index": _COUNT, "message": _OBJECT, "finish_reason": _TEXT})
    used = {f"{kind}_tokens": _COUNT for kind in ("prompt", "completion", "total")}
    model = _closed(
        {"id": _TEXT, "object": {"const": "model"}, "created": _COUNT, "owned_by": _TEXT}
    )
    record = {"$ref": "#/components/schemas/SessionTurn"}
    approval: dict[str, Schema] = {
        "role": {"type": ["string", "null"]},
        "kind": _TEXT,
        "expires_at": _NUMBER,
        "decide": _TEXT,
    }
    requested = dict.fromkeys(("call", "tool", "arguments"), _TEXT)
    decision = _closed({"verdict": _TEXT, "by": _TEXT, "at": _NUMBER}, note=_TEXT)
    return {
        "Problem": _problem_schema(),
        "TurnAnswer": _closed(
            turn
            | {
                "version": _COUNT,
                "agent": _TEXT,
                "intent": {"type": ["string", "null"]},
                "text": _TEXT,
                "tool_calls": {
                    "type": "array",
                    "items": _closed(
                        {"name": _TEXT, "failed": {"type": "boolean"}},
                        sources={"type": "array", "items": _ref("Source")},
                    ),
                },
                "replayed": {"type": "boolean"},
            },
            usage={"$ref": "#/components/schemas/Usage"},
            cost={"$ref": "#/components/schemas/Cost"},
            cached={"const": True},
            finish_reason=_TEXT,
        ),
        "Frame": _closed(
            {
                "event": _TEXT,
                "id": {"type": "string", "pattern": "^[0-9]+$"},
                "data": _TEXT
                | {"contentMediaType": "application/json", "contentSchema": _ref("Event")},
            }
        ),
        "TurnAccepted": _closed(turn | {"events": _TEXT}),
        "TurnPaused202": _closed(
            turn
            | {
                "version": _COUNT,
                "status": {"const": "paused"},
                "text": _TEXT,
                "approvals": _list_of(_ref("RequestedApproval")),
                "client_calls": _list_of(_ref("ClientCall")),
                "events": _TEXT,
            }
        ),
        "ClientCall": _closed(requested | {"expires_at": _NUMBER, "return": _TEXT}),
        "Returned": _closed({"turn": _TEXT, "call": _TEXT, "events": _TEXT}),
        "RequestedApproval": _closed(requested | approval, question=_ref("Question")),
        "Decided": _closed({"turn": _TEXT, "call": _TEXT, "decision": decision, "events": _TEXT}),
        "ApprovalList": _closed(
            {
                "approvals": _list_of(
                    _closed(
                        _CALL_FIELDS | approval | {"may_decide": {"type": "boolean"}},
                        question=_ref("Question"),
                    )
                ),
                "cursor": {"type": ["string", "null"]},
            }
        ),
        "HandedBack": _closed(
            {"session": _TEXT, "turn": _TEXT, "status": {"const": "returned"}, "events": _TEXT}
        ),
        "MessageStored": _closed(
            {
                "session": _TEXT,
                "turn": _TEXT,
                "status": {"const": "stored"},
                "message": _closed({"id": _TEXT, "number": _COUNT, "created_at": _NUMBER}),
            }
        ),
        "UnknownEffect": _closed(_CALL_FIELDS | {"effect": _TEXT}),
        "EffectList": _closed(
            {
                "effects": _list_of(
                    _closed(_CALL_FIELDS | {"effect": _TEXT, "may_resolve": {"type": "boolean"}})
                ),
                "cursor": {"type": ["string", "null"]},
            }
        ),
        "HandoverList": _closed(
            {
                "handovers": _list_of(
                    _closed(
                        _CALL_FIELDS
                        | {
                            "role": {"type": ["string", "null"]},
                            "expires_at": _NUMBER,
                            "may_answer": {"type": "boolean"},
                            "messages": _TEXT,
                        }
                    )
                ),
                "cursor": {"type": ["string", "null"]},
            }
        ),
        "Resolved": _closed({"effect": _TEXT, "turn": _TEXT, "decision": decision}),
        "ChatCompletion": _closed(
            {
                "id": _TEXT,
                "object": {"const": "chat.completion"},
                "created": _COUNT,
                "model": _TEXT,
                "choices": {"type": "array", "items": choice, "minItems": 1, "maxItems": 1},
                "usage": _closed(used),
            },
            seawall=_closed(
                {"status": {"enum": ["paused", "person"]}, "turn": _TEXT},
                approvals=_list_of(_ref("RequestedApproval")),
            ),
        ),
        "Model": model,
        "ModelList": _closed({"object": {"const": "list"}, "data": _list_of(_ref("Model"))}),
        "Session": _closed(_SESSION_FIELDS),
        "SessionList": _closed(
            {"sessions": _list_of(_ref("Session")), "cursor": {"type": ["string", "null"]}}
        ),
        "SessionTurns": _closed(
            _SESSION_FIELDS | {"turns": _list_of(record), "cursor": {"type": ["string", "null"]}}
        ),
        "Fact": _closed(
            {
                **dict.fromkeys(("id", "key", "text", "agent", "session", "turn"), _TEXT),
                "said": {"type": "boolean"},
                "by": {"enum": ["agent", "subject"]},
                "version": _COUNT,
                **dict.fromkeys(("created_at", "updated_at", "expires_at"), _NUMBER),
            }
        ),
        "Memory": _closed({"facts": _list_of(_ref("Fact"))}),
        "Health": _closed({"status": {"enum": ["alive", "ready"]}}),
    }


def _paths() -> dict[str, Any]:
    identifier = {"type": "string", "minLength": 1}
    agent = {"type": "string", "pattern": IDENTIFIER_PATTERN}
    session = _parameter("session", "path", "A session of the caller's own.", identifier)
    turn = _parameter("turn", "path", "A turn of the caller's own.", identifier)
    effect = _parameter("effect", "path", "An effect of unknown outcome.", identifier)
    fact = _parameter("fact", "path", "A fact about the caller.", identifier)
    page = [
        _parameter(
            "limit",
            "query",
            "Size of the page; 50 by default.",
            {"type": "integer", "minimum": 1, "maximum": 200},
        ),
        _parameter("cursor", "query", "The value from the previous page.", _TEXT),
    ]
    name = {"type": "string", "pattern": KEY_PATTERN}
    key = _parameter("Idempotency-Key", "header", "A retry with it returns the first answer.", name)
    frames = {"text/event-stream": {"schema": _ref("Frame")}}
    chunks = {"text/event-stream": {"schema": _closed({"data": _TEXT}, event={"const": "message"})}}
    after = {"type": "string", "pattern": "^[0-9]{1,12}$"}
    health = _json("Health")
    return {
        "/v1/turns": {
            "post": _operation(
                "Run a turn; streamed with `Accept: text/event-stream` or `stream`",
                {
                    "200": _answer(
                        "The durable answer, or its events as they happen.",
                        _json("TurnAnswer") | frames,
                        "Server-Timing",
                        "Seawall-Client-Instructions",
                    ),
                    "202": _answer(
                        "Not streamed: a background turn, or one that waits for approval or for "
                        "its client. Its events are at `events`.",
                        {
                            "application/json": {
                                "schema": {"anyOf": [_ref("TurnAccepted"), _ref("TurnPaused202")]}
                            }
                        },
                        "Location",
                    ),
                },
                _TURN,
                body="TurnBody",
                parameters=[key],
            )
        },
        "/v1/turns/{turn}/events": {
            "get": _operation(
                "The events of a turn, as they happen or replayed",
                {"200": _answer("A stream of events.", frames)},
                (*_READ, 409, 413, 429, 502),
                parameters=[
                    turn,
                    _parameter("Last-Event-ID", "header", "The last received event.", after),
                ],
            )
        },
        "/v1/turns/{turn}/cancel": {
            "post": _operation(
                "End a turn that runs in the background or under an idempotency key",
                {"204": _answer("The turn has ended; what it did is recorded.")},
                (*_OWNED, 404, 413, 415),
                parameters=[turn],
            )
        },
        "/v1/turns/{turn}/approvals/{call}": {
            "post": _operation(
                "Decide about a call that waits, or answer its question; the turn continues",
                {"200": _answer("The decision was taken.", _json("Decided"))},
                _DECIDED,
                body="Verdict",
                parameters=[
                    _parameter("turn", "path", "A paused turn.", identifier),
                    _parameter("call", "path", "The call that waits.", identifier),
                ],
            )
        },
        "/v1/turns/{turn}/tools/{call}": {
            "post": _operation(
                "Return the result of a call that the client runs; the turn continues",
                {"200": _answer("The result was taken.", _json("Returned"))},
                (*_POSTED, 409),
                body="ResultBody",
                parameters=[
                    _parameter("turn", "path", "A paused turn.", identifier),
                    _parameter("call", "path", "The call that waits.", identifier),
                ],
            )
        },
        "/v1/approvals": {
            "get": _operation(
                "Calls that wait for approval: the caller's, and those it may decide about",
                {"200": _answer("A page of calls.", _json("ApprovalList"))},
                (*_OWNED, 422),
                parameters=page,
            )
        },
        "/v1/sessions/{session}/messages": {
            "post": _operation(
                "A person's message in a conversation that was handed over, or its hand-back",
                {
                    "200": _answer(
                        "The message is stored, or the turn continues.",
                        {
                            "application/json": {
                                "schema": {"anyOf": [_ref("MessageStored"), _ref("HandedBack")]}
                            }
                        },
                    )
                },
                _DECIDED,
                body="PersonMessage",
                parameters=[session, key],
            )
        },
        "/v1/handovers": {
            "get": _operation(
                "Conversations that wait for a person: the caller's, and those it may answer",
                {"200": _answer("A page of conversations.", _json("HandoverList"))},
                (*_OWNED, 422),
                parameters=page,
            )
        },
        "/v1/effects": {
            "get": _operation(
                "Effects of unknown outcome: the caller's; for operators, the tenant's",
                {"200": _answer("A page of effects.", _json("EffectList"))},
                (*_OWNED, 422),
                parameters=page,
            )
        },
        "/v1/effects/{effect}": {
            "get": _operation(
                "An effect of unknown outcome",
                {"200": _answer("The effect.", _json("UnknownEffect"))},
                (*_OWNED, 404),
                parameters=[effect],
            )
        },
        "/v1/effects/{effect}/resolution": {
            "post": _operation(
                "Record what became of an effect of unknown outcome",
                {"200": _answer("It was recorded.", _json("Resolved"))},
                _DECIDED,
                body="ResolutionBody",
                parameters=[effect],
            )
        },
        "/v1/chat/completions": {
            "post": _operation(
                "A turn in OpenAI's format",
                {
                    "200": _answer(
                        "A chat completion, or a stream of chunks.",
                        _json("ChatCompletion") | chunks,
                        "Seawall-Session",
                        "Seawall-Client-Instructions",
                    )
                },
                _TURN,
                body="ChatBody",
                parameters=[
                    key,
                    _parameter(
                        "Seawall-Session",
                        "header",
                        "The session to continue.",
                        {"type": "string", "pattern": IDENTIFIER_PATTERN},
                    ),
                ],
            )
        },
        "/v1/ui/chat": {
            "post": _operation(
                "A turn for the AI SDK, or a decision about a call, with which a turn continues",
                {
                    "200": _answer(
                        "A UI message stream, version 1.",
                        chunks,
                        "Seawall-Session",
                        "X-Vercel-AI-UI-Message-Stream",
                    )
                },
                (*_TURN, 403),
                body="UiBody",
                parameters=[key],
            )
        },
        "/v1/ui/chat/{chat}/stream": {
            "get": _operation(
                "The turn of a chat that is in progress, or waits for a decision",
                {
                    "200": _answer(
                        "All of its UI message stream, as it happens.",
                        chunks,
                        "Seawall-Session",
                        "X-Vercel-AI-UI-Message-Stream",
                    ),
                    "204": _answer("There is none."),
                },
                (*_OWNED, 404, 409, 413, 415, 422, 429, 502),
                parameters=[
                    _parameter(
                        "chat",
                        "path",
                        "A chat of the caller's own.",
                        {"type": "string", "pattern": IDENTIFIER_PATTERN},
                    )
                ],
            )
        },
        **{
            path: {
                "post": _operation(
                    "A run of AG-UI: a turn, or answers to interrupts, with which it continues",
                    {"200": _answer("Events of AG-UI.", chunks)},
                    _TURN,
                    body="AgUiBody",
                    parameters=[key, *more],
                )
            }
            for path, more in (
                ("/v1/ag-ui", ()),
                ("/v1/ag-ui/{agent}", (_parameter("agent", "path", "An agent.", agent),)),
            )
        },
        "/v1/models": {
            "get": _operation(
                "The agents, as models",
                {"200": _answer("A list of models.", _json("ModelList"))},
                _OWNED,
            )
        },
        "/v1/models/{model}": {
            "get": _operation(
                "An agent, as a model",
                {"200": _answer("The model.", _json("Model"))},
                (*_OWNED, 404),
                parameters=[_parameter("model", "path", "An agent, or auto.", identifier)],
            )
        },
        "/v1/sessions": {
            "get": _operation(
                "The caller's sessions, most recently opened first",
                {"200": _answer("A page of sessions.", _json("SessionList"))},
                (*_OWNED, 422),
                parameters=page,
            )
        },
        "/v1/sessions/{session}": {
            "get": _operation(
                "A session with its turns, newest first",
                {"200": _answer("The session, and a page of turns.", _json("SessionTurns"))},
                _READ,
                parameters=[session, *page],
            ),
            "delete": _operation(
                "Delete a session",
                {"204": _answer("The session was deleted.")},
                (*_OWNED, 404),
                parameters=[session],
            ),
        },
        "/v1/memory": {
            "get": _operation(
                "What is remembered of the caller",
                {"200": _answer("All facts.", _json("Memory"))},
                (*_OWNED, 403),
            ),
            "delete": _operation(
                "Delete all that is remembered of the caller",
                {"204": _answer("It was deleted.")},
                (*_OWNED, 403),
            ),
        },
        "/v1/memory/{fact}": {
            "get": _operation(
                "A fact that is remembered of the caller",
                {"200": _answer("The fact.", _json("Fact"))},
                (*_OWNED, 403, 404),
                parameters=[fact],
            ),
            "patch": _operation(
                "Correct a fact",
                {"200": _answer("The corrected fact.", _json("Fact"))},
                (*_POSTED, 403),
                body="CorrectionBody",
                parameters=[fact],
            ),
            "delete": _operation(
                "Delete a fact",
                {"204": _answer("The fact was deleted.")},
                (*_OWNED, 403, 404),
                parameters=[fact],
            ),
        },
        "/livez": _open("Liveness probe", "The process is alive.", health),
        "/readyz": _open("Readiness probe", "The server accepts turns.", health),
        "/metrics": _open(
            "Prometheus metrics", "The metrics.", {"text/plain": {"schema": _TEXT}}, 404
        ),
        "/openapi.json": _open(
            "This document", "The OpenAPI document.", {"application/json": {"schema": _OBJECT}}
        ),
    }


def _add_recording(paths: dict[str, Any]) -> None:
    """Describe the header with which the console keeps the course of a turn."""
    header = _parameter(
        "Seawall-Record",
        "header",
        "The console has the turn's course in any case; for credentials that may look there.",
        {"const": "1"},
    )
    for path in _RUN_TURNS:
        if path in paths:
            post = paths[path]["post"]
            post["parameters"] = [*post.get("parameters", ()), header]
            post["responses"].setdefault("403", {"$ref": "#/components/responses/Problem403"})


def _open(summary: str, description: str, content: Schema, *more: int) -> dict[str, Any]:
    """A path that needs no credential."""
    answers = {"200": _answer(description, content)}
    return {"get": _operation(summary, answers, (*_ANY, *more), security=[])}


def _mcp_paths() -> dict[str, Any]:
    """The endpoint of the Model Context Protocol, which describes its messages itself."""
    message: Schema = {
        "type": "object",
        "required": ["jsonrpc"],
        "properties": {
            "jsonrpc": {"const": "2.0"},
            "id": {"type": ["string", "integer"]},
            "method": _TEXT,
            "params": _OBJECT,
        },
    }
    json = {"application/json": {"schema": message}}
    frames = {"text/event-stream": {"schema": _closed({"event": _TEXT, "data": _TEXT})}}
    error = "A JSON-RPC error, or problem details (RFC 9457)."
    either = json | {"application/problem+json": {"schema": _ref("Problem")}}
    answers = {
        "200": _answer("The response, or a stream with progress that ends with it.", json | frames),
        "202": _answer("The notification was taken."),
        **{str(status): _answer(error, either) for status in (400, 403, 404, 406, 415, 503)},
    }
    versions = "https://modelcontextprotocol.io/specification"
    post = _operation(
        "One message of the Model Context Protocol", answers, (401, 405, 408, 413, 431, 500, 504)
    )
    post["requestBody"] = {"required": True, "content": json}
    post["externalDocs"] = {"url": versions}
    return {"/mcp": {"post": post}}


def _operation(
    summary: str,
    answers: dict[str, Any],
    problems: Iterable[int],
    body: str = "",
    **rest: object,
) -> dict[str, Any]:
    for status in sorted(problems):
        answers[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
    if body:
        rest["requestBody"] = {"required": True, "content": _json(body)}
    return {"summary": summary, "responses": answers, **rest}


def _answer(description: str, content: Schema | None = None, *headers: str) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": description, "headers": _sent("X-Request-ID")}
    answer["headers"] |= _sent(*headers)
    if content is not None:
        answer["content"] = content
    return answer


def _problem(status: int) -> dict[str, Any]:
    """The response with this status, with its codes."""
    codes = sorted({kind.code for kind in _kinds() if kind.status == status})
    listed = f" Codes: {', '.join(codes)}." if codes else ""
    headers = {401: ["WWW-Authenticate"], 405: ["Allow"], 429: ["Retry-After"]}
    headers[503] = ["Retry-After"]
    return {
        "description": f"{_TITLES[status]} Problem details (RFC 9457); `code` is stable.{listed}",
        "headers": _sent("X-Request-ID", *headers.get(status, [])),
        "content": {"application/problem+json": {"schema": _ref("Problem")}},
    }


def _headers() -> dict[str, Any]:
    described = {
        "X-Request-ID": "The id of this request, as in logs; the client's own if it sent one.",
        "Server-Timing": "Duration of each stage, for a response that is not streamed.",
        "Location": "Address of the turn's events.",
        "Seawall-Session": "The session of the turn.",
        "Seawall-Client-Instructions": "What became of the client's instructions: appended or "
        "ignored; without any there is no header.",
        "X-Vercel-AI-UI-Message-Stream": "Version of the stream: v1.",
        "WWW-Authenticate": "How to authenticate.",
        "Allow": "The allowed methods.",
        "Retry-After": "Seconds after which a retry may succeed, if known.",
    }
    always = ("X-Request-ID", "WWW-Authenticate", "Allow", "Seawall-Session")
    return {
        name: {"description": text, "required": name in always, "schema": _TEXT}
        for name, text in described.items()
    }


def _sent(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _json(name: str) -> Schema:
    return {"application/json": {"schema": _ref(name)}}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


_NULL: Schema = {"type": "null"}


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


def _message_text(settings: ServerSettings) -> Schema:
    return {
        "type": "string",
        "minLength": 1,
        "maxLength": settings.max_text_characters,
        "pattern": "^[^\\u0000]*\\S[^\\u0000]*$",
    }


def _parameter(name: str, where: str, description: str, schema: Schema) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": schema,
    }


def _kinds() -> list[type[errors.Problem]]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return [kind for kind in kinds if issubclass(kind, errors.Problem)]


def _problem_schema() -> Schema:
    error = {"message": _TEXT, "type": _TEXT, "code": _TEXT, "param": {"type": ["string", "null"]}}
    return _closed(
        {
            "type": _TEXT,
            "title": _TEXT,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "code": {"type": "string", "enum": sorted({kind.code for kind in _kinds()})},
            "detail": _TEXT,
            "request_id": _TEXT,
            "error": _closed(error),
        },
        field=_TEXT,
        retry_after=_NUMBER,
        effects=_list_of(_closed({"id": _TEXT, "tool": _TEXT, "status": _TEXT})),
    )
