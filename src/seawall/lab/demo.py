"""The demo: a conversation, then a surge, on real processes."""

import asyncio
import re
import sqlite3
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import msgspec
from msgspec import Struct

from seawall.errors import SeawallError
from seawall.identity.local_issuer import LocalIssuer
from seawall.identity.settings import JwtSettings
from seawall.lab.processes import Service, consumption, run_service
from seawall.lab.surge.outcome import Progress, SurgeResult
from seawall.lab.surge.process import ProcessUsage, drive_watched
from seawall.lab.surge.scenario import Crowd, Instant, Open, Scenario, Simulated
from seawall.transport.http_client import Endpoint, HttpClient, Response
from seawall.transport.sse import SseParser

__all__ = [
    "Demo",
    "DemoIssuer",
    "DemoResult",
    "RunningDemo",
    "run_demo",
    "running_demo",
    "server_environment",
    "show_event",
    "stream_turn",
]

_ISSUER = "https://demo.seawall.example"
_AUDIENCE = "seawall-demo"
_TURN_SECONDS = 60.0
_TOKENS = "tokens"
_TOKEN_SECONDS = 43_200  # the server may be kept
_STORE_TABLE = "[tools.store]"
_STORE_DATABASE = "SEAWALL_TOOLS__STORE__DATABASE"


class DemoResult(Struct, frozen=True, kw_only=True):
    """The figures of the surge; percentiles in milliseconds.

    Attributes:
        turns: Turns sent.
        completed: With the expected answer.
        failed: All others.
        durable: Completed turns in the session database.
        errors: Number of turns by error.
        first_text: From due to the first text.
        total: From due to the end.
        model_first_text: The model's own part of `first_text`.
        model_total: The model's own part of `total`.
        added_first_text: Added to the first text by the server.
        server_cpu_ms_a_turn: Of all server processes.
        server_kb_a_turn: Peak growth of their memory over peak turns in flight.
        driver_cpu_ms_a_turn: Of the driver, which shares the processors with the server.
        model_cpu_ms_a_turn: Of the simulated model, which does so too.
        driver_cpu_share: Of one processor.
        seconds: Length of the surge.
    """

    turns: int
    completed: int
    failed: int
    durable: int
    errors: dict[str, int]
    first_text: dict[str, float | None]
    total: dict[str, float | None]
    model_first_text: dict[str, float | None]
    model_total: dict[str, float | None]
    added_first_text: dict[str, float | None]
    server_cpu_ms_a_turn: float
    server_kb_a_turn: float
    driver_cpu_ms_a_turn: float
    model_cpu_ms_a_turn: float
    driver_cpu_share: float
    seconds: float


class Demo(Struct, frozen=True, kw_only=True):
    """Settings of the demo.

    Attributes:
        example: Folder of the store example.
        turns: Size of the surge.
        seed: Of the simulated model.
        tools: Where the tools run: in the server, in an HTTP service, or in an MCP server.
        write_line: Called with lines of text.
        write: Called with pieces of text.
        progress: Called with the progress of the surge.
        keep: Awaited after the surge, while the server goes on; None to stop it at once.
    """

    example: Path
    turns: int
    seed: int
    tools: Literal["python", "openapi", "mcp"] = "python"
    write_line: Callable[[str], None]
    write: Callable[[str], None]
    progress: Callable[[Progress], None]
    keep: Callable[["DemoResult"], Awaitable[None]] | None = None


class RunningDemo(Struct, frozen=True):
    """The demo before its surge.

    Attributes:
        model: Simulated.
        server: Of the store example.
        folder: Of its data.
        surge: What is sent to it.
    """

    model: Service
    server: Service
    folder: Path
    surge: Scenario


