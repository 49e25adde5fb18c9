"""Process start to first byte of the first turn, on the local Lambda, beside others.

    .venv/bin/python bench/cold_start/run.py [--quick] [--in-flight] [--python PATH]

Each start is a new environment on the local Lambda, with a warm file cache. Seawall runs as it is
deployed: from the package of `seawall lambda build`, unpacked, on an interpreter without other
packages, of this version or of the one at PATH. It answers a whole
turn: API key or token, session in DynamoDB Local, intent, agent, simulated model (without latency),
streamed. The others run under AWS's client. Restored: the same function with SnapStart, from its
continuation. Prints tables (Markdown) and, at the end, the figures as one
JSON line.
"""

import argparse
import asyncio
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from msgspec import structs

from seawall.lab.local_lambda.function import LocalFunction
from seawall.lab.local_lambda.settings import FunctionSettings
from seawall.lab.processes import consumption
from seawall.ship.lambda_zip import build_package
from seawall.storage.open import open_store
from seawall.settings import SessionSettings
from tests.dynamodb_local import ENVIRONMENT, running_dynamodb
from tests.issuer import AUDIENCE, ISSUER, Issuer
from tests.parts.dynamodb_local import missing
from tests.servers import running_model

KEY = "sw_a-key-of-the-benchmark"
STORE = "examples/store/seawall.toml"
QUESTION = "Where is my order #W1005754?"
PEERS = {
    "empty": "awslambdaric, empty handler",
    "boto": "boto3 + GetItem",
    "fastapi_openai": "FastAPI + Mangum + openai SDK, one answer",
    "import_agent_squad": "agent-squad, import only",
    "import_strands": "strands, import only",
    "import_langgraph": "langgraph, import only",
    "import_pydantic_ai": "pydantic-ai, import only",
    "import_openai_agents": "openai-agents, import only",
    "import_litellm": "litellm, import only",
}


def turn_event(**headers: str) -> bytes:
    """A streamed turn at a function URL; `headers` replace the API key."""
    headers = headers or {"x-api-key": KEY}
    return json.dumps(
        {
            "version": "2.0",
            "rawPath": "/v1/turns",
            "rawQueryString": "",
            "headers": {"content-type": "application/json", "host": "x"} | headers,
            "requestContext": {
                "domainName": "local.lambda-url.us-east-1.on.aws",
                "stage": "$default",
                "http": {"method": "POST", "path": "/v1/turns", "sourceIp": "192.0.2.1"},
            },
            "body": json.dumps({"text": QUESTION, "stream": True}),
            "isBase64Encoded": False,
        }
    ).encode()


def rest_event() -> bytes:
    """The same as Mangum and plain handlers read it."""
    event = json.loads(turn_event())
    event["requestContext"]["http"]["protocol"] = "HTTP/1.1"
    event["body"] = json.dumps({"text": QUESTION})
    return json.dumps(event).encode()


async def start_once(
    settings: FunctionSettings, event: bytes, needle: bytes, *, count_modules: bool = False
) -> dict[str, float]:
    """One cold start: seconds from the start of the process, and its memory.

    count_modules: Also the modules that are imported until the end of the turn; slows the start.
    """
    lines: list[str] = []
    if count_modules:
        counted = settings.environment | {"PYTHONPROFILEIMPORTTIME": "1"}
        settings = structs.replace(settings, environment=counted)
    async with LocalFunction(settings, log=lines.append) as function:
        invocation = function.invoke(event)
        head = await invocation.head()
        received, first_text, cpu = b"", 0.0, 0.0
        async for piece in invocation.pieces():
            received += piece
            cpu = cpu or cpu_ms(function.environments[0].pid)
            if not first_text and needle in received:
                first_text = asyncio.get_running_loop().time()
        began = invocation.environment_started_at
        environment = function.environments[0]
        figures = {
            "init": environment.usage.init_seconds,
            "first_byte": invocation.first_byte_at - began,
            "first_text": first_text - began,
            "cpu_ms": cpu,
            "memory_mb": consumption(environment.pid).resident_bytes / 2**20,
        }
    if count_modules:
        imported = {line.rpartition("|")[2].strip() for line in lines if "import time:" in line}
        figures["modules"] = len(imported)
        figures["of_seawall"] = sum(f"{each}.".startswith("seawall.") for each in imported)
    if not first_text or (head.streaming and b'"turn.completed"' not in received):
        raise SystemExit(f"no answer: {received!r}\n" + "\n".join(lines))
    return figures


