"""The client that MCP's conformance suite tests: `conformance_client.py URL`.

The suite appends the URL of its server, and names the scenario in MCP_CONFORMANCE_SCENARIO. The
client does what an agent's tools do: it lists, and calls what it finds; where the suite says in
MCP_CONFORMANCE_CONTEXT what to call, that.
"""

import asyncio
import os
import sys
from typing import Any

import msgspec
from msgspec import structs

from seawall.tools.port import Tool, ToolContext
from seawall.tools.questions import checked_answer
from seawall.tools.settings import McpSettings, SourceLimits
from seawall.tools.sources import open_catalog
from seawall.turn import PendingInput, Principal

_VALUES = {"number": 2, "integer": 2, "boolean": True, "object": {}, "array": []}


def _calls(tools: tuple[Tool, ...]) -> list[tuple[Tool, Any]]:
    """What to call, with which arguments."""
    context = msgspec.json.decode(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    by_name = {each.name: each for each in tools}
    if "toolCalls" in context:
        return [(by_name[each["name"]], each["arguments"]) for each in context["toolCalls"]]
    if "json_schema_echo" in by_name:
        schemas = [each.spec.parameters for each in tools if each.name != "json_schema_echo"]
        return [(by_name["json_schema_echo"], {"schema": schemas[0]})]
    return [(each, _arguments(each.spec.parameters)) for each in tools]


def _arguments(schema: Any) -> dict[str, Any]:
    """A value for each property, by its type."""
    properties = schema.get("properties", {})
    return {name: _VALUES.get(each.get("type"), "text") for name, each in properties.items()}


def _answered(asks: PendingInput) -> PendingInput:
    """What a user enters who leaves all fields as they are."""
    responses: dict[str, dict[str, Any]] = dict(asks.responses)
    for key, question in asks.questions.items():
        fields = question.schema["properties"] if question.schema is not None else {}
        content = {name: each["default"] for name, each in fields.items() if "default" in each}
        checked_answer(question, content)
        responses[key] = {"action": "accept", "content": content}
    return structs.replace(asks, questions={}, responses=responses)


async def _main(url: str) -> int:
    settings = McpSettings(mcp=url, limits=SourceLimits(answer_seconds=20.0), elicitation=True)
    catalog = open_catalog({"server": settings}, folder=".", environment=os.environ)
    loop = asyncio.get_running_loop()
    failed = False
    try:
        await catalog.list_all()
        for tool, arguments in _calls(catalog.tools.get("server", ())):
            principal = Principal("tenant", "subject")
            deadline = loop.time() + 20.0
            context = ToolContext(
                principal, "s", "t", "a", "c", "key", deadline, {}, may_ask=True, may_repeat=True
            )
            written = msgspec.json.encode(arguments).decode()
            outcome = await tool.call(written, context)
            while outcome.asks is not None:
                given = _answered(outcome.asks)
                outcome = await tool.call(written, structs.replace(context, given=given))
            sys.stdout.write(f"{tool.name}: {outcome}\n")
            failed = failed or outcome.failed
    finally:
        await catalog.close()
    return int(failed or bool(catalog.unavailable))


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(sys.argv[1])))