async def run_demo(demo: Demo) -> DemoResult:
    """Start the simulated model and the server, show the conversation, run the surge.

    Raises:
        SeawallError: Something did not start, or a turn failed.
    """
    async with running_demo(demo) as running:
        demo.write_line(f"{demo.turns} turns are sent at once.\n")
        model_before = consumption(running.model.pid).cpu_seconds
        result, use = await drive_watched(running.surge, [running.server.pid], demo.progress)
        model_cpu = consumption(running.model.pid).cpu_seconds - model_before
        durable = _count_durable(running.folder / "sessions.db", result)
        figures = _result(result, use, durable, model_cpu)
        if demo.keep is not None:
            await demo.keep(figures)
    return figures


@asynccontextmanager
async def running_demo(demo: Demo) -> AsyncGenerator[RunningDemo, None]:
    """Start the simulated model and the server, show the conversation, sign the surge's tokens.

    Raises:
        SeawallError: Something did not start, or a turn failed.
    """
    conversation = demo.example / "conversation.json"
    questions = _user_messages(conversation)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seawall-demo-")))
        issuer = DemoIssuer(folder / "jwks.json")
        model = await stack.enter_async_context(
            run_service(
                *("sim-model", "--port", "0", "--seed", str(demo.seed)),
                *("--script", str(conversation)),
            )
        )
        config, environment = demo.example / "seawall.toml", server_environment(folder, model)
        environment |= _console_environment(folder, demo.seed)
        if demo.tools != "python":
            config = await _tools_elsewhere(demo, stack, folder)
            del environment[_STORE_DATABASE]
        server = await stack.enter_async_context(
            run_service(*("serve", str(config), "--port", "0", "--json"), environment=environment)
        )
        demo.write_line(f"simulated model at {model.url}, server at {server.url}")
        demo.write_line(f"the console, in a browser: {server.url}/console/\n")
        await _show_conversation(demo, server, issuer, questions)
        demo.write_line(f"{demo.turns} tokens are being signed ...")
        tokens = await asyncio.to_thread(
            lambda: [
                issuer.token(f"customer-{index}", seconds=_TOKEN_SECONDS)
                for index in range(demo.turns)
            ]
        )
        (folder / _TOKENS).write_text("\n".join(tokens), encoding="ascii")  # for the console
        surge = Scenario(
            url=server.url,
            load=Open([Crowd(shapes=[Instant(demo.turns)], tokens=tokens)]),
            simulated=Simulated(demo.seed),
            patience=75.0,
        )
        yield RunningDemo(model, server, folder, surge)


def _console_environment(folder: Path, seed: int) -> dict[str, str]:
    """Settings of the console of the demo: for this machine, with surges from the page."""
    (folder / "reports").mkdir()
    settings = {
        "IDENTITY__ANONYMOUS": "true",
        "CONSOLE__REPORTS": str(folder / "reports"),
        "CONSOLE__SURGE__PEOPLE": "5000",
        "CONSOLE__SURGE__TOKEN_FILE": str(folder / _TOKENS),
        "CONSOLE__SURGE__SIMULATED": str(seed),
    }
    return {f"SEAWALL_{name}": value for name, value in settings.items()}


async def _tools_elsewhere(demo: Demo, stack: AsyncExitStack, folder: Path) -> Path:
    """Start the service of the tools; the configuration of a server that uses it."""
    checkout = str(demo.example.resolve().parents[1])
    service = await stack.enter_async_context(
        run_service(
            *("--port", "0", "--database", str(folder / "store.db")),
            *(["--mcp"] if demo.tools == "mcp" else []),
            module="examples.store.service",
            environment={"PYTHONPATH": checkout},
        )
    )
    demo.write_line(f"tools at {service.url}")
    tables = (demo.example / f"tools-{demo.tools}.toml").read_text(encoding="utf-8")
    before, after = (demo.example / "seawall.toml").read_text(encoding="utf-8").split(_STORE_TABLE)
    rest = after.partition("\n[")[2]
    tables = re.sub(r"http://127\.0\.0\.1:\d+", service.url, tables)
    config = folder / "seawall.toml"
    config.write_text(f"{before}{tables}\n[{rest}", encoding="utf-8")
    return config


