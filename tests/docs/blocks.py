"""The code blocks of a page, and their execution.

A block of `bash` is run, one after the other in one shell. A block of `json` or `text` that comes
next is what it printed: for JSON the same shape and the same words, for text the same lines, as
far as they are shown. Numbers and ids may differ; `…` stands for what is left out. A block of
`toml` or `python` whose first line is a comment with a file's name is that file. Other `toml`
must be a configuration (faults.toml: a fault script; plan.toml: a question to the planner), other
`python` is run, and so is `javascript` where its packages are installed. `html` embeds the
widget, with attributes that it reads.
"""

import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from msgspec import Struct

from seawall.config import parse_settings
from seawall.lab.sim_model.faults import load_faults
from seawall.plan.inputs.question_file import read_question
from seawall.widget import module_text
from tests.fork_server import run, shell_command
from tests.parts import ui_clients
from tests.servers import ROOT, running

ADDRESS = "http://127.0.0.1:8080"
MODEL_ADDRESS = "http://127.0.0.1:8099"
_SERVING = ("seawall serve", "seawall sim-model", "seawall lab lambda")
_PROGRAMS = ("python", "javascript")
# The plug-ins that are installed here, and that no page is about, take most of pytest's start.
_PYTEST = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
_SECONDS = 200.0  # of a block; the lab measures, and the machine may be busy
# Files that are no configuration, and what reads them.
_READ_BY: dict[str, Callable[[Path], object]] = {
    "faults.toml": load_faults,
    "plan.toml": read_question,
}
_PROLOGUE = """
set -o pipefail -o errtrace
shopt -s expand_aliases
trap 'FAILED=1' ERR
curl() { command curl --max-time 20 $STRICT "$@"; }
"""


