"""A server of version 2025-11-25 that asks the user while a call runs, on its standard streams."""

import json
import sys
from typing import Any

FORM = {
    "type": "object",
    "properties": {"street": {"type": "string", "default": "Main Street 0"}},
    "required": ["street"],
}
TOOLS = [
    {
        "name": "find_shop",
        "inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}},
        "annotations": {"readOnlyHint": True},
    },
    {
        "name": "order",
        "inputSchema": {"type": "object", "properties": {"item": {"type": "string"}}},
    },
]


def send(message: dict[str, Any]) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def receive() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        sys.exit()
    message: dict[str, Any] = json.loads(line)
    return message


def answer(message: dict[str, Any], offered: dict[str, Any]) -> dict[str, Any]:
    method, params = message["method"], message.get("params", {})
    if method == "initialize":
        offered |= params["capabilities"]
        return {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "old", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": TOOLS}
    assert "elicitation" in offered
    asked = {"message": "Where to?", "requestedSchema": FORM}
    send({"id": "q", "method": "elicitation/create", "params": asked})
    response = receive()["result"]
    street = response.get("content", {}).get("street", "no street")
    what = params["arguments"].get("city", "nothing")
    text = f"the shop of {what} near {street} ({response['action']})"
    return {"content": [{"type": "text", "text": text}]}


def main() -> None:
    offered: dict[str, Any] = {}
    while True:
        message = receive()
        if "id" not in message:
            continue
        if message["method"] == "server/discover":
            error = {"code": -32601, "message": "unknown method"}
            send({"id": message["id"], "error": error})
        else:
            send({"id": message["id"], "result": answer(message, offered)})


main()
