"""Paths of the APIs and their endpoints.

The modules of an API are imported with the first request to it: a cold start need not wait for
them, and a pod has them before it is ready, by its warm-up.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Concatenate

from seawall.hosts.http.exchange import Exchange

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["Endpoint", "find_endpoints"]

Endpoint = Callable[["Orchestrator", Exchange], Awaitable[None]]

# A pattern has names of its values in braces, each of one segment; `{name*}` is the rest of the
# path. The values follow the arguments of an endpoint.
_Handler = Callable[Concatenate["Orchestrator", Exchange, ...], Awaitable[None]]
_Routes = Mapping[str, Mapping[str, _Handler]]


def find_endpoints(path: str) -> dict[str, Endpoint] | None:
    """The endpoints of a path by method; None if there are none."""
    for prefix, load in _APIS.items():
        if path.startswith(prefix):
            routes = load()
            break
    else:
        return None
    for pattern, handlers in routes.items():
        values = _values(pattern, path)
        if values is not None:
            return {method: _with(each, values) for method, each in handlers.items()}
    return None


def _with(handler: _Handler, values: tuple[str, ...]) -> Endpoint:
    if not values:
        return handler

    async def answer(orchestrator: "Orchestrator", exchange: Exchange) -> None:
        await handler(orchestrator, exchange, *values)

    return answer


def _values(pattern: str, path: str) -> tuple[str, ...] | None:
    """The values of a pattern in a path; None if it does not match. No value is empty."""
    values: list[str] = []
    rest: str | None = path
    for part in pattern.split("/"):
        if rest is None:
            return None
        if part.endswith("*}"):
            values.append(rest)
            rest = None
            break
        segment, slash, after = rest.partition("/")
        if part.startswith("{"):
            values.append(segment)
        elif part != segment:
            return None
        rest = after if slash else None
    return tuple(values) if rest is None and all(values) else None


@cache
def _turns() -> _Routes:
    from seawall.hosts.http.effects import (  # noqa: PLC0415
        cancel_turn,
        decide_call,
        return_call_result,
    )
    from seawall.hosts.http.turns import answer_turn_events  # noqa: PLC0415

    return {
        "/v1/turns/{turn}/events": {"GET": answer_turn_events},
        "/v1/turns/{turn}/cancel": {"POST": cancel_turn},
        "/v1/turns/{turn}/tools/{call*}": {"POST": return_call_result},
        "/v1/turns/{turn}/approvals/{call*}": {"POST": decide_call},
    }


@cache
def _sessions() -> _Routes:
    from seawall.hosts.http.handover import list_handovers, post_message  # noqa: PLC0415
    from seawall.hosts.http.sessions import (  # noqa: PLC0415
        delete_session,
        list_sessions,
        show_session,
    )

    return {
        "/v1/sessions": {"GET": list_sessions},
        "/v1/sessions/{session}": {"GET": show_session, "DELETE": delete_session},
        "/v1/sessions/{session}/messages": {"POST": post_message},
        "/v1/handovers": {"GET": list_handovers},
    }


@cache
def _effects() -> _Routes:
    from seawall.hosts.http.effects import (  # noqa: PLC0415
        list_approvals,
        list_effects,
        resolve,
        show_effect,
    )

    return {
        "/v1/approvals": {"GET": list_approvals},
        "/v1/effects": {"GET": list_effects},
        "/v1/effects/{effect}": {"GET": show_effect},
        "/v1/effects/{effect}/resolution": {"POST": resolve},
    }


@cache
def _files() -> _Routes:
    from seawall.hosts.http.files import (  # noqa: PLC0415
        delete_file,
        list_files,
        show_content,
        show_file,
        upload_file,
    )

    return {
        "/v1/files": {"POST": upload_file, "GET": list_files},
        "/v1/files/{file}": {"GET": show_file, "DELETE": delete_file},
        "/v1/files/{file}/content": {"GET": show_content},
    }


@cache
def _memory() -> _Routes:
    from seawall.hosts.http.memory import (  # noqa: PLC0415
        correct_fact,
        delete_fact,
        delete_memory,
        list_memory,
        show_fact,
    )

    return {
        "/v1/memory": {"GET": list_memory, "DELETE": delete_memory},
        "/v1/memory/{fact}": {"GET": show_fact, "PATCH": correct_fact, "DELETE": delete_fact},
    }


@cache
def _chat() -> _Routes:
    from seawall.hosts.http.chat import answer_chat, answer_model, answer_models  # noqa: PLC0415

    return {
        "/v1/chat/completions": {"POST": answer_chat},
        "/v1/models": {"GET": answer_models},
        "/v1/models/{model*}": {"GET": answer_model},
    }


@cache
def _responses() -> _Routes:
    from seawall.hosts.http.openai_conversations import (  # noqa: PLC0415
        add_conversation_items,
        create_conversation,
        delete_conversation,
        list_conversation_items,
        show_conversation,
        show_conversation_item,
        update_conversation,
    )
    from seawall.hosts.http.responses import answer_response  # noqa: PLC0415
    from seawall.hosts.http.responses_stored import (  # noqa: PLC0415
        cancel_response,
        delete_response,
        list_input_items,
        show_response,
    )

    return {
        "/v1/responses": {"POST": answer_response},
        "/v1/responses/{response}": {"GET": show_response, "DELETE": delete_response},
        "/v1/responses/{response}/cancel": {"POST": cancel_response},
        "/v1/responses/{response}/input_items": {"GET": list_input_items},
        "/v1/conversations": {"POST": create_conversation},
        "/v1/conversations/{name}": {
            "GET": show_conversation,
            "POST": update_conversation,
            "DELETE": delete_conversation,
        },
        "/v1/conversations/{name}/items": {
            "GET": list_conversation_items,
            "POST": add_conversation_items,
        },
        "/v1/conversations/{name}/items/{item*}": {"GET": show_conversation_item},
    }


@cache
def _ui() -> _Routes:
    from seawall.hosts.http.ui import answer_ui_chat, resume_ui_chat  # noqa: PLC0415

    return {
        "/v1/ui/chat": {"POST": answer_ui_chat},
        "/v1/ui/chat/{chat}/stream": {"GET": resume_ui_chat},
    }


@cache
def _ag_ui() -> _Routes:
    from seawall.hosts.http.ag_ui import answer_run  # noqa: PLC0415

    return {"/v1/ag-ui": {"POST": answer_run}, "/v1/ag-ui/{agent}": {"POST": answer_run}}


@cache
def _widget() -> _Routes:
    from seawall.hosts.http.widget import show_widget  # noqa: PLC0415

    return {"/seawall-chat.js": {"GET": show_widget}}


_APIS: dict[str, Callable[[], _Routes]] = {
    "/v1/turns/": _turns,
    "/v1/chat/": _chat,
    "/v1/models": _chat,
    "/v1/sessions": _sessions,
    "/v1/handovers": _sessions,
    "/v1/approvals": _effects,
    "/v1/effects": _effects,
    "/v1/files": _files,
    "/v1/memory": _memory,
    "/v1/responses": _responses,
    "/v1/conversations": _responses,
    "/v1/ui/": _ui,
    "/v1/ag-ui": _ag_ui,
    "/seawall-chat.js": _widget,
}