class DemoIssuer:
    """An identity provider for the demo, fleets and benchmarks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._issuer = LocalIssuer()
        path.write_bytes(self._issuer.key_set())

    @property
    def trusted(self) -> JwtSettings:
        """Settings that accept its tokens."""
        return JwtSettings(issuer=_ISSUER, audience=_AUDIENCE, jwks_file=str(self._path))

    def token(self, subject: str, tenant: str = "demo", *, seconds: int = 3_600) -> str:
        """Sign a token; valid for an hour by default."""
        return self._issuer.token(
            issuer=_ISSUER,
            subject=subject,
            tenant=tenant,
            audience=_AUDIENCE,
            issued_at=int(time.time()),
            seconds=seconds,
        )


def server_environment(folder: Path, model: Service) -> dict[str, str]:
    """Settings of a server of the store example: its model, data in `folder`, a DemoIssuer."""
    return {
        "SEAWALL_MODELS__DEFAULT__BASE_URL": model.url,
        "SEAWALL_SESSIONS__PATH": str(folder / "sessions.db"),
        _STORE_DATABASE: str(folder / "store.db"),
        "SEAWALL_IDENTITY__ANONYMOUS": "false",
        "SEAWALL_IDENTITY__JWT__ISSUER": _ISSUER,
        "SEAWALL_IDENTITY__JWT__AUDIENCE": _AUDIENCE,
        "SEAWALL_IDENTITY__JWT__JWKS_FILE": str(folder / "jwks.json"),
    }


class _Conversation(Struct):
    user: list[str]


def _user_messages(path: Path) -> list[str]:
    return msgspec.json.decode(path.read_bytes(), type=_Conversation).user


async def _show_conversation(
    demo: Demo, server: Service, issuer: DemoIssuer, questions: list[str]
) -> None:
    """Print the turns of one conversation."""
    client = HttpClient()
    token = issuer.token("visitor")
    session: str | None = None
    try:
        for text in questions:
            demo.write_line(f"User:      {text}")
            requested: list[dict[str, object]] = []
            async for event in stream_turn(client, server, token, text, session):
                session = str(event.get("session", session))
                show_event(demo.write_line, demo.write, event)
                if event["type"] == "approval.requested":
                    requested.append(event)
            if requested:
                await _approve(client, server, token, requested)
                async for event in _resumed_turn(client, server, token, str(requested[0]["turn"])):
                    show_event(demo.write_line, demo.write, event)
    finally:
        await client.close()


async def _approve(
    client: HttpClient, server: Service, token: str, requested: list[dict[str, object]]
) -> None:
    """Approve calls of a paused turn.

    Raises:
        SeawallError: A decision is not accepted.
    """
    for each in requested:
        turn, call = (quote(str(each[name]), safe="") for name in ("turn", "id"))
        async with client.stream(
            "POST",
            Endpoint.parse(f"{server.url}/v1/turns/{turn}/approvals/{call}"),
            headers=[(b"content-type", b"application/json"), *_authorization(token)],
            body=b'{"decision": "approve"}',
            deadline=asyncio.get_running_loop().time() + _TURN_SECONDS,
        ) as response:
            await _check_status(response)


async def _resumed_turn(
    client: HttpClient, server: Service, token: str, turn: str
) -> AsyncGenerator[dict[str, object], None]:
    """The events of a turn that was paused, from where it goes on."""
    resumed = False
    async with client.stream(
        "GET",
        Endpoint.parse(f"{server.url}/v1/turns/{quote(turn, safe='')}/events"),
        headers=_authorization(token),
        body=b"",
        deadline=asyncio.get_running_loop().time() + _TURN_SECONDS,
    ) as response:
        async for event in _events(response):
            resumed = resumed or event["type"] == "turn.resumed"
            if resumed:
                yield event


async def stream_turn(
    client: HttpClient, server: Service, token: str, text: str, session: str | None
) -> AsyncGenerator[dict[str, object], None]:
    """The events of a turn; anonymous with an empty token."""
    body = msgspec.json.encode({"text": text, "session": session})
    headers = [
        (b"content-type", b"application/json"),
        (b"accept", b"text/event-stream"),
        *_authorization(token),
    ]
    async with client.stream(
        "POST",
        Endpoint.parse(f"{server.url}/v1/turns"),
        headers=headers,
        body=body,
        deadline=asyncio.get_running_loop().time() + _TURN_SECONDS,
    ) as response:
        async for event in _events(response):
            yield event


async def _events(response: Response) -> AsyncGenerator[dict[str, object], None]:
    await _check_status(response)
    parser = SseParser()
    while received := await response.read_some():
        for event in parser.feed(received):
            yield msgspec.json.decode(event.data, type=dict[str, object])


async def _check_status(response: Response) -> None:
    if response.status != 200:
        body = await response.read(limit=4_096)
        raise SeawallError(f"the server answered {response.status}: {body!r}")


def _authorization(token: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {token}".encode())] if token else []


def show_event(
    write_line: Callable[[str], None], write: Callable[[str], None], event: dict[str, object]
) -> None:
    """Print an event.

    Raises:
        SeawallError: The turn failed.
    """
    kind = event["type"]
    if kind == "intent.detected":
        sure = f"{event['confidence']:.0%} sure, by {event['by']}"
        write_line(f"           · intent {event['intent'] or 'none of these'} ({sure})")
    elif kind == "agent.selected":
        write_line(f"           · agent {event['agent']} ({event['reason']})")
    elif kind == "tool.called":
        write_line(f"           · {event['name']} {event['arguments']}")
    elif kind == "tool.returned":
        answer = str(event["content"])
        shown = answer if len(answer) <= 90 else answer[:87] + "..."
        write_line(f"           · {'refused' if event['failed'] else 'answered'}: {shown}")
    elif kind in ("approval.requested", "turn.paused", "turn.resumed"):
        write_line(f"           · {_show_pause(event)}")
    elif kind == "text.delta":
        write(str(event["text"]))
    elif kind == "turn.completed":
        write_line(f"\n           · durable as turn {event['version']} of its session\n")
    elif kind == "turn.failed":
        raise SeawallError(f"the turn failed: {event['problem']}")


def _show_pause(event: dict[str, object]) -> str:
    if event["type"] == "turn.paused":
        return "paused: stored, and out of memory"
    if event["type"] == "turn.resumed":
        return "approved; the turn goes on"
    return f"waits for approval by {event.get('role') or 'the customer'}: {event['name']}"


def _count_durable(path: Path, result: SurgeResult) -> int:
    """The number of completed turns in the database, each in its session."""
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT session, payload->>'id' FROM turns")
        stored = {(str(session), str(turn)) for session, turn in rows}
    seen = [(outcome.session, outcome.turn) for outcome in result.outcomes if not outcome.error]
    return sum(each in stored for each in seen)


def _result(result: SurgeResult, use: ProcessUsage, durable: int, model_cpu: float) -> DemoResult:
    each = 1e3 / max(1, result.turns)
    memory = max(0, use.grown_bytes) / max(1, result.peak_in_flight)
    tables = {
        name: msgspec.to_builtins(getattr(result, name))
        for name in ("first_text", "total", "model_first_text", "model_total", "added_first_text")
    }
    return DemoResult(
        turns=result.turns,
        completed=result.completed,
        failed=result.turns - result.completed,
        durable=durable,
        errors=result.errors,
        server_cpu_ms_a_turn=round(use.cpu_seconds * each, 2),
        server_kb_a_turn=round(memory / 1_024, 1),
        driver_cpu_ms_a_turn=round(result.driver.cpu_seconds * each, 2),
        model_cpu_ms_a_turn=round(model_cpu * each, 2),
        driver_cpu_share=result.driver.cpu_share,
        seconds=result.seconds,
        **tables,
    )
