"""Recordings of the same answers in the documented format of each provider.

An answer is text, then tool calls, then its end. `test_oracles.py` checks the recordings with the
providers' own clients.
"""

import json
import struct
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol
from zlib import crc32

from msgspec import Struct

from seawall.aws import Credentials
from seawall.models import Model
from seawall.models.anthropic import AnthropicModel, AnthropicReader, AnthropicSettings
from seawall.models.assembly import Reader
from seawall.models.bedrock import BedrockModel, BedrockReader, BedrockSettings
from seawall.models.openai import OpenAIModel, OpenAIReader, OpenAISettings
from seawall.models.responses import ResponsesModel, ResponsesReader, ResponsesSettings
from seawall.transport.http_client import HttpClient

CREDENTIALS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a-token")


class Call(Struct, frozen=True):
    """A tool call; its arguments in pieces."""

    id: str
    name: str
    pieces: tuple[str, ...]


class Spent(Struct, frozen=True):
    """Token counts; `read` includes those read from and written to the cache."""

    read: int = 120
    written: int = 30
    from_cache: int = 0
    to_cache: int = 0


SPENT = Spent()


class Wire(Protocol):
    """A provider: its adapter and its wire format."""

    name: str
    content_type: str
    statuses_in_stream: ClassVar[dict[str, str]]
    """Errors in a stream: code of the problem by code of the error."""

    def model(self, url: str, client: HttpClient, **settings: Any) -> Model: ...
    def reader(self) -> Reader: ...
    def answer(
        self,
        texts: Sequence[str],
        calls: Sequence[Call] = (),
        *,
        end: str = "stop",
        spent: Spent = SPENT,
    ) -> list[bytes]:
        """Return one event per element. end: "stop", "length" or "content_filter"; complete calls
        have an end of their own."""
        ...

    def noise(self) -> list[bytes]:
        """Keep-alives, and unknown events."""
        ...

    def broken(self) -> bytes:
        """An event whose content is not in the format."""
        ...

    def error(self, code: str) -> bytes:
        """An error in mid-answer."""
        ...


def sse(data: dict[str, Any], *, named: bool = True) -> bytes:
    name = f"event: {data['type']}\n" if named else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()


class AnthropicWire:
    """https://platform.claude.com/docs/en/build-with-claude/streaming (read 2026-11)."""

    name = "anthropic"
    content_type = "text/event-stream"
    statuses_in_stream: ClassVar[dict[str, str]] = {
        "overloaded_error": "upstream-throttled",
        "rate_limit_error": "upstream-throttled",
        "invalid_request_error": "upstream-refused",
        "api_error": "upstream-failed",
        "of_tomorrow": "upstream-failed",
    }

    def model(self, url: str, client: HttpClient, **settings: Any) -> Model:
        asked = {"base_url": f"{url}/v1", "model": "claude-sonnet-5", "api_key": "sk-ant-test"}
        return AnthropicModel("test", AnthropicSettings(**(asked | settings)), client)

    def reader(self) -> Reader:
        return AnthropicReader("test")

    def answer(
        self,
        texts: Sequence[str],
        calls: Sequence[Call] = (),
        *,
        end: str = "stop",
        spent: Spent = SPENT,
    ) -> list[bytes]:
        counts = {
            "input_tokens": spent.read - spent.from_cache - spent.to_cache,
            "cache_read_input_tokens": spent.from_cache,
            "cache_creation_input_tokens": spent.to_cache,
            "output_tokens": 1,
        }
        message: dict[str, Any] = {
            "id": "msg_01",
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": "claude-sonnet-5",
            "stop_reason": None,
            "stop_sequence": None,
            "usage": counts,
        }
        events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
        index = 0
        if texts:
            block = {"type": "text", "text": ""}
            events.append({"type": "content_block_start", "index": 0, "content_block": block})
            for text in texts:
                delta = {"type": "text_delta", "text": text}
                events.append({"type": "content_block_delta", "index": 0, "delta": delta})
            events.append({"type": "content_block_stop", "index": 0})
            index = 1
        for call in calls:
            use = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            events.append({"type": "content_block_start", "index": index, "content_block": use})
            for piece in ("", *call.pieces):
                part = {"type": "input_json_delta", "partial_json": piece}
                events.append({"type": "content_block_delta", "index": index, "delta": part})
            events.append({"type": "content_block_stop", "index": index})
            index += 1
        reasons = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}
        reason = "tool_use" if calls and end == "stop" else reasons[end]
        ending = {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": {"output_tokens": spent.written},
        }
        return [sse(event) for event in [*events, ending, {"type": "message_stop"}]]

    def noise(self) -> list[bytes]:
        thinking = {"type": "thinking_delta", "thinking": "hm"}
        return [
            sse({"type": "ping"}),
            sse({"type": "of_tomorrow", "delta": "not an object"}),
            sse({"type": "content_block_delta", "index": 9, "delta": thinking}),
        ]

    def broken(self) -> bytes:
        return b'event: message_delta\ndata: {"type": "message_delta", "delta": 7}\n\n'

    def error(self, code: str) -> bytes:
        return sse({"type": "error", "error": {"type": code, "message": "a secret of theirs"}})


