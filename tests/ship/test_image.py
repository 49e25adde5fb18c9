"""The image's file system: built by its own script, started as in a pod and as on Lambda."""

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from seawall.cli.main import main
from seawall.lab.local_lambda.function import LocalFunction
from seawall.lab.local_lambda.settings import FunctionSettings
from tests.servers import ROOT, ServerProcess, running_model

BARE_PYTHON = os.path.realpath(sys.executable)  # the interpreter, not the venv
LARGEST = 200 * 2**20
KEY = "sw_a-key-of-the-image"
CONFIG = """
[identity]
api_keys = [{sha256 = "%s", tenant = "shop", subject = "me"}]
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "simulated"
[tools.own]
factory = "own:open_tools"
[routing]
classifier_cache = "classifier.npz"
[agents.helper]
instructions = "Help."
tools = ["hours"]
[intents.order]
examples = ["where is my order", "when does my parcel arrive"]
[intents.return]
examples = ["I want to send it back", "return my shoes, please"]
"""
TOOLS = '''
from seawall import Toolset, tool

@tool
async def hours(city: str) -> str:
    """The opening hours."""
    return "8 to 8"

def open_tools() -> Toolset:
    return Toolset((hours,))
'''


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its root, which is read-only."""
    folder = tmp_path_factory.mktemp("image")
    own, root = folder / "own", folder / "root"
    own.mkdir()
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    (own / "seawall.toml").write_text(CONFIG % digest)
    (own / "own.py").write_text(TOOLS)
    (own / "left.db").write_text("not code")
    source = folder / "source"
    assert main(["ship", "image", "--out", str(source)]) == 0
    done = subprocess.run(
        ["sh", str(source / "build.sh"), str(source), str(own), str(root)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    subprocess.run(["chmod", "-R", "a-w", str(root)], check=True)
    yield root
    subprocess.run(["chmod", "-R", "u+w", str(root)], check=True)


def instructions() -> dict[str, list[str]]:
    """Those of the Dockerfile's last stage, by name."""
    text = (ROOT / "deploy/Dockerfile").read_text().replace("\\\n", " ")
    last = text.rpartition("\nFROM ")[2]
    found: dict[str, list[str]] = {}
    for line in last.splitlines()[1:]:
        name, _, rest = line.partition(" ")
        if name.isupper():
            found.setdefault(name, []).append(rest.strip())
    return found


def environment(image: Path, folder: Path, **settings: str) -> dict[str, str]:
    """As the Dockerfile sets it, with the image's root in front, and nothing of ours."""
    (line,) = instructions()["ENV"]
    pairs = dict(part.split("=", 1) for part in shlex.split(line))
    for name in ("PYTHONPATH", "SEAWALL_CONFIG"):
        pairs[name] = ":".join(f"{image}{each}" for each in pairs[name].split(":"))
    pairs["SEAWALL_SESSIONS__PATH"] = str(folder / "sessions.db")
    return {"PATH": os.environ["PATH"], "TMPDIR": str(folder), **pairs, **settings}


def entry_point() -> list[str]:
    (line,) = instructions()["ENTRYPOINT"]
    command: list[str] = json.loads(line)
    assert command[0] == "python"
    return [BARE_PYTHON, *command[1:]]


@pytest.fixture(scope="module")
def model() -> Iterator[ServerProcess]:
    with running_model("--first-token", "0.01", "--duration", "0.05") as model:
        yield model


def test_the_dockerfile_is_what_it_should_be() -> None:
    last = instructions()
    assert last["USER"] == ["65532:65532"]
    assert last["HEALTHCHECK"]
    assert last["STOPSIGNAL"] == ["SIGTERM"]
    text = (ROOT / "deploy/Dockerfile").read_text()
    assert "sh /source/build.sh /source /own /image" in text  # the steps that are tested here
    # The base is named by its digest, and by the caller: there is no other.
    froms = [line.split()[1] for line in text.splitlines() if line.startswith("FROM ")]
    assert set(froms) == {"${BASE}"}
    assert "\nARG BASE\n" in text
    (line,) = last["ENV"]
    path = dict(part.split("=", 1) for part in shlex.split(line))["SEAWALL_SESSIONS__PATH"]
    assert not path.startswith("/tmp")


def test_a_base_without_a_digest_is_refused() -> None:
    text = (ROOT / "deploy/Dockerfile").read_text()
    check = text.partition("RUN case")[2].partition("\nCOPY")[0].replace("\\\n", "\n")
    for base, status in (
        ("python:3.13-slim-bookworm@sha256:" + "a" * 64, 0),
        ("python:3.13-slim-bookworm", 1),
        ("", 1),
    ):
        done = subprocess.run(
            ["sh", "-c", f"case{check}"], env={"BASE": base}, capture_output=True, check=False
        )
        assert done.returncode == status


