"""Mistakes at the command line: one line that says what to do, never a traceback."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from seawall.cli.arguments import move_options_first
from seawall.cli.main import main

SURGE = ("surge", "http://127.0.0.1:1")
WRONG = {
    ("serve", "--port", "99999"): "--port: must be a whole number from 0 to 65535, not '99999'",
    ("serve", "--port", "-1"): "--port: must be a whole number from 0 to 65535, not '-1'",
    ("serve", "--port", "9" * 5_000): "--port: must be a whole number from 0 to 65535",
    ("serve", "--workers", "-1"): "--workers: must be a whole number from 0 to 1024, not '-1'",
    ("serve", "--workers", "two"): "--workers: must be a whole number",
    ("sim-model", "--port", "65536"): "--port: must be a whole number from 0 to 65535",
    ("sim-model", "--chunks", "0"): "--chunks: must be a whole number from 1 to",
    ("sim-model", "--max-concurrent", "-3"): "--max-concurrent: must be a whole number from 0",
    ("sim-model", "--first-token", "5..1"): "--first-token: the range runs backwards",
    ("demo", "--turns", "0"): "--turns: must be a whole number from 1 to 100000",
    (*SURGE, "--at-once", "0"): "--at-once: must be a whole number from 1 to 100000",
    (*SURGE, "--at-once", "1", "--speed", "0"): "--speed: must be a number more than 0",
    (*SURGE, "--at-once", "1", "--speed", "nan"): "--speed: must be a number more than 0",
    (*SURGE, "--users", "-2"): "--users: must be a whole number from 1",
    (*SURGE, "--customers", "-2"): "--customers: must be a whole number from 1",
    (*SURGE, "--rate", "1e999"): "--rate: '1e999' is not a finite number",
    (*SURGE, "--rate", "nan"): "--rate: 'nan' is not a finite number",
    (*SURGE, "--at-once", "1", "--read-back", "-1"): "--read-back: must be a whole number from 0",
    (*SURGE, "--at-once", "1", "--patience", "0"): "--patience: must be more than 0",
    (*SURGE, "--at-once", "1", "--patience", "soon"): "--patience: 'soon' is not a time",
    ("lab", "lambda", "x:y", "--memory", "1"): "--memory: must be a whole number from 128 to",
    ("lab", "lambda", "x:y", "--timeout", "0"): "--timeout: must be a number more than 0",
    ("lab", "lambda", "x:y", "--idle", "inf"): "--idle: must be a number more than 0",
    ("lab", "up", "pods=2", "--chunks", "0"): "--chunks: must be a whole number from 1",
    ("lab", "compare", "--max-turns", "0"): "--max-turns: must be a whole number from 1",
    ("lab", "calibrate", "--pods", "0"): "--pods: must be a whole number from 1",
    ("intents", "eval", "x.csv", "--held-out", "0"): "--held-out: must be a number more than 0",
    ("intents", "eval", "x.csv", "--shots", "-1"): "--shots: must be a whole number from 1",
    ("plan", "--zones", "0"): "options.zones: must be from 1 to 6",
    ("plan", "--budget", "nan"): "--budget: 'nan' is not an amount such as 500",
    ("plan", "--account-limit", "0"): "options.account_limit: must be at least 1",
    ("plan", "--errors", "nan"): "--errors: 'nan' is not from 0 to 100 per cent",
    ("plan", "--errors", "200%"): "--errors: '200%' is not from 0 to 100 per cent",
    ("plan", "--daily", "-5"): "daily: '-5' is negative",
    ("plan", "--daily", "1e-4"): "(--daily): 0.0001 requests a day; 0, or at least 0.001",
    ("plan", "--daily", "1e30"): "(--daily): 1e+30 requests a day; at most 1e+12",
    ("plan", "--spike", "0@20s"): "arrivals: no requests",
    ("plan", "--spike", "1e9@20s"): "(--spike): 1,000,000,000 requests; at most 10,000,000",
    ("plan", "--duration", "0s"): "service: requests take no time",
    ("serve", "--prot", "1"): 'unrecognized arguments: --prot; did you mean "--port"?',
    ("plan", "--dayly=3"): 'unrecognized arguments: --dayly=3; did you mean "--daily"?',
    ("serv",): 'did you mean "serve"?',
    ("lab", "dwon"): 'did you mean "down"?',
    ("keys",): "the following arguments are required: COMMAND (choose from new, token)",
    ("serve", "a.yaml"): "a.yaml: is neither a file that ends in .toml nor module:name",
    ("serve", "--log-level", "loud"): "--log-level: invalid choice: 'loud'",
    ("serve", "--log-level"): "--log-level: invalid choice: ''",
}  # fmt: skip


@pytest.mark.parametrize("words", WRONG, ids=lambda words: " ".join(words)[:50])
def test_a_wrong_option_is_named_with_its_values(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(list(words))
    except SystemExit as left:
        status = int(left.code or 0)
    out, errors = capsys.readouterr()
    assert WRONG[words] in errors
    assert (status, out) == (2, "")
    assert max(len(line) for line in errors.splitlines()) < 400


def test_global_options_may_follow_the_command() -> None:
    names = ["--log-level", "--log-format"]
    words = ["serve", "x.toml", "--log-level", "debug", "--port", "1", "--log-format=json"]
    front = ["--log-level=debug", "--log-format=json", "serve", "x.toml", "--port", "1"]
    assert move_options_first(words, names) == front
    assert move_options_first(front, names) == front
    assert move_options_first(["a", "--", "--log-level", "b"], names) == [
        "a",
        "--",
        "--log-level",
        "b",
    ]


def seawall(
    *words: str,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    shell: str = "",
) -> "subprocess.CompletedProcess[bytes]":
    """The real command; shell: what its output goes through."""
    command = [sys.executable, "-m", "seawall", *words]
    if shell:
        quoted = " ".join(f"'{each}'" for each in command)
        command = ["bash", "-c", f"set -o pipefail; {quoted} {shell}"]
    return subprocess.run(
        command,
        capture_output=True,
        timeout=60,
        check=False,
        cwd=folder,
        env=os.environ | (environment or {}),
    )


@pytest.mark.parametrize(
    ("name", "value", "output"),
    [
        (
            "SEAWALL_LOG_LEVEL",
            "inof",
            (
                "SEAWALL_LOG_LEVEL (environment): 'inof' is not one of: debug, info, warning, "
                'error; did you mean "info"?'
            ),
        ),
        (
            "SEAWALL_LOG_FORMAT",
            "xml",
            "SEAWALL_LOG_FORMAT (environment): 'xml' is not one of: text, json",
        ),
    ],
)
def test_a_wrong_log_variable_is_named(name: str, value: str, output: str, tmp_path: Path) -> None:
    done = seawall("keys", "new", "--tenant", "a", "--subject", "b",
                   folder=tmp_path, environment={name: value})  # fmt: skip
    assert done.stderr.decode() == f"seawall: {output}\n"
    assert (done.returncode, done.stdout) == (2, b"")


def test_ascii_output_is_escaped_and_json_stays_json(tmp_path: Path) -> None:
    for environment in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0",
                                                       "PYTHONCOERCECLOCALE": "0"}):  # fmt: skip
        words = ("keys", "new", "--tenant", "Zoë", "--subject", "\U0001f30a", "--json")
        done = seawall(*words, folder=tmp_path, environment={"PYTHONUTF8": "1"} | environment)
        if done.returncode:  # the arguments themselves could not be read in this locale
            assert b"Traceback" not in done.stderr
            continue
        found = json.loads(done.stdout.decode("ascii"))
        assert (found["tenant"], found["subject"]) == ("Zoë", "\U0001f30a")
    help_text = seawall("serve", "--help", folder=tmp_path,
                        environment={"PYTHONIOENCODING": "ascii"})  # fmt: skip
    assert help_text.returncode == 0


@pytest.mark.parametrize("shell", ["| true", "| head -c 1 >/dev/null", ">&-", ">/dev/full"])
def test_closed_output_is_no_traceback(shell: str, tmp_path: Path) -> None:
    done = seawall("keys", "new", "--tenant", "a", "--subject", "b", "--json",
                   folder=tmp_path, shell=shell)  # fmt: skip
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    if shell == ">/dev/full":
        assert done.stderr == b"seawall: standard output: No space left on device\n"
        assert done.returncode == 1


@pytest.mark.parametrize(
    ("package", "words", "output"),
    [
        ("uvicorn", ("serve",), "serve needs the extra 'serve': pip install 'seawall[serve]'"),
        ("numba", ("plan",), "plan needs the extra 'plan': pip install 'seawall[plan]'"),
    ],
)
def test_a_missing_extra_is_named(
    package: str, words: tuple[str, ...], output: str, tmp_path: Path
) -> None:
    """The package is hidden as a module that cannot be imported."""
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('no {package}')\n")
    done = seawall(*words, folder=tmp_path, environment={"PYTHONPATH": str(tmp_path)})
    assert done.stderr.decode() == f"seawall: {output} (no {package})\n"
    assert (done.returncode, done.stdout) == (2, b"")


def test_file_content_is_escaped_in_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "seawall.toml"
    path.write_text('["x\\u001b[2J\\u009b"]\n')
    assert main(["serve", str(path)]) == 2
    errors = capsys.readouterr().err
    assert "x\\x1b[2J\\x9b: unknown section" in errors
    assert "\x1b" not in errors


def test_an_error_has_its_prefix_once(tmp_path: Path) -> None:
    for words in (
        ("surge", "http://absent.invalid", "--at-once", "1"),
        ("lab", "up", "pods=1", "--detach", "--config", "absent.toml", "--name", "prefix-test"),
    ):
        done = seawall(*words, folder=tmp_path, environment={"XDG_STATE_HOME": str(tmp_path)})
        errors = done.stderr.decode()
        assert errors.count("seawall: ") == 1
        assert errors.count("\n") == 1
        assert done.returncode in (1, 2)
