"""The command line itself: commands are found, and only what one needs is loaded."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from seawall.cli.main import build_parser, main

NAMES = (
    *("init", "chat", "doctor"),
    *("demo", "serve", "plan", "surge", "lab", "sim-model"),
    *("sessions", "budgets", "intents", "keys", "lambda", "ship", "completion"),
)


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    assert left.value.code == 0
    return capsys.readouterr().out


def test_help_lists_every_command_and_each_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "--help")
    for name in NAMES:
        assert f"\n    {name} " in text
        own = output(capsys, "--log-level", "error", name, "--help")
        assert own.startswith(f"usage: seawall {name} ")


def test_without_a_command_it_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out == output(capsys, "--help")


def test_every_option_has_help() -> None:
    for command in build_parser([]).syntax():
        for option in command.options:
            assert option.help, f"{command.path} {option.names}"
            assert not option.help.endswith("."), f"{command.path} {option.names}"
        for name, text in command.commands.items():
            assert text, f"{command.path} {name}"


def test_old_names_of_options_are_accepted_but_not_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = build_parser(["surge"])
    words = ["surge", "http://127.0.0.1:1", "--customers", "3", "--as-they-are"]
    parsed = parser.parse_args(words)
    assert (parsed.users, parsed.verbatim) == (3, True)
    shown = output(capsys, "surge", "--help")
    assert "--users" in shown
    assert "--customers" not in shown


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "--version") == f"seawall {version('seawall')}\n"


def test_an_unknown_command_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
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