def cpu_ms(pid: int) -> float:
    """Processor time of all threads of a process so far, from /proc/PID/schedstat."""
    spent = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        spent += int((thread / "schedstat").read_text().split()[0])
    return spent / 1e6


def bare_ms() -> float:
    """A bare interpreter, from its start to its end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return (time.perf_counter() - began) * 1e3


async def measure(
    cases: dict[str, tuple[FunctionSettings, bytes, bytes]], rounds: int
) -> dict[str, dict[str, Any]]:
    """All cases in turn, `rounds` times, after one start of each that does not count.

    A third as often each is also restored from a snapshot.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    restored: dict[str, list[float]] = {name: [] for name in cases}
    counts: dict[str, tuple[int, int]] = {}
    bare: list[float] = []
    for number in range(rounds + 1):
        sys.stderr.write(f"round {number} of {rounds}\n")
        bare.append(bare_ms())
        for name, (settings, event, needle) in cases.items():
            figures = await start_once(settings, event, needle)
            if number:
                found[name].append(figures)
            else:
                counted = await start_once(settings, event, needle, count_modules=True)
                counts[name] = (int(counted["modules"]), int(counted["of_seawall"]))
                sys.stderr.write(f"first start of {name}: {figures['first_byte'] * 1e3:.0f} ms\n")
            if number % 3 == 1:
                snapped = structs.replace(settings, snapstart=True)
                figures = await start_once(snapped, event, needle)
                restored[name].append(figures["first_byte"] * 1e3)
    lowest_bare = min(bare)
    table: dict[str, dict[str, Any]] = {
        "bare interpreter, start to end": {
            "first_byte_ms": round(median(bare), 1),
            "lowest_ms": round(lowest_bare, 1),
            "highest_ms": round(max(bare), 1),
            "of_bare": 1.0,
        }
    }
    for name, starts in found.items():
        values = sorted(each["first_byte"] * 1e3 for each in starts)
        table[name] = {
            "first_byte_ms": round(median(values), 1),
            "lowest_ms": round(values[0], 1),
            "highest_ms": round(values[-1], 1),
            "of_bare": round(values[0] / lowest_bare, 1),
            "cpu_ms": round(min(each["cpu_ms"] for each in starts), 1),
            "restored_ms": round(median(restored[name]), 1),
            "first_text_ms": round(median(each["first_text"] for each in starts) * 1e3, 1),
            "init_ms": round(median(each["init"] for each in starts) * 1e3, 1),
            "memory_mb": round(median(each["memory_mb"] for each in starts), 1),
            "modules": counts[name][0],
            "of_seawall": counts[name][1],
        }
    return table


def peer_python() -> Path:
    """The interpreter of the venv that the others live in."""
    python = HERE / ".venv" / "bin" / "python"
    if not python.exists():
        sys.stderr.write("making a venv for the others ...\n")
        venv.create(HERE / ".venv", with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True
        )
    return python


