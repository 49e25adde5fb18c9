"""A server whose model does what the message says, and whose tools misbehave."""

import asyncio
import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator

from seawall import Orchestrator, ToolContext, ToolError
from seawall.config import parse_settings
from seawall.errors import UpstreamFailed
from seawall.models import ModelRequest
from seawall.models.scripted import ScriptedModel
from seawall.turn import AssistantMessage, ToolCall, UserMessage

CONFIGURATION = """
[identity]
anonymous = true
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[agents.only]
instructions = "Help."
tools = ["pay", "payments", "healthy", "hang", "ignore", "raises", "raises_later", "flood",
  "generate", "block", "swallow", "allocate", "wait",
  "raises_in_task", "raises_behind"]
limits = {tool_seconds = 1.0, tool_calls = 64}
"""

_attempts: Counter[str] = Counter()
_failed: set[str] = set()
_paid: dict[str, dict[str, float]] = {}


def _answer(request: ModelRequest) -> str | tuple[ToolCall, ...]:
    """The step of the message's script, of which each attempt at the turn has its own.

    A script is {"attempts": [[step, ...], ...]}; a step is a list of [tool, raw arguments], or a
    text; of texts, "FAIL" fails as a model does and "raise NAME" raises that.
    """
    *_, last = (at for at, each in enumerate(request.messages) if isinstance(each, UserMessage))
    asked = request.messages[last]
    assert isinstance(asked, UserMessage)
    script = json.loads(asked.text)["attempts"]
    done = sum(isinstance(each, AssistantMessage) for each in request.messages[last:])
    if done == 0 or asked.text in _failed:  # a retry continues after steps with effects
        _attempts[asked.text] += 1
        _failed.discard(asked.text)
    step = script[min(_attempts[asked.text], len(script)) - 1][done]
    if step == "FAIL":
        _failed.add(asked.text)
        raise UpstreamFailed("The model failed.")
    if isinstance(step, str):
        if step.startswith("raise "):
            raise _errors[step.removeprefix("raise ")]
        return step
    return tuple(
        ToolCall(f"call_{done}_{index}_{os.urandom(3).hex()}", name, arguments)
        for index, (name, arguments) in enumerate(step)
    )


_errors: dict[str, BaseException] = {
    "SystemExit": SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "GeneratorExit": GeneratorExit(),
    "CancelledError": asyncio.CancelledError(),
    "BaseException": BaseException("base"),
    "BaseExceptionGroup": BaseExceptionGroup("group", [SystemExit(4)]),
    "StopIteration": StopIteration("stop"),
    "StopAsyncIteration": StopAsyncIteration("stop"),
    "RecursionError": RecursionError("deep"),
    "MemoryError": MemoryError(),
    "TimeoutError": TimeoutError("own"),
}

app = Orchestrator(parse_settings(CONFIGURATION, environment=os.environ))
app.model("default", ScriptedModel(_answer))


def pay(
    account: str,
    amount: float,
    context: ToolContext,
    *,
    parts: int = 1,
    note: str | None = None,
    to: str = "the café",
) -> str:
    """Pay once for each key.

    Args:
        account: Whose.
        amount: How much.
        parts: In how many.
        note: For the receipt.
        to: The recipient.
    """
    del parts, note, to
    _paid.setdefault(account, {})[context.idempotency_key] = amount
    return "paid"


app.tool(pay, mutating=True, duplicates="allow")


@app.tool
def payments(account: str) -> int:
    """How many were made."""
    return len(_paid.get(account, {}))


@app.tool
def healthy() -> int:
    """Answers at once, with the process."""
    return os.getpid()


@app.tool
def hang() -> str:
    """Never returns."""
    while True:
        time.sleep(3_600)


@app.tool
async def ignore() -> str:
    """Never returns, whatever cancels it."""
    while True:
        with contextlib.suppress(BaseException):
            await asyncio.sleep(3_600)


@app.tool
def raises(name: str) -> str:
    """Raise that."""
    raise _errors[name]


@app.tool
async def raises_later(name: str) -> str:
    """Raise that, after a moment."""
    await asyncio.sleep(0.01)
    raise _errors[name]


@app.tool
def flood(characters: int, raised: bool) -> str:
    """Return a very long text."""
    if raised:
        raise ToolError("x" * characters)
    return "x" * characters


@app.tool
async def generate() -> AsyncIterator[str]:
    """No function that a tool can be."""
    yield "piece"
    raise SystemExit(5)


@app.tool
async def block(seconds: float) -> str:
    """Block the event loop."""
    time.sleep(seconds)  # noqa: ASYNC251 - what must not be done is what is tested
    return "done"


@app.tool
async def swallow() -> str:
    """Ends some time after its cancellation."""
    try:
        await asyncio.sleep(3_600)
    except asyncio.CancelledError:
        await asyncio.sleep(0.2)
    return "ended"


@app.tool
def allocate(gigabytes: int) -> int:
    """Allocate more memory than there is."""
    return len(bytearray(gigabytes << 30))


@app.tool
async def wait(seconds: float) -> str:
    """Take some time."""
    await asyncio.sleep(seconds)
    return "waited"


async def _raise(name: str) -> None:
    await asyncio.sleep(0.01)
    raise _errors[name]


@app.tool
async def raises_in_task(name: str) -> str:
    """Raise that in a task that is awaited."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_raise(name))
    return "done"


_behind: set[asyncio.Task[None]] = set()


@app.tool
async def raises_behind(name: str) -> str:
    """Raise that in a task that nothing waits for."""
    _behind.add(asyncio.create_task(_raise(name)))
    await asyncio.sleep(0.1)
    return "done"
