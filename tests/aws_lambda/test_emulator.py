"""The host under AWS's own Runtime Interface Emulator, with an event of every entry."""

import asyncio
import json
import os
import platform
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.aws_lambda.samples import OTHERS, REQUESTS, TURN, sqs
from tests.parts import require
from tests.parts.tools import missing_sam, sam
from tests.servers import ROOT, ServerProcess, running_model

_ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64"}
_INVOKE = "/2015-03-31/functions/function/invocations"
CONFIG = """
[models.default]
base_url = "{url}"
model = "simulated"
[sessions]
path = "{folder}/sessions.db"
[agents.helper]
instructions = "Help."
"""


def emulator() -> Path:
    """AWS's binary, of the SAM CLI's package."""
    require(missing_sam())
    name = f"aws-lambda-rie-{_ARCHITECTURES[platform.machine()]}"
    (found,) = sam().parents[1].glob(f"lib/python*/site-packages/samcli/local/rapid/{name}")
    return found


@pytest.fixture(scope="module")
def model() -> Iterator[ServerProcess]:
    with running_model("--first-token", "0", "--duration", "0.05") as model:
        yield model


@asynccontextmanager
async def emulated(
    folder: Path, handler: str, seconds: str = "20", **variables: str
) -> AsyncIterator[httpx2.AsyncClient]:
    """The function under the emulator; what it is asked by."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        runtime_port = free.getsockname()[1]
    bootstrap = ROOT / "src/seawall/hosts/aws_lambda/bootstrap"
    process = await asyncio.create_subprocess_exec(
        str(emulator()),
        *("--runtime-interface-emulator-address", f"127.0.0.1:{port}"),
        *("--runtime-api-address", f"127.0.0.1:{runtime_port}"),
        *("/bin/sh", str(bootstrap), handler),
        cwd=folder,
        env={
            **os.environ,
            "AWS_LAMBDA_FUNCTION_TIMEOUT": seconds,
            "SEAWALL_PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "LAMBDA_TASK_ROOT": str(folder),
            **variables,
        },
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        process_group=0,
    )
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            async with asyncio.timeout(20):
                while True:
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                    except OSError:
                        await asyncio.sleep(0.05)
                        continue
                    writer.close()
                    break
            yield client
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def invoke(client: httpx2.AsyncClient, event: object) -> Any:
    payload = event if isinstance(event, bytes) else json.dumps(event).encode()
    answer = await client.post(_INVOKE, content=payload)
    body = answer.content
    if b"\0" * 8 in body:  # a streamed answer, which the emulator buffers
        head, _, rest = body.partition(b"\0" * 8)
        return {**json.loads(head), "body": rest.decode()}
    return json.loads(body)


async def test_every_integration(model: ServerProcess, tmp_path: Path) -> None:
    config = CONFIG.format(url=model.url, folder=tmp_path)
    (tmp_path / "seawall.toml").write_text(config)
    admitted = {"SEAWALL_LAMBDA_DIRECT": "true", "SEAWALL_LAMBDA_QUEUE": "true"}
    async with emulated(tmp_path, "seawall.toml", **admitted) as client:
        for name, event in REQUESTS.items():
            answer = await invoke(client, event)
            assert answer["statusCode"] == 200, name
            assert "headers" in answer or "multiValueHeaders" in answer, name
        for name, event in OTHERS.items():
            answer = await invoke(client, event)
            assert answer["errorType"] in ("Seawall.UnknownEvent", "invalid-field"), name
            assert answer["errorMessage"], name
        for name, entry in {
            "scheduled": "EventBridge (Scheduled Event)",
            "sns": "aws:sns",
            "websocket-message": "a WebSocket API",
            "edge": "CloudFront",
        }.items():
            assert entry in (await invoke(client, OTHERS[name]))["errorMessage"]
        turn = await invoke(client, TURN)
        assert turn["text"]
        batch = await invoke(client, sqs(TURN, "not a turn", TURN))
        failed = [each["itemIdentifier"] for each in batch["batchItemFailures"]]
        assert failed == ["059f36b4-87a3-44ab-83d2-661975970001"]
        fifo = await invoke(client, sqs("not a turn", TURN, group="one"))
        assert len(fifo["batchItemFailures"]) == 2
        for wrong in (b"{", b"[" * 100_000, b"null", b'"\\ud800"'):
            assert (await invoke(client, wrong))["errorType"]
        assert (await invoke(client, TURN))["text"], "it goes on after all of them"


async def test_hanging_invocations_are_ended(tmp_path: Path) -> None:
    """What does not end is ended by us before AWS ends the environment."""
    handler = "tests.aws_lambda.hostile_handlers.awaited"
    margin = {"SEAWALL_LAMBDA_MARGIN_SECONDS": "2"}  # a busy machine is late
    async with emulated(tmp_path, handler, "5", **margin) as client:
        for what in ("hang", "ignore", "exit"):
            answer = await invoke(client, {"do": what})
            kind = "SystemExit" if what == "exit" else "Seawall.DeadlineExceeded"
            assert answer["errorType"] == kind
        assert await invoke(client, {"do": "fine"}) == {"ok": "fine"}