def deploy(folder: Path, interpreter: str) -> None:
    """Build the store example's package in `folder`, and a venv of the interpreter beside it."""
    sys.stderr.write("building the package ...\n")
    query = "import sys; print('%d.%d' % sys.version_info[:2])"
    asked = [interpreter, "-I", "-c", query]
    version = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run([interpreter, "-m", "venv", "--without-pip", folder / "python"], check=True)
    code = folder / "code"
    left_out = shutil.ignore_patterns("__pycache__", "*.db*")
    shutil.copytree(ROOT / Path(STORE).parent, code / Path(STORE).parent, ignore=left_out)
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    keys = f'api_keys = [{{sha256 = "{digest}", tenant = "shop", subject = "me"}}]'
    configuration = code / STORE
    text, count = re.subn("(?m)^anonymous = true.*$", keys, configuration.read_text())
    assert count == 1
    configuration.write_text(text)
    machine = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"
    package = build_package(
        code,
        folder / "function.zip",
        architecture=machine,
        python=version,
        compile_with=str(folder / "python/bin/python"),
    )
    with zipfile.ZipFile(package.path) as packed:
        packed.extractall(folder / "package")


def ours(
    folder: Path, model: str, dynamodb: str, issuer: Issuer | None = None, **changed: Any
) -> FunctionSettings:
    """Our function: the store example with its sessions in DynamoDB, or in SQLite for "".

    folder: Where `deploy` has put its package and interpreter.
    issuer: whose tokens it takes, where not an API key.
    """
    variables = {
        "MODELS__DEFAULT__BASE_URL": model,
        "TOOLS__STORE__DATABASE": str(folder / "store.db"),
        "ROUTING__CLASSIFIER_CACHE": str(folder / "classifier.npz"),
        "SESSIONS__PATH": str(folder / "sessions.db"),
    }
    if issuer is not None:
        (folder / "jwks.json").write_bytes(issuer.key_set())
        variables |= {
            "IDENTITY__JWT__ISSUER": ISSUER,
            "IDENTITY__JWT__AUDIENCE": AUDIENCE,
            "IDENTITY__JWT__JWKS_FILE": str(folder / "jwks.json"),
        }
    if dynamodb:
        variables |= {
            "SESSIONS__STORE": "dynamodb",
            "SESSIONS__ENDPOINT": dynamodb,
        }
    environment = {f"SEAWALL_{name}": value for name, value in variables.items()} | ENVIRONMENT
    return FunctionSettings(
        command=(str(folder / "python/bin/python"), "-m", "seawall.hosts.aws_lambda", STORE),
        handler=STORE,
        folder=str(folder / "package"),
        environment=environment,
        **changed,
    )


def theirs(name: str, model: str, dynamodb: str, **changed: Any) -> FunctionSettings:
    """One of the others, under AWS's client."""
    handler = f"{name}.handler"
    return FunctionSettings(
        command=(str(peer_python()), "-m", "awslambdaric", handler),
        handler=handler,
        folder=str(HERE / "peers"),
        environment={"MODEL": model, "DYNAMODB": dynamodb, **ENVIRONMENT},
        memory_mb=changed.pop("memory_mb", 1_024),
        **changed,
    )


async def in_flight(settings: FunctionSettings, event: bytes, many: int) -> dict[str, float]:
    """One environment with `many` in flight: memory, CPU a turn, and init work."""
    async with LocalFunction(settings, log=lambda _: None) as function:
        environment = function.environments[0]
        for _ in range(3_000):  # AWS's client starts a process for each
            await asyncio.sleep(0.1)
            if many <= 1 or environment._api._waiting.__len__() == many:  # noqa: SLF001
                break
        begun = consumption(environment.pid)
        rounds, peak = 4, begun.resident_bytes
        for _ in range(rounds):
            invocations = [function.invoke(event) for _ in range(many)]
            await asyncio.sleep(0.1)
            peak = max(peak, consumption(environment.pid).resident_bytes)
            await asyncio.gather(*(each.whole() for each in invocations))
        done = consumption(environment.pid)
        turns = rounds * many
        return {
            "init_cpu_ms": round(begun.cpu_seconds * 1e3),
            "memory_mb": round(max(peak, done.resident_bytes) / 2**20, 1),
            "cpu_ms_a_turn": round((done.cpu_seconds - begun.cpu_seconds) / turns * 1e3, 2),
        }


