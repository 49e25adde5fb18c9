"""The deployment package: built, unpacked, and run where nothing else is installed."""

import json
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from seawall.lab.local_lambda.function import LocalFunction
from seawall.lab.local_lambda.settings import FunctionSettings
from seawall.ship import lambda_zip

pytestmark = pytest.mark.anyio

BARE_PYTHON = os.path.realpath(sys.executable)  # the interpreter, not the venv
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
CODE = """
import cryptography, httptools, msgspec, numpy


async def handler(event, context):
    from seawall import Orchestrator
    return {"numpy": numpy.__file__, "orchestrator": Orchestrator.__name__}
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    folder = tmp_path_factory.mktemp("package")
    code, out = folder / "code", folder / "function.zip"
    code.mkdir()
    (code / "own.py").write_text(CODE)
    (code / "sessions.db").write_text("not code")
    machine = {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "seawall", "lambda", "build", str(code), "--out", str(out)),
            *("--architecture", machine, "--python", VERSION, "--json"),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)
    assert built["compiled"] is True
    assert built["unpacked_bytes"] < lambda_zip.UNPACKED_LIMIT
    return zipfile.Path(out)


def test_it_has_what_it_should(package: zipfile.Path) -> None:
    entries = package.root.infolist()
    names = [each.filename for each in entries]
    assert [Path(each) for each in names] == sorted(map(Path, names))
    assert {each.date_time for each in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert "own.py" in names
    assert not [each for each in names if each.endswith((".db", ".pyi")) or "/tests/" in each]
    bootstrap = next(each for each in entries if each.filename == "bootstrap")
    assert bootstrap.external_attr >> 16 & 0o111


async def test_it_runs_with_nothing_else_installed(package: zipfile.Path, tmp_path: Path) -> None:
    package.root.extractall(tmp_path)
    (tmp_path / "bootstrap").chmod(0o755)  # extractall does not set modes
    settings = FunctionSettings(
        command=(str(tmp_path / "bootstrap"),),
        handler="own.handler",
        folder=str(tmp_path),
        environment={
            "SEAWALL_PYTHON": BARE_PYTHON,
            "PYTHONNOUSERSITE": "1",
        },
    )
    lines: list[str] = []
    async with LocalFunction(settings, log=lines.append) as function:
        told = json.loads(await function.invoke(b"{}").whole())
    assert told["numpy"].startswith(str(tmp_path)), lines
    assert told["orchestrator"] == "Orchestrator"


def test_the_same_tree_makes_the_same_file(tmp_path: Path) -> None:
    digests = []
    for number in range(2):
        tree = tmp_path / f"tree-{number}"
        (tree / "package").mkdir(parents=True)
        for name in ("b.py", "a.py", "package/c.py")[:: 1 - 2 * number]:
            (tree / name).write_text("x = 1\n" * 100)
            os.utime(tree / name, (number * 1e6, number * 1e6))
        assert lambda_zip._compile(tree, VERSION)
        out = tmp_path / f"{number}.zip"
        lambda_zip._zip(tree, sorted(lambda_zip._files(tree)), out)
        digests.append(out.read_bytes())
    assert digests[0] == digests[1]
