"""The deployment package: built, unpacked, and run where nothing else is installed."""

import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging import tags

from seawall.errors import ConfigError
from seawall.lab.local_lambda.function import LocalFunction
from seawall.lab.local_lambda.settings import FunctionSettings
from seawall.ship import lambda_zip
from tests.properties import sampled
from tests.servers import ROOT, running_model

BARE_PYTHON = os.path.realpath(sys.executable)  # the interpreter, not the venv
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
HERE: lambda_zip.Architecture = "x86_64" if platform.machine() == "x86_64" else "arm64"
OTHER: lambda_zip.Architecture = "arm64" if HERE == "x86_64" else "x86_64"
STORE = "examples/store/seawall.toml"
CODE = """
import cryptography, httptools, msgspec, numpy


async def handler(event, context):
    from seawall import Orchestrator
    return {"numpy": numpy.__file__, "orchestrator": Orchestrator.__name__}
"""


class Built(NamedTuple):
    path: Path
    report: dict[str, Any]

    def archive(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path)


# For this machine, twice, and for another processor and Python: architecture, version.
CASES: dict[str, tuple[lambda_zip.Architecture, str]] = {
    "first": (HERE, VERSION),
    "second": (HERE, VERSION),
    "other": (OTHER, "3.13"),
}
Build = Callable[[str], Built]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds the store example as one of the cases, once each."""
    folder = tmp_path_factory.mktemp("package")

    @cache
    def built(name: str) -> Built:
        architecture, python = CASES[name]
        code = folder / name
        shutil.copytree(
            ROOT / "examples", code / "examples", ignore=shutil.ignore_patterns("__pycache__")
        )
        (code / "own.py").write_text(CODE)
        (code / "sessions.db").write_text("not code")
        written = 1e9 + list(CASES).index(name)
        for path in code.rglob("*"):
            os.utime(path, (written, written))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "seawall", "lambda", "build", str(code), "--json"),
                *("--out", str(folder / f"{name}.zip"), "--architecture", architecture),
                *("--python", python),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        return Built(folder / f"{name}.zip", json.loads(done.stdout))

    return built


def test_contents_of_the_package(build: Build) -> None:
    built = build("first")
    report = built.report
    assert report["compiled"] is True
    assert report["unpacked_bytes"] < lambda_zip.UNPACKED_LIMIT
    with built.archive() as archive:
        entries = archive.infolist()
        names = [each.filename for each in entries]
        assert report["files"] == len(names)
        assert report["unpacked_bytes"] == sum(each.file_size for each in entries)
        assert report["packed_bytes"] == built.path.stat().st_size
        assert [Path(each) for each in names] == sorted(map(Path, names))
        assert {each.date_time for each in entries} == {(1980, 1, 1, 0, 0, 0)}
        assert {"own.py", STORE, f"{STORE}.parsed.json"} <= set(names)
        assert {"own.py", STORE} <= set(report["own"])
        sizes = {each.filename: each.file_size for each in entries}
        assert report["own"] == {name: sizes[name] for name in report["own"]}
        listed = sum(report["own"].values()) + sum(report["packages"].values())
        assert listed == report["unpacked_bytes"]
        assert {"numpy", "seawall", "msgspec"} <= set(report["packages"])
        assert not [each for each in names if each.endswith((".db", ".pyi")) or "/tests/" in each]
        assert not [each for each in names if "api_reference" in each]
        assert not [each for each in names if each.startswith("seawall/console/assets")]
        bootstrap = next(each for each in entries if each.filename == "bootstrap")
        assert bootstrap.external_attr >> 16 & 0o111


@pytest.mark.long
def test_the_same_input_makes_the_same_file(build: Build) -> None:
    assert build("first").path.read_bytes() == build("second").path.read_bytes()


@pytest.mark.parametrize("name", sampled(("first", "other"), 2))
def test_its_wheels_fit(build: Build, name: str) -> None:
    architecture, python = CASES[name]
    machine = {"arm64": "aarch64", "x86_64": "x86_64"}[architecture]
    supported = set(
        tags.cpython_tags(tuple(map(int, python.split("."))), platforms=_glibc(machine))
    )
    supported |= set(tags.compatible_tags(tuple(map(int, python.split("."))), "cp", ["any"]))
    built = build(name)
    with built.archive() as archive:
        wheels = [each for each in archive.namelist() if each.endswith(".dist-info/WHEEL")]
        assert len(wheels) >= 5
        for each in wheels:
            lines = archive.read(each).decode().splitlines()
            said = [line.removeprefix("Tag: ") for line in lines if line.startswith("Tag: ")]
            assert {tag for text in said for tag in tags.parse_tag(text)} & supported, each
        compiled = [each for each in archive.namelist() if each.endswith(".so")]
        assert len(compiled) >= 10
        for each in compiled:
            with archive.open(each) as file:
                head = file.read(20)
            assert head[:4] == b"\x7fELF"
            assert int.from_bytes(head[18:20], "little") == {"aarch64": 183, "x86_64": 62}[machine]
        tag = f".cpython-{python.replace('.', '')}.pyc"
        bytecode = [each for each in archive.namelist() if each.endswith(".pyc")]
        assert all(each.endswith(tag) for each in bytecode)
        assert bool(bytecode) is built.report["compiled"]
        assert (f"modules{tag.removesuffix('.pyc')}.archive" in archive.namelist()) is bool(
            bytecode
        )


def _glibc(machine: str) -> list[str]:
    """What Amazon Linux 2023, with glibc 2.34, runs (PEP 600)."""
    return [f"manylinux_2_{minor}_{machine}" for minor in range(34, 4, -1)] + [
        f"manylinux2014_{machine}"
    ]


def settings_of(folder: Path, handler: str, **environment: str) -> FunctionSettings:
    return FunctionSettings(
        command=(str(folder / "bootstrap"),),
        handler=handler,
        folder=str(folder),
        environment={
            "SEAWALL_PYTHON": BARE_PYTHON,
            "PYTHONNOUSERSITE": "1",
            "PYTHONPATH": "",
            **environment,
        },
    )


@pytest.fixture(scope="module")
def unpacked(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    with build("first").archive() as archive:
        archive.extractall(folder)
    (folder / "bootstrap").chmod(0o755)  # extractall does not set modes
    return folder


async def test_it_runs_with_nothing_else_installed(unpacked: Path) -> None:
    lines: list[str] = []
    settings = settings_of(unpacked, "own.handler")
    async with LocalFunction(settings, log=lines.append) as function:
        report = json.loads(await function.invoke(b"{}").whole())
    assert report["numpy"].startswith(str(unpacked)), lines
    assert report["orchestrator"] == "Orchestrator"


async def test_the_store_example_answers_from_its_package(unpacked: Path, tmp_path: Path) -> None:
    variables = {
        "SESSIONS__PATH": str(tmp_path / "sessions.db"),
        "TOOLS__STORE__DATABASE": str(tmp_path / "store.db"),
        "ROUTING__CLASSIFIER_CACHE": str(tmp_path / "classifier.npz"),
    }
    with running_model("--first-token", "0", "--duration", "0.1") as model:
        variables["MODELS__DEFAULT__BASE_URL"] = model.url
        environment = {f"SEAWALL_{name}": value for name, value in variables.items()}
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"  # names our version
        settings = settings_of(unpacked, STORE, SEAWALL_LAMBDA_DIRECT="true", **environment)
        lines: list[str] = []
        turn = {"text": "Where is my order?", "principal": {"tenant": "t", "subject": "s"}}
        async with LocalFunction(settings, log=lines.append) as function:
            report = json.loads(await function.invoke(json.dumps(turn).encode()).whole())
    assert (report["intent"], report["version"], bool(report["text"])) == (
        "order_status",
        1,
        True,
    ), lines


def test_binaries_for_another_processor_are_rejected(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "mine.so").write_bytes(b"\x7fELF\2\1\1" + bytes(11) + (183).to_bytes(2, "little"))
    lambda_zip._check_machine(tree, "arm64")
    with pytest.raises(ConfigError, match=r"mine\.so is not compiled for x86_64"):
        lambda_zip._check_machine(tree, "x86_64")


def test_only_an_interpreter_of_the_version_compiles(tmp_path: Path) -> None:
    other = "3.12" if VERSION == "3.13" else "3.13"
    with pytest.raises(ConfigError, match="is not CPython"):
        lambda_zip._interpreter(other, sys.executable)
    assert lambda_zip._interpreter(VERSION, "") == sys.executable
    shim = tmp_path / "python"  # such as version managers leave, of what is not installed
    shim.write_text("#!/bin/sh\necho not installed >&2; exit 127\n")
    shim.chmod(0o755)
    with pytest.raises(ConfigError, match="not installed"):
        lambda_zip._interpreter(other, str(shim))


def test_the_same_tree_makes_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for number in range(2):
        if number:  # the interpreter's own variables change nothing
            monkeypatch.setenv("PYTHONOPTIMIZE", "2")
            monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "elsewhere"))
        tree = tmp_path / f"tree-{number}"
        (tree / "package").mkdir(parents=True)
        for name in ("b.py", "a.py", "package/c.py")[:: 1 - 2 * number]:
            (tree / name).write_text("import re\n" + "x = re.compile('[ab](?P<x>y)')\n" * 100)
            os.utime(tree / name, (number * 1e6, number * 1e6))
        assert lambda_zip._compile(
            tree, ["b.py", "a.py"][:: 1 - 2 * number], sys.executable, VERSION
        )
        out = tmp_path / f"{number}.zip"
        lambda_zip._zip(tree, sorted(lambda_zip._files(tree)), out)
        digests.append(out.read_bytes())
    assert digests[0] == digests[1]


def test_an_archive_that_makes_the_package_too_large_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code.py").write_bytes(bytes(80))
    (tmp_path / "modules.archive").write_bytes(bytes(30))
    both = [tmp_path / "code.py", tmp_path / "modules.archive"]
    for limit, files in ((110, both), (109, both[:1]), (80, both[:1])):
        monkeypatch.setattr(lambda_zip, "UNPACKED_LIMIT", limit)
        assert lambda_zip._fitting(tmp_path, "modules.archive") == files
    monkeypatch.setattr(lambda_zip, "UNPACKED_LIMIT", 79)
    with pytest.raises(ConfigError, match="leave packages out"):
        lambda_zip._fitting(tmp_path, "modules.archive")