def ratios(table: dict[str, dict[str, Any]], column: str) -> dict[str, float]:
    """Of AWS's client to ours, by how many are in flight."""
    values = [figures[column] for figures in table.values()]
    return {
        str(many): round(values[2 * index + 1] / values[2 * index], 1)
        for index, many in enumerate((16, 64))
    }


async def make_table(endpoint: str) -> None:
    """As it is made before a function is deployed."""
    settings = SessionSettings(store="dynamodb", endpoint=endpoint, create_table=True)
    await (await open_store(settings, ENVIRONMENT)).close()


def show(table: dict[str, dict[str, Any]]) -> None:
    """Print figures, a row each."""
    columns = list(list(table.values())[-1])
    print(f"| {'':44} | " + " | ".join(f"{column:>13}" for column in columns) + " |")
    print("| --- |" + " --- |" * len(columns))
    for name, figures in table.items():
        values = (f"{figures.get(column, ''):>13}" for column in columns)
        print(f"| {name:44} | " + " | ".join(values) + " |", flush=True)


def parts(stack: ExitStack) -> tuple[str, str]:
    """The URLs of a simulated model and of DynamoDB Local."""
    if reason := missing():
        raise SystemExit(reason)
    quick = ("--first-token", "0", "--duration", "0.2", "--seed", "1")
    model = stack.enter_context(running_model(*quick)).url
    return model, stack.enter_context(running_dynamodb())


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three starts, few peers")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--in-flight", action="store_true", help="also 16 and 64 in flight")
    parser.add_argument("--python", default=sys.executable, help="interpreter of our function")
    arguments = parser.parse_args()
    os.environ.pop("AWS_LAMBDA_RUNTIME_API", None)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        deploy(folder, arguments.python)
        model, dynamodb = parts(stack)
        asyncio.run(make_table(dynamodb))
        issuer = Issuer()
        issuer.add("one")
        text = b'"text.delta"'
        # Without Lambda's limit of 10 s, which some of the others exceed.
        cases = {
            "Seawall, whole turn, DynamoDB": (ours(folder, model, dynamodb), turn_event(), text),
            "Seawall, the same with a token": (
                ours(folder, model, dynamodb, issuer),
                turn_event(authorization=f"Bearer {issuer.token()}"),
                text,
            ),
            "Seawall, whole turn, SQLite": (ours(folder, model, ""), turn_event(), text),
        }
        peers = list(PEERS)[:3] if arguments.quick else list(PEERS)
        for name in peers:
            settings = theirs(name, model, dynamodb, init_seconds=60.0, timeout_seconds=60.0)
            cases[PEERS[name]] = (settings, rest_event(), b"")
        began = time.monotonic()
        rounds = 3 if arguments.quick else arguments.rounds
        figures: dict[str, Any] = {"cold_start": asyncio.run(measure(cases, rounds))}
        show(figures["cold_start"])
        if arguments.in_flight:
            figures["in_flight"] = {}
            for many in (16, 64):
                one: dict[str, Any] = {
                    "max_concurrency": many,
                    "concurrency": 1,
                    "memory_mb": 30_000,
                }
                figures["in_flight"] |= {
                    f"Seawall, {many} in flight": asyncio.run(
                        in_flight(ours(folder, model, dynamodb, **one), turn_event(), many)
                    ),
                    f"{PEERS['fastapi_openai']}, {many} in flight": asyncio.run(
                        in_flight(
                            theirs("fastapi_openai", model, dynamodb, **one), rest_event(), many
                        )
                    ),
                }
            show(figures["in_flight"])
            figures["memory_ratio"] = ratios(figures["in_flight"], "memory_mb")
            figures["cpu_ratio"] = ratios(figures["in_flight"], "cpu_ms_a_turn")
            print(f"their memory / ours: {figures['memory_ratio']}")
            print(f"their CPU a turn / ours: {figures['cpu_ratio']}")
        figures["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