def requirements(path: Path) -> dict[str, set[str]]:
    """The hashes of each version."""
    found: dict[str, set[str]] = {}
    name = ""
    for line in path.read_text().splitlines():
        if "==" in line and not line.startswith((" ", "#")):
            name = line.split(" ")[0]
            found[name] = set()
        elif "--hash=" in line:
            found[name].add(line.partition("--hash=")[2].split(" ")[0])
    return found


def test_its_packages_are_those_that_are_tested_by_their_hashes() -> None:
    image = requirements(ROOT / "deploy/image/requirements.lock")
    tested = requirements(ROOT / "requirements/dev.lock")
    assert all(image.values())
    assert {name: tested.get(name) for name in image} == image


def test_a_package_of_another_content_is_not_installed(tmp_path: Path) -> None:
    source, app = tmp_path / "source", tmp_path / "app"
    assert main(["ship", "image", "--out", str(source)]) == 0
    app.mkdir()
    (app / "seawall.toml").write_text("")
    lock = source / "requirements.lock"
    (line,) = [each for each in lock.read_text().splitlines() if each.startswith("msgspec==")]
    lock.write_text(line.rstrip(" \\") + f" --hash=sha256:{'0' * 64}\n")
    done = subprocess.run(
        ["sh", str(source / "build.sh"), str(source), str(app), str(tmp_path / "root")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert done.returncode != 0
    assert "HASHES" in done.stderr


def test_it_has_what_it_should(image: Path) -> None:
    files = [path for path in image.rglob("*") if path.is_file()]
    names = {str(path.relative_to(image)) for path in files}
    assert {"app/seawall.toml", "app/own.py", "app/classifier.npz"} <= names
    assert not [name for name in names if name.endswith((".db", ".pyi"))]
    assert sum(path.stat().st_size for path in files) < LARGEST
    sources = {path for path in files if path.suffix == ".py" and "seawall/seawall" in str(path)}
    compiled = {path.stem.split(".")[0] for path in files if path.suffix == ".pyc"}
    assert {path.stem for path in sources} <= compiled
    assert list((image / "opt/seawall").glob("seawall-*.dist-info/METADATA"))


def test_it_serves_as_a_pod(image: Path, model: ServerProcess, tmp_path: Path) -> None:
    settings = environment(
        image,
        tmp_path,
        SEAWALL_MODELS__DEFAULT__BASE_URL=model.url,
        SEAWALL_SERVER__PORT="0",
        SEAWALL_SERVER__HOST="127.0.0.1",
        SEAWALL_SERVER__WORKERS="1",
        SEAWALL_ROUTING__CLASSIFIER_CACHE=str(image / "app/classifier.npz"),
    )
    process = subprocess.Popen(
        entry_point(), env=settings, stdout=subprocess.PIPE, cwd=image / "app"
    )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        turn = {"text": "where is my order"}
        answer = httpx2.post(
            f"{url}/v1/turns", json=turn, headers={"x-api-key": KEY}, timeout=20
        ).json()
        assert answer["intent"] == "order"
        assert answer["text"]
        port = url.rpartition(":")[2]
        (check,) = instructions()["HEALTHCHECK"]
        command = json.loads(check.partition("CMD ")[2])
        asked = {**settings, "SEAWALL_SERVER__PORT": port}
        health = [BARE_PYTHON, *command[1:]]
        assert subprocess.run(health, env=asked, check=False).returncode == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert subprocess.run(health, env=asked, check=False).returncode == 1
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


async def test_it_serves_as_a_function(image: Path, model: ServerProcess, tmp_path: Path) -> None:
    settings = FunctionSettings(
        command=tuple(entry_point()),
        handler="",
        folder=str(image / "app"),
        environment=environment(
            image,
            tmp_path,
            SEAWALL_MODELS__DEFAULT__BASE_URL=model.url,
            SEAWALL_LAMBDA_METRICS="true",
            SEAWALL_ROUTING__CLASSIFIER_CACHE=str(image / "app/classifier.npz"),
        ),
    )
    lines: list[str] = []
    event = {
        "rawPath": "/v1/turns",
        "headers": {"x-api-key": KEY},
        "requestContext": {
            "domainName": "x.lambda-url.eu-west-1.on.aws",
            "http": {"method": "POST"},
        },
        "body": json.dumps({"text": "where is my order", "stream": True}),
    }
    began = time.perf_counter()
    async with LocalFunction(settings, log=lines.append) as function:
        answer = await function.invoke(json.dumps(event).encode()).whole()
    assert time.perf_counter() - began < 60
    assert b"turn.completed" in answer, lines
    metrics = [json.loads(line[line.index("{") :]) for line in lines if '"_aws"' in line]
    assert metrics[0]["Completed"] == 1
