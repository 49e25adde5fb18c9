"""A cold start pays for what it imports: this is the budget, as a set of modules."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seawall.intents import IntentDefinition
from seawall.intents.cascade import build_detector
from tests.dynamodb_local import ENVIRONMENT
from tests.issuer import AUDIENCE, ISSUER, Issuer
from tests.servers import ROOT

# What no turn on Lambda needs: servers, metrics, the lab, the command line, and what is large.
NEVER = {
    "argparse",
    "boto3",
    "botocore",
    "concurrent.futures.process",
    "ctypes",
    "email",
    "http",
    "importlib.metadata",
    "joserfc",
    "json",
    "multiprocessing",
    "numpy",
    "prometheus_client",
    "pydantic",
    "scipy",
    "seawall.cli",
    "seawall.aws.container",
    "seawall.aws.instance_metadata",
    "seawall.aws.profile",
    "seawall.aws.web_identity",
    "seawall.hosts.http.mcp",
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
    "zoneinfo",
}
# Only with a store of the one kind, or with tokens.
OF_SQLITE = {"sqlite3", "seawall.storage.sqlite.store", "seawall.storage.sqlite.counters"}
OF_DYNAMODB = {"seawall.aws", "seawall.storage.dynamodb.store", "seawall.storage.dynamodb.counters"}
OF_TOKENS = {"cryptography", "seawall.identity.jwt"}
# What cryptography has beside keys and signatures, and would take longer than all the rest.
NEVER_OF_TOKENS = {
    "cryptography.fernet",
    "cryptography.hazmat.primitives.kdf",
    "cryptography.hazmat.primitives.serialization.ssh",
    "cryptography.x509",
}
# Ours and others' that a whole turn may need; a new one is a decision, made here.
MOST_OF_OURS = 80
OTHERS = {"cython_runtime", "httptools", "msgspec", "seawall", "typing_extensions"}
OTHERS_OF_TOKENS = {"cryptography"}

SCRIPT = """
import sys
before = set(sys.modules)
import asyncio
import msgspec
import seawall.hosts.aws_lambda.runtime
from seawall.hosts.aws_lambda.target import load_target
from seawall.hosts.aws_lambda.target import LambdaSettings
from seawall.hosts.aws_lambda.dispatch import Dispatcher
from seawall.hosts.aws_lambda.runtime_api import InvocationContext

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
        "headers": {headers!r},
        "requestContext": {{
            "domainName": "x.lambda-url.eu-west-1.on.aws", "http": {{"method": "POST"}}
        }},
        "body": '{{"text": "where is my order", "stream": true}}',
    }}
    answer = Answer()
    payload = msgspec.json.encode(event)
    await Dispatcher(target, LambdaSettings()).answer(payload, context, answer)
    assert b"intent.detected" in answer.said, answer.said
    await target.stop()

asyncio.run(main())
print("\\n".join(sorted(set(sys.modules) - before)))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Intents, and the classifier that distinguishes them."""
    cache = tmp_path_factory.mktemp("imports") / "classifier.npz"
    texts = {"order": ("where is my order", "when does it come"), "cancel": ("cancel it", "stop")}
    build_detector(
        [IntentDefinition(name, "", each, ()) for name, each in texts.items()], cache=cache
    )
    listed = "\n".join(f"[intents.{name}]\nexamples = {list(each)}" for name, each in texts.items())
    return listed, cache


def imported(folder: Path, trained: tuple[str, Path], tables: str, **headers: str) -> set[str]:
    """What a process has imported after its first whole turn."""
    listed, cache = trained
    (folder / "seawall.toml").write_text(f"""
{tables}
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[routing]
classifier_cache = "{cache}"
[agents.one]
instructions = "Help."
{listed}
""")
    script = SCRIPT.format(target=str(folder / "seawall.toml"), root=str(ROOT), headers=headers)
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def check(found: set[str], never: set[str], others: set[str]) -> None:
    unwanted = {name for name in found if any(_is_within(name, each) for each in never)}
    assert unwanted == set()
    tops = {name.partition(".")[0] for name in found}
    strange = {each for each in tops if each not in sys.stdlib_module_names and each[0] != "_"}
    assert strange <= others
    assert len([name for name in found if _is_within(name, "seawall")]) <= MOST_OF_OURS


KEYS = f"""
[identity]
api_keys = [{{sha256 = "{hashlib.sha256(b"sw_key").hexdigest()}", tenant = "shop", subject = "me"}}]
"""


def test_with_keys_and_sqlite(tmp_path: Path, trained: tuple[str, Path]) -> None:
    tables = f'{KEYS}[sessions]\npath = "{tmp_path}/sessions.db"'
    found = imported(tmp_path, trained, tables, **{"x-api-key": "sw_key"})
    check(found, NEVER | OF_DYNAMODB | OF_TOKENS, OTHERS)


def test_with_keys_and_dynamodb(tmp_path: Path, trained: tuple[str, Path], dynamodb: str) -> None:
    tables = f"""{KEYS}
[sessions]
store = "dynamodb"
endpoint = "{dynamodb}"
table = "imports-{os.getpid()}"
create_table = true
"""
    found = imported(tmp_path, trained, tables, **{"x-api-key": "sw_key"})
    check(found, NEVER | OF_SQLITE | OF_TOKENS, OTHERS)


def with_tokens(tmp_path: Path, trained: tuple[str, Path], algorithms: dict[str, str]) -> set[str]:
    issuer = Issuer()
    for kid, algorithm in algorithms.items():
        issuer.add(kid, algorithm)
    (tmp_path / "jwks.json").write_bytes(issuer.key_set())
    tables = f"""
[identity.jwt]
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
jwks_file = "{tmp_path}/jwks.json"
[sessions]
path = "{tmp_path}/sessions.db"
"""
    return imported(tmp_path, trained, tables, authorization=f"Bearer {issuer.token()}")


def test_with_tokens(tmp_path: Path, trained: tuple[str, Path]) -> None:
    algorithms = {"one": "RS256", "two": "ES256", "three": "EdDSA"}
    found = with_tokens(tmp_path, trained, algorithms)
    check(found, NEVER | OF_DYNAMODB | NEVER_OF_TOKENS, OTHERS | OTHERS_OF_TOKENS)


def test_with_tokens_of_rs256_alone(tmp_path: Path, trained: tuple[str, Path]) -> None:
    found = with_tokens(tmp_path, trained, {"one": "RS256"})
    check(found, NEVER | OF_DYNAMODB | {"cryptography"}, OTHERS)


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
    others = {"seawall.cancellation", "seawall.hosts.log_filter", "seawall.hosts.watchdogs"}
    assert ours <= {"seawall.errors", "seawall.hosts"} | others | {
        name for name in ours if _is_within(name, "seawall.hosts.aws_lambda")
    }


def _is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")
