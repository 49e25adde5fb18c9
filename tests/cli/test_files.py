"""Commands report an unusable file in one line that names it."""

from pathlib import Path

import pytest

from seawall.cli.main import main
from seawall.errors import ConfigError
from seawall.lab.sim_model.faults import load_faults
from seawall.lab.sim_model.script import load_script

SURGE = ("surge", "http://127.0.0.1:1")
OWNER = ("--tenant", "a", "--subject", "b")
OPTIONS: dict[str, tuple[str, ...]] = {
    "workload.toml": ("plan", "--workload"),
    "check.toml": ("plan", "--check"),
    "prices.toml": ("plan", "--prices"),
    "calibration.json": ("plan", "--calibration"),
    "trace.csv": ("plan", "--trace"),
    "questions.csv": (*SURGE, "--at-once", "1", "--questions"),
    "questions.json": (*SURGE, "--at-once", "1", "--questions"),
    "questions.jsonl": (*SURGE, "--at-once", "1", "--questions"),
    "tokens": (*SURGE, "--at-once", "1", "--token-file"),
    "crowd.csv": (*SURGE, "--trace"),
    "seawall.toml": ("serve",),
    "sessions.toml": ("sessions", "list", *OWNER, "--config"),
    "budgets.toml": ("budgets", "show", "--tenant", "a", "--config"),
    "messages.csv": ("intents", "eval"),
    "intents.toml": ("intents", "train"),
    "measured.json": ("lab", "compare", "--calibration"),
}
CONTENTS: dict[str, bytes | None] = {
    "missing": None,
    "not UTF-8": b"\xff\xfe\x00a\xff",
    "NUL": b"a\x00b\n",
    "deep": b'{"a": ' + b"[" * 200_000,
    "deep TOML": b"a = " + b"[" * 200_000,
    "a huge number": b"a = " + b"9" * 10_000,
    "a huge number in JSON": b'{"a": ' + b"9" * 10_000 + b"}",
    "twice": b"a = 1\na = 2\n",
    "control characters": b"\x1b[2J = 1\n",
    "a long line": b"x" * 200_000,
}


def outcome(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    try:
        status = main(list(words))
    except SystemExit as left:
        status = int(left.code or 0)
    return status, *capsys.readouterr()


@pytest.mark.parametrize("content", [*CONTENTS, "folder"])
@pytest.mark.parametrize("name", OPTIONS)
def test_an_unusable_file_is_named_in_one_line(
    name: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif (data := CONTENTS[content]) is not None:
        path.write_bytes(data)
    status, out, errors = outcome((*OPTIONS[name], str(path)), capsys)
    lines = [line for line in errors.splitlines() if line.startswith("seawall: ")]
    assert len(lines) == 1, errors[:500]
    assert str(path) in lines[0]
    assert len(lines[0]) < 2_050
    assert "\x1b" not in errors
    assert (status, out) == (2, "")


@pytest.mark.parametrize("content", [*CONTENTS, "folder"])
def test_an_unusable_script_of_the_simulated_model_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "script"
    if content == "folder":
        path.mkdir()
    elif (data := CONTENTS[content]) is not None:
        path.write_bytes(data)
    for load in (load_script, load_faults):
        with pytest.raises(ConfigError) as raised:
            load(path)
        assert str(raised.value).startswith(f"{path}: ")
