"""Completion scripts: generated for every shell, and bash's completes in bash."""

import shutil
import subprocess
from pathlib import Path

import pytest

from seawall.cli.main import build_parser, main


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("seawall se", {"serve", "sessions"}),
        ("seawall sessions ", {"list", "show", "export", "delete", "erase", "migrate"}),
        ("seawall sessions list --t", {"--tenant"}),
        ("seawall --log-level debug plan --ar", {"--arch"}),
        ("seawall plan --arch ", {"arm64", "x86_64"}),
        ("seawall plan --arch x", {"x86_64"}),
        ("seawall ship lambda --auth=A", {"AWS_IAM"}),
        ("seawall completion ", {"bash", "zsh", "fish"}),
        ("seawall surge http://x --cust", set()),  # hidden
        ("seawall serve ", set()),  # bash completes file names
        ("seawall plan --workload ", set()),
    ],
)
def test_bash_completes(
    line: str, expected: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "completion.bash").write_text(script("bash", capsys))
    words = line.replace("=", " = ").split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    program = (
        f"source {tmp_path}/completion.bash\n"
        f"COMP_WORDS=({quoted}) COMP_CWORD={len(words) - 1}\n"
        "_seawall\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", program], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    assert set(done.stdout.split()) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_have_every_command_and_parse(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = script(shell, capsys)
    for command in build_parser([]).syntax():
        assert command.path in text
        for option in command.options:
            assert all(name.lstrip("-") in text for name in option.names)
    if shutil.which(shell):  # a shell that is installed checks the syntax
        path = tmp_path / "script"
        path.write_text(text)
        subprocess.run([shell, "-n", str(path)], check=True)
