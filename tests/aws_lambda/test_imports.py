"""A cold start pays for what it imports: this is the budget, as a set of modules."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from seawall.intents.cascade import build_detector
from seawall.intents.definition import IntentDefinition
from tests.servers import ROOT

# What no turn on Lambda needs: servers, metrics, the lab, the command line, and what is large.
NEVER = {
    "argparse",
    "boto3",
    "botocore",
    "ctypes",
    "cryptography",
    "http.server",
    "joserfc",
    "multiprocessing",
    "numpy",
    "prometheus_client",
    "pydantic",
    "scipy",
    "seawall.cli",
    "seawall.hosts.http.supervisor",
    "seawall.hosts.http.worker",
    "seawall.lab",
    "seawall.telemetry.open",
    "starlette",
    "unittest",
    "urllib.request",
    "uvicorn",
    "uvloop",
    "xml",
}
# Ours and others' that a whole turn may need; a new one is a decision, made here.
MOST_OF_OURS = 150
OTHERS = {"cython_runtime", "httptools", "msgspec", "seawall", "typing_extensions"}

SCRIPT = """
import asyncio, json, sys
before = set(sys.modules)
import seawall.hosts.aws_lambda.runtime
from seawall.hosts.aws_lambda.target import load_target
from seawall.hosts.aws_lambda.settings import LambdaSettings
from seawall.hosts.aws_lambda.dispatch import Dispatcher
from seawall.hosts.aws_lambda.context import InvocationContext

class Answer:
    said = b""
    async def begin(self, content_type): pass
    async def write(self, piece): self.said += piece
    async def end(self): pass

async def main():
    target = load_target({target!r}, {{"LAMBDA_TASK_ROOT": {root!r}}})
    await target.start()
    loop = asyncio.get_running_loop()
    context = InvocationContext("r", loop.time() + 20)
    event = {{
        "rawPath": "/v1/turns",
        "headers": {{"x-api-key": "sw_key"}},
        "requestContext": {{
            "domainName": "x.lambda-url.eu-west-1.on.aws", "http": {{"method": "POST"}}
        }},
        "body": json.dumps({{"text": "where is my order", "stream": True}}),
    }}
    answer = Answer()
    await Dispatcher(target, LambdaSettings()).answer(json.dumps(event).encode(), context, answer)
    assert b"intent.detected" in answer.said, answer.said
    await target.stop()

asyncio.run(main())
print("\\n".join(sorted(set(sys.modules) - before)))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What a process has imported after its first whole turn."""
    folder = tmp_path_factory.mktemp("imports")
    texts = {"order": ("where is my order", "when does it come"), "cancel": ("cancel it", "stop")}
    intents = [IntentDefinition(name, "", each, ()) for name, each in texts.items()]
    build_detector(intents, cache=folder / "classifier.npz")
    digest = hashlib.sha256(b"sw_key").hexdigest()
    listed = "\n".join(f"[intents.{name}]\nexamples = {list(each)}" for name, each in texts.items())
    (folder / "seawall.toml").write_text(f"""
[identity]
api_keys = [{{sha256 = "{digest}", tenant = "shop", subject = "me"}}]
[sessions]
path = "{folder}/sessions.db"
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[routing]
classifier_cache = "{folder}/classifier.npz"
[agents.one]
instructions = "Help."
{listed}
""")
    script = SCRIPT.format(target=str(folder / "seawall.toml"), root=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_nothing_is_imported_that_a_turn_does_not_need(imported: set[str]) -> None:
    unwanted = {name for name in imported if any(_is_within(name, each) for each in NEVER)}
    assert unwanted == set()


def test_only_our_few_dependencies_are(imported: set[str]) -> None:
    tops = {name.partition(".")[0] for name in imported}
    others = {each for each in tops if each not in sys.stdlib_module_names and each[0] != "_"}
    assert others <= OTHERS
    assert len([name for name in imported if _is_within(name, "seawall")]) <= MOST_OF_OURS


def test_the_runtime_alone_needs_little(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("async def handler(event, context):\n    return event\n")
    script = """
import sys
import seawall.hosts.aws_lambda.runtime
from seawall.hosts.aws_lambda.target import load_target
load_target("own.handler", {})
print("\\n".join(name for name in sys.modules if name.startswith("seawall.")))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    ours = set(done.stdout.split())
    assert ours <= {"seawall.errors", "seawall.hosts", "seawall.hosts.json_lines"} | {
        name for name in ours if _is_within(name, "seawall.hosts.aws_lambda")
    }


def _is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")
