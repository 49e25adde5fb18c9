"""The command line itself: every command is found, and what is asked for is all that is loaded."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from seawall.cli.main import main

NAMES = (
    *("demo", "serve", "plan", "surge", "lab", "sim-model"),
    *("sessions", "budgets", "intents", "keys", "lambda", "ship"),
)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    assert left.value.code == 0
    return capsys.readouterr().out


def test_help_lists_every_command_and_each_has_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "--help")
    for name in NAMES:
        assert f"\n    {name} " in text
        own = said(capsys, "--log-level", "error", name, "--help")
        assert own.startswith(f"usage: seawall {name} ")


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "--version") == f"seawall {version('seawall')}\n"


def test_an_unknown_command_is_told_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["plam"])
    assert left.value.code == 2
    assert "'plan'" in capsys.readouterr().err


def test_a_command_does_not_load_the_others() -> None:
    """A plan needs no event loop, no TLS and no other command: they were a tenth of its time."""
    program = (
        "import sys\nfrom seawall.cli.main import main\n"
        "try:\n    main(['plan', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    loaded = set(done.stderr.split())
    assert "seawall.cli.plan" in loaded
    assert not loaded & {"asyncio", "ssl", "seawall.cli.serve", "importlib.metadata", "numpy"}
