"""Messages of the Model Context Protocol: whatever is sent is read or rejected, never a defect."""

import base64
import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from seawall.hosts.http.mcp_messages import VERSIONS, Message, Rejected, read_message
from seawall.hosts.http.mcp_tools import read_verdicts

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
methods = st.sampled_from(["initialize", "tools/call", "tools/list", "resources/read"])
versions = st.sampled_from([*VERSIONS, "2030-01-01"])
metas: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {},
    optional={
        VERSION_KEY: versions | json_values,
        CAPABILITIES_KEY: st.just({"elicitation": {}}) | json_values,
        "progressToken": json_values,
    },
)
objects = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | json_values,
        "id": st.integers() | st.text() | json_values,
        "method": methods | json_values,
        "params": st.fixed_dictionaries({}, optional={"_meta": metas | json_values}) | json_values,
        "result": json_values,
    },
)
headers = st.fixed_dictionaries(
    {},
    optional={
        b"mcp-protocol-version": versions.map(str.encode) | st.binary(),
        b"mcp-method": methods.map(str.encode) | st.binary(),
        b"mcp-name": st.binary(),
    },
)


@hypothesis.given(
    st.binary() | (objects | json_values).map(lambda each: json.dumps(each).encode()), headers
)
def test_anything_is_read_or_rejected(body: bytes, sent: dict[bytes, bytes]) -> None:
    message = _read(body, sent)
    if isinstance(message, Rejected):
        assert message.status == 400
        assert message.id is None or type(message.id) in (int, str)
        assert len(str(message)) < 1_000
        return
    assert (message.kind == "request") == (message.id is not None and bool(message.method))
    assert message.progress_token is None or type(message.progress_token) in (int, str)
    assert message.elicits <= {"form", "url"}


def _read(body: bytes, sent: dict[bytes, bytes]) -> Message | Rejected:
    try:
        return read_message(body, sent)
    except Rejected as rejected:
        return rejected


@hypothesis.given(st.text(min_size=1, max_size=64))
def test_a_name_that_is_encoded_in_its_header_is_read(name: str) -> None:
    meta: dict[str, Any] = {VERSION_KEY: VERSIONS[0], CAPABILITIES_KEY: {}}
    params = {"name": name, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    encoded = base64.b64encode(name.encode()).decode()
    sent = {
        b"mcp-protocol-version": VERSIONS[0].encode(),
        b"mcp-method": b"tools/call",
        b"mcp-name": f"=?base64?{encoded}?=".encode(),
    }
    assert read_message(json.dumps(body).encode(), sent).params["name"] == name
    with pytest.raises(Rejected, match="Mcp-Name"):
        read_message(json.dumps(body).encode(), sent | {b"mcp-name": b"=?base64?AA?="})


@hypothesis.given(st.dictionaries(st.text(), json_values) | json_values)
def test_answers_of_users_are_understood_or_ignored(responses: object) -> None:
    assert all(each.decision == "reject" for each in read_verdicts(responses).values())


def test_decisions_are_read() -> None:
    read = read_verdicts(
        {
            "a": {"action": "accept", "content": {"decision": "approve", "note": "Fine."}},
            "b": {"action": "accept", "content": {"decision": "reject"}},
            "c": {"action": "decline"},
            "d": {"action": "cancel"},
            "e": {"action": "accept", "content": {"decision": "edit"}},
            "f": {"action": "accept", "content": {"decision": "approve", "note": "x" * 2_001}},
            "g": {"action": "accept"},
        }
    )
    decisions = {call: (verdict.decision, verdict.note) for call, verdict in read.items()}
    assert decisions == {"a": ("approve", "Fine."), "b": ("reject", ""), "c": ("reject", "")}