class OpenAIWire:
    """https://platform.openai.com/docs/api-reference/chat-streaming (read 2026-11)."""

    name = "openai"
    content_type = "text/event-stream"
    statuses_in_stream: ClassVar[dict[str, str]] = {"server_error": "upstream-failed"}

    def model(self, url: str, client: HttpClient, **settings: Any) -> Model:
        asked = {"base_url": f"{url}/v1", "model": "gpt-5.6", "api_key": "sk-test"}
        return OpenAIModel("test", OpenAISettings(**(asked | settings)), client)

    def reader(self) -> Reader:
        return OpenAIReader("test")

    def answer(
        self,
        texts: Sequence[str],
        calls: Sequence[Call] = (),
        *,
        end: str = "stop",
        spent: Spent = SPENT,
    ) -> list[bytes]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": text} for text in texts]
        for index, call in enumerate(calls):
            begun = {"name": call.name, "arguments": ""}
            first: dict[str, Any] = {
                "index": index,
                "id": call.id,
                "type": "function",
                "function": begun,
            }
            deltas.append({"tool_calls": [first]})
            deltas += [
                {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
                for piece in call.pieces
            ]
        chunks: list[list[dict[str, Any]]] = [
            [{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas
        ]
        reason = "tool_calls" if calls and end == "stop" else end
        chunks += [[{"index": 0, "delta": {}, "finish_reason": reason}], []]
        usage: dict[str, Any] = {
            "prompt_tokens": spent.read,
            "completion_tokens": spent.written,
            "total_tokens": spent.read + spent.written,
            "prompt_tokens_details": {
                "cached_tokens": spent.from_cache,
                "cache_write_tokens": spent.to_cache,
            },
        }
        events = [
            {
                "id": "chatcmpl-1",
                "object": "chat.completion.chunk",
                "created": 1_790_000_000,
                "model": "gpt-5.6",
                "choices": choices,
                "usage": None if choices else usage,
            }
            for choices in chunks
        ]
        return [*(sse(event, named=False) for event in events), b"data: [DONE]\n\n"]

    def noise(self) -> list[bytes]:
        return [b": keep-alive\n\n", b'data: {"of_tomorrow": 1, "choices": []}\n\n']

    def broken(self) -> bytes:
        return b'data: {"choices": 7}\n\n'

    def error(self, code: str) -> bytes:
        return sse({"error": {"code": code, "message": "a secret of theirs"}}, named=False)


class ResponsesWire:
    """https://platform.openai.com/docs/api-reference/responses-streaming (read 2026-11)."""

    name = "responses"
    content_type = "text/event-stream"
    statuses_in_stream: ClassVar[dict[str, str]] = {
        "rate_limit_exceeded": "upstream-throttled",
        "invalid_prompt": "upstream-refused",
        "server_error": "upstream-failed",
        "of_tomorrow": "upstream-failed",
    }

    def model(self, url: str, client: HttpClient, **settings: Any) -> Model:
        asked = {"base_url": f"{url}/v1", "model": "gpt-5.6", "api_key": "sk-test"}
        return ResponsesModel("test", ResponsesSettings(**(asked | settings)), client)

    def reader(self) -> Reader:
        return ResponsesReader("test")

    def answer(
        self,
        texts: Sequence[str],
        calls: Sequence[Call] = (),
        *,
        end: str = "stop",
        spent: Spent = SPENT,
    ) -> list[bytes]:
        events: list[dict[str, Any]] = [
            {"type": f"response.{what}", "response": self._response("in_progress", [])}
            for what in ("created", "in_progress")
        ]
        output: list[dict[str, Any]] = []
        if texts:
            where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
            item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress"}
            begun = {**item, "content": []}
            events.append({"type": "response.output_item.added", "output_index": 0, "item": begun})
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            events.append({"type": "response.content_part.added", **where, "part": part})
            kind = "refusal" if end == "content_filter" else "output_text"
            events += [
                {"type": f"response.{kind}.delta", **where, "delta": text, "logprobs": []}
                for text in texts
            ]
            whole = {**item, "status": "completed", "content": [part | {"text": "".join(texts)}]}
            events.append({"type": "response.output_item.done", "output_index": 0, "item": whole})
            output.append(whole)
        for call in calls:
            index = len(output)
            where = {"item_id": f"fc_{index}", "output_index": index}
            asked = {
                "type": "function_call",
                "id": f"fc_{index}",
                "call_id": call.id,
                "name": call.name,
                "status": "in_progress",
                "arguments": "",
            }
            added = {"output_index": index, "item": asked}
            events.append({"type": "response.output_item.added", **added})
            deltas = "response.function_call_arguments"
            events += [{"type": f"{deltas}.delta", **where, "delta": each} for each in call.pieces]
            arguments = "".join(call.pieces)
            chunks = {**where, "name": call.name, "arguments": arguments}
            events.append({"type": f"{deltas}.done", **chunks})
            done: dict[str, Any] = asked | {"arguments": arguments, "status": "completed"}
            events.append({"type": "response.output_item.done", **where, "item": done})
            output.append(done)
        usage = {
            "input_tokens": spent.read,
            "input_tokens_details": {
                "cached_tokens": spent.from_cache,
                "cache_write_tokens": spent.to_cache,
            },
            "output_tokens": spent.written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": spent.read + spent.written,
        }
        status = "incomplete" if end == "length" else "completed"
        response = self._response(status, output) | {"usage": usage}
        if end == "length":
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        events.append({"type": f"response.{status}", "response": response})
        return [sse({"sequence_number": n, **event}) for n, event in enumerate(events)]

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1_790_000_000,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": "x",
            "model": "gpt-5.6",
            "output": output,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "metadata": {},
            "temperature": 1.0,
            "top_p": 1.0,
            "usage": None,
        }

    def noise(self) -> list[bytes]:
        reasoning = {"type": "response.reasoning_summary_text.delta", "delta": "hm"}
        return [
            sse({"type": "keepalive"}),
            sse({"type": "of_tomorrow", "delta": {}}),
            sse(reasoning),
        ]

    def broken(self) -> bytes:
        return b'event: response.completed\ndata: {"type": "response.completed", "response": 7}\n\n'

    def error(self, code: str) -> bytes:
        error = {"code": code, "message": "a secret of theirs"}
        response = self._response("failed", []) | {"error": error}
        return sse({"type": "response.failed", "sequence_number": 9, "response": response})


class BedrockWire:
    """https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html."""

    name = "bedrock"
    content_type = "application/vnd.amazon.eventstream"
    statuses_in_stream: ClassVar[dict[str, str]] = {
        "throttlingException": "upstream-throttled",
        "modelStreamErrorException": "upstream-failed",
        "internalServerException": "upstream-failed",
        "serviceUnavailableException": "upstream-failed",
        "validationException": "upstream-refused",
        "ofTomorrowException": "upstream-failed",
    }

    def model(self, url: str, client: HttpClient, **settings: Any) -> Model:
        asked = {
            "base_url": url,
            "region": "eu-west-1",
            "model": "us.anthropic.claude-sonnet-5-20260401-v1:0",
        }
        found = BedrockSettings(**(asked | settings))
        return BedrockModel("test", found, client, None if found.api_key else Given())

    def reader(self) -> Reader:
        return BedrockReader("test")

    def answer(
        self,
        texts: Sequence[str],
        calls: Sequence[Call] = (),
        *,
        end: str = "stop",
        spent: Spent = SPENT,
    ) -> list[bytes]:
        events: list[tuple[str, dict[str, Any]]] = [("messageStart", {"role": "assistant"})]
        index = 0
        if texts:
            events += [
                ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}, "p": "ab"})
                for text in texts
            ]
            events.append(("contentBlockStop", {"contentBlockIndex": 0}))
            index = 1
        for call in calls:
            where = {"contentBlockIndex": index}
            start = {"toolUse": {"toolUseId": call.id, "name": call.name}}
            events.append(("contentBlockStart", {**where, "start": start}))
            events += [
                ("contentBlockDelta", {**where, "delta": {"toolUse": {"input": piece}}})
                for piece in call.pieces
            ]
            events.append(("contentBlockStop", where))
            index += 1
        reasons = {"stop": "end_turn", "length": "max_tokens", "content_filter": "content_filtered"}
        stop = {"stopReason": "tool_use" if calls and end == "stop" else reasons[end]}
        usage = {
            "inputTokens": spent.read - spent.from_cache - spent.to_cache,
            "outputTokens": spent.written,
            "totalTokens": spent.read + spent.written,
            "cacheReadInputTokens": spent.from_cache,
            "cacheWriteInputTokens": spent.to_cache,
        }
        events.append(("messageStop", stop))
        events.append(("metadata", {"usage": usage, "metrics": {"latencyMs": 12}}))
        return [self._event(name, data) for name, data in events]

    def _event(self, name: str, data: dict[str, Any]) -> bytes:
        headers = {":event-type": name, ":content-type": "application/json"}
        return frame({**headers, ":message-type": "event"}, json.dumps(data).encode())

    def noise(self) -> list[bytes]:
        reasoning = {"contentBlockIndex": 7, "delta": {"reasoningContent": {"text": "hm"}}}
        return [
            self._event("ofTomorrow", {"delta": 7}),
            self._event("contentBlockDelta", reasoning),
        ]

    def broken(self) -> bytes:
        return self._event("contentBlockDelta", {"delta": 7})

    def error(self, code: str) -> bytes:
        headers = {":exception-type": code, ":content-type": "application/json"}
        payload = json.dumps({"message": "a secret of theirs"}).encode()
        return frame({**headers, ":message-type": "exception"}, payload)


class Given:
    """Provides constant credentials."""

    async def get(self, *, deadline: float) -> Credentials:
        assert deadline
        return CREDENTIALS

    async def close(self) -> None:
        pass


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """A message of AWS's event stream; botocore reads it in the tests."""
    encoded = b""
    for name, value in headers.items():
        encoded += struct.pack("!B", len(name)) + name.encode()
        encoded += struct.pack("!BH", 7, len(value.encode())) + value.encode()
    return sealed(encoded, payload)


def sealed(headers: bytes, payload: bytes) -> bytes:
    """Encoded headers and a payload, with lengths and checksums."""
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    whole = prelude + struct.pack("!I", crc32(prelude)) + headers + payload
    return whole + struct.pack("!I", crc32(whole))


WIRES: tuple[Wire, ...] = (AnthropicWire(), BedrockWire(), OpenAIWire(), ResponsesWire())
