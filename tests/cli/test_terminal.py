"""Colour and progress: on a terminal only, and never with NO_COLOR."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from seawall.cli.terminal import ProgressLine, color, progress_bar


def on_a_terminal(program: str, **environment: str) -> str:
    """Run a program whose output and errors are a terminal; return what it wrote."""
    near, far = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    done = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=far,
        stderr=far,
        env=kept | {"TERM": "xterm"} | environment,
    )
    os.close(far)
    written = b""
    try:
        while piece := os.read(near, 65_536):
            written += piece
    except OSError:  # the other end is closed
        pass
    os.close(near)
    assert done.wait(30) == 0
    return written.decode()


PROGRAM = "from seawall.cli.terminal import color; print(color('text', 'red'))"


def test_color_on_a_terminal_only() -> None:
    assert on_a_terminal(PROGRAM) == "\x1b[31mtext\x1b[0m\r\n"
    assert on_a_terminal(PROGRAM, NO_COLOR="1") == "text\r\n"
    assert on_a_terminal(PROGRAM, TERM="dumb") == "text\r\n"
    assert color("text", "red") == "text"  # captured, so no terminal


def test_errors_are_marked_on_a_terminal(tmp_path: Path) -> None:
    program = f"from seawall.cli.main import main; main(['serve', '{tmp_path}/none.toml'])"
    assert on_a_terminal(program).startswith("\x1b[31mseawall:\x1b[0m ")


def test_progress_without_a_terminal_is_a_line_every_two_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    line = ProgressLine()
    for now in (100.0, 101.0, 102.0, 103.9):
        line.show(f"at {now}")
    line.end("done")
    assert capsys.readouterr().err == "at 100.0\nat 102.0\ndone\n"
    silent = ProgressLine(only_terminal=True)
    silent.show("at once")
    silent.end("done")
    assert capsys.readouterr().err == ""


def test_a_bar_fills_up() -> None:
    assert [len(progress_bar(done, 7)) for done in range(9)] == [30] * 9
    assert len(set(progress_bar(7, 7))) == 1
    assert progress_bar(0, 7)[0] != progress_bar(1, 7)[0]