class Block(Struct, frozen=True):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def file(self) -> str:
        """The file that it is, or ""."""
        named = re.match(r"# ([\w.-]+\.(?:toml|py))\n", self.text)
        return named[1] if named else ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [
        Block(path.name, text[: found.start()].count("\n") + 1, found[1], found[2])
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


class Shell:
    """One bash that is given a piece of script at a time."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        script, self._script = os.pipe()
        self._process = subprocess.Popen(
            ["bash", f"/dev/fd/{script}"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[script],
        )
        os.close(script)
        os.write(self._script, _PROLOGUE.encode())

    def do(self, script: str, *, strict: bool) -> str:
        """Run it; what it printed. strict: an HTTP error is a failure."""
        setting = "STRICT=--fail-with-body" if strict else "STRICT="
        whole = f"FAILED=0\n{setting}\n{script}\nprintf '\\036%s\\036' $FAILED\n"
        os.write(self._script, whole.encode())
        assert self._process.stdout is not None
        printed = b""
        while not (ended := re.search(rb"\x1e(\d)\x1e\Z", printed)):
            ready, _, _ = select.select([self._process.stdout], [], [], _SECONDS)
            more = os.read(self._process.stdout.fileno(), 65_536) if ready else b""
            assert more, f"no end after: {printed.decode()}"
            printed += more
        text = printed[: ended.start()].decode()
        assert ended[1] == b"0", text
        return text

    def close(self) -> None:
        os.close(self._script)
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Reader:
    """Follows one page in a folder of its own, with a server to talk to.

    Args:
        folder: Where its commands run.
        server: Its URL.
        environment: Added to the current one.
        planner: Whether its commands start with the planner loaded.
    """

    def __init__(
        self, folder: Path, server: str, environment: dict[str, str], *, planner: bool = False
    ) -> None:
        self._folder = folder
        self._server = server
        self._model = ""
        self._stack = ExitStack()
        commands = self._stack.enter_context(TemporaryDirectory())
        shell_command(Path(commands), planner=planner)
        path = os.pathsep.join([commands, str(Path(sys.executable).parent), os.environ["PATH"]])
        self._environment = os.environ | _PYTEST | {"PATH": path, "COLUMNS": "80"} | environment
        self._planner = planner
        self._shell = Shell(folder, self._environment)
        self._stack.callback(self._shell.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def follow(self, blocks: list[Block]) -> None:
        """Do what the page says."""
        for block, after in zip(blocks, [*blocks[1:], None], strict=True):
            shown = after if after and after.language in ("json", "text") else None
            try:
                self._follow(block, shown)
            except Exception as error:
                raise AssertionError(f"docs/{block}: {error}\n{block.text}") from error

    def _follow(self, block: Block, shown: Block | None) -> None:
        text = block.text.replace(ADDRESS, self._server)
        printed = None
        if block.file:
            (self._folder / block.file).write_text(self._with_addresses(text))
        if block.file in _READ_BY:
            _READ_BY[block.file](self._folder / block.file)
        elif block.language == "bash" and text.startswith(_SERVING):
            for line in text.splitlines():
                self._serve(line)
        elif block.language == "bash":
            failing = shown is not None and re.search('"(status|error)": ', shown.text)
            printed = self._shell.do(self._with_addresses(text), strict=not failing)
        elif block.language in _PROGRAMS and not block.file:
            printed = self._program(block.language, text)
        elif block.language in _CHECKS:
            _CHECKS[block.language](text)
        else:
            assert block.file or block.language == "text", f"unknown language {block.language!r}"
        if printed is not None and shown is not None:
            compare = same_json if shown.language == "json" else same_lines
            compare(shown.text, printed)

    def _with_addresses(self, text: str) -> str:
        return text.replace(MODEL_ADDRESS, self._model or MODEL_ADDRESS)

    def _serve(self, line: str) -> None:
        _, command, *arguments = line.split()
        if command == "sim-model":
            arguments += ["--first-token", "0.01", "--duration", "0.1"]
        else:
            arguments.append("--json")
        started = self._stack.enter_context(
            running(command, *arguments, "--port", "0", folder=self._folder)
        )
        if command == "sim-model":
            self._model = started.url.removesuffix("/v1")
            for each in self._folder.glob("*.toml"):
                each.write_text(self._with_addresses(each.read_text()))
        else:
            self._server = started.url

    def _program(self, language: str, text: str) -> str | None:
        """What it printed; None where its packages are not installed."""
        if language == "javascript":
            return None if ui_clients.missing() else ui_clients.run_text(text)
        environment = self._environment | {"PYTHONPATH": f"{self._folder}{os.pathsep}{ROOT}"}
        done = run(["-c", text], environment, self._folder, seconds=_SECONDS, planner=self._planner)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def _check_embedding(text: str) -> None:
    """Scripts and elements of the widget have the attributes that it reads, and no others."""
    source = module_text("start") + module_text("element")
    read = set(re.findall(r'"([a-z-]+)"', source))
    seen: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.append(tag)
            names = {name.removeprefix("data-") for name, _ in attrs}
            names -= {"src", "integrity", "crossorigin"} if tag == "script" else set()
            assert tag == "style" or names <= read, f"<{tag}> has {sorted(names - read)}"

    Tags().feed(text)
    assert seen, "it is no HTML"


_CHECKS: dict[str, Callable[[str], object]] = {
    "toml": parse_settings,
    "json": json.loads,
    "html": _check_embedding,
}


def same_json(shown: str, printed: str) -> None:
    """The same shape and the same words."""
    lines = [line for line in printed.splitlines() if line.startswith(("{", "["))]
    assert lines, f"no JSON in: {printed}"
    _same(json.loads(shown), json.loads(lines[-1]), "$")


def _same(shown: Any, printed: Any, where: str) -> None:
    if isinstance(shown, dict) and isinstance(printed, dict):
        assert shown.keys() == printed.keys(), f"{where}: {sorted(printed)}"
        for key, value in shown.items():
            _same(value, printed[key], f"{where}.{key}")
    elif isinstance(shown, list) and isinstance(printed, list):
        assert len(shown) <= len(printed), f"{where}: {len(printed)}"
        for index, value in enumerate(shown):
            _same(value, printed[index], f"{where}[{index}]")
    elif isinstance(shown, str) and isinstance(printed, str):
        assert _matches(shown, printed), f"{where}: {printed}"
    elif isinstance(shown, bool) or shown is None:
        assert shown is printed, f"{where}: {printed}"
    else:
        assert isinstance(shown, int | float), where
        assert isinstance(printed, int | float), f"{where}: {printed}"


def same_lines(shown: str, printed: str) -> None:
    """Every line that is shown was printed, in this order."""
    lines = iter(printed.splitlines())
    for wanted in shown.splitlines():
        if wanted.strip() not in ("", "…"):
            assert any(_matches(wanted, line) for line in lines), f"not there: {wanted}\n{printed}"


def _matches(shown: str, printed: str) -> bool:
    pattern = ".*".join(map(re.escape, _neutral(shown).split("…")))
    return re.fullmatch(pattern, _neutral(printed)) is not None


def _neutral(text: str) -> str:
    """Without what differs from run to run: ids, numbers, and the width of columns."""
    text = " ".join(text.split())
    return re.sub(r"\d+(\.\d+)?", "0", re.sub(r"(?<![a-z0-9])[0-9a-f]{12,}", "0", text))
