"""`seawall chat` at a terminal: Ctrl-C cancels a turn or clears a line, Ctrl-D exits."""

import os
import pty
import re
import select
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.cli.test_init import SEAWALL, seawall
from tests.servers import running_model

SECONDS = 30.0
ASKING = Path(__file__).parents[1] / "tools" / "mcp" / "old_asking_server.py"


_ECHO_SECONDS = 0.2  # from the echo of a text until the process waits again


class Terminal:
    """A command whose standard streams are a terminal, and whose terminal sends Ctrl-C."""

    def __init__(self, *words: str, folder: Path) -> None:
        self.written = ""
        self.pid, self._file = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(SEAWALL[0], [*SEAWALL, *words], os.environ | {"TERM": "dumb"})

    def type(self, text: str) -> None:
        os.write(self._file, text.encode())

    def wait_for(self, text: str) -> None:
        """Read until a text has been written after what was waited for before."""
        ends = time.monotonic() + SECONDS
        while text not in self.written:
            assert select.select([self._file], [], [], ends - time.monotonic())[0], self.written
            self.written += os.read(self._file, 65_536).decode()
        self.written = self.written.partition(text)[2]

    def interrupt_typing(self, text: str) -> None:
        """Type a part of a line, then Ctrl-C.

        A terminal shows a prompt before the process waits for input, and Python misses a signal in
        between; what is shown of the text says that it waits.
        """
        self.type(text)
        self.wait_for(text)
        time.sleep(_ECHO_SECONDS)
        self.type("\x03")

    def status(self) -> int:
        """Read to the end; return the exit status."""
        ends = time.monotonic() + SECONDS
        try:
            while True:
                left = max(0.0, ends - time.monotonic())
                if not select.select([self._file], [], [], left)[0]:
                    os.kill(self.pid, signal.SIGKILL)
                    raise AssertionError(f"it does not end: {self.written}")
                piece = os.read(self._file, 65_536)
                if not piece:
                    break
                self.written += piece.decode()
        except OSError:  # the other end is closed
            pass
        os.close(self._file)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    assert seawall("init", folder=folder).returncode == 0
    return folder


def test_an_interrupt_cancels_the_turn_and_not_the_conversation(project: Path) -> None:
    chat = Terminal("chat", "--simulated", folder=project)
    chat.wait_for("> ")
    chat.type("Oslo?\n")
    chat.wait_for("agent assistant")  # the model is being asked
    chat.type("\x03")
    chat.wait_for("(cancelled)")
    chat.wait_for("> ")
    chat.interrupt_typing("a line that is not sent")
    chat.wait_for("(Ctrl-D exits)")
    chat.wait_for("> ")
    chat.type("Bergen?\n")
    chat.wait_for("Our shop in Bergen is open from 9 to 17.")
    chat.wait_for("> ")
    chat.type("\x04")
    assert chat.status() == 0
    assert "Traceback" not in chat.written


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("Hello there",), "to send a message: seawall chat -m MESSAGE"),
        (
            ("--agent", "asistant"),
            """--agent: there is no agent 'asistant'; did you mean "assist""",
        ),
    ],
)
def test_a_mistake_has_a_way_out(words: tuple[str, ...], expected: str, project: Path) -> None:
    done = seawall("chat", "--simulated", *words, folder=project)
    assert (done.returncode, expected in done.stderr) == (2, True), done.stderr


def test_without_a_project_it_names_the_command_that_creates_one(tmp_path: Path) -> None:
    for command in ("chat", "doctor", "serve"):
        done = seawall(command, folder=tmp_path)
        assert done.returncode == 2
        assert "seawall.toml: cannot be read: " in done.stderr
        assert "create a project with: seawall init" in done.stderr


def test_an_interrupt_at_a_confirmation_deletes_nothing(project: Path) -> None:
    assert seawall("chat", "--simulated", "-m", "Oslo?", folder=project).returncode == 0
    owner = ("--tenant", "local", "--subject", "terminal")
    erase = Terminal("sessions", "erase", *owner, folder=project)
    erase.wait_for("[y/N] ")
    erase.interrupt_typing("n")
    assert erase.status() == 130
    assert "Nothing was deleted." in erase.written
    assert "Traceback" not in erase.written
    assert "ses_" in seawall("sessions", "list", *owner, folder=project).stdout


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project whose tool changes something; the configuration lets the user approve it."""
    assert seawall("init", folder=tmp_path).returncode == 0
    (tmp_path / "tools.py").write_text(
        "from pathlib import Path\n"
        "from seawall import Toolset, tool\n\n"
        "def close_shop(city: str) -> str:\n"
        '    """Close a shop."""\n'
        '    Path("closed").open("a").write(city)\n'
        '    return f"{city} is closed"\n\n'
        "def open_tools() -> Toolset:\n"
        "    return Toolset((tool(close_shop, mutating=True),))\n"
    )
    configuration = (tmp_path / "seawall.toml").read_text().replace("opening_hours", "close_shop")
    configuration += '\n[effects.tools.close_shop]\napprove = "always"\n'
    (tmp_path / "seawall.toml").write_text(configuration)
    script = (tmp_path / "script.json").read_text().replace("opening_hours", "close_shop")
    (tmp_path / "script.json").write_text(script)
    return tmp_path


def test_a_call_that_needs_approval_is_asked_for(shop: Path) -> None:
    chat = Terminal("chat", "--simulated", folder=shop)
    chat.wait_for("> ")
    chat.type("Bergen?\n")
    chat.wait_for("waits for approval: close_shop")
    chat.wait_for("Allow it? [y/N] ")
    chat.type("n\n")
    chat.wait_for("failed: close_shop was rejected")
    chat.wait_for("Our shop in Bergen is open from 9 to 17.")
    chat.wait_for("> ")
    assert not (shop / "closed").exists()
    chat.type("Oslo?\n")
    chat.wait_for("Allow it? [y/N] ")
    chat.type("y\n")
    chat.wait_for("returned: Oslo is closed")
    chat.wait_for("Our shop in Oslo is open")
    chat.wait_for("> ")
    assert (shop / "closed").read_text() == "Oslo"
    chat.type("\x04")
    assert chat.status() == 0
    assert "Traceback" not in chat.written


def test_a_conversation_that_a_person_has(tmp_path: Path) -> None:
    assert seawall("init", folder=tmp_path).returncode == 0
    configuration = (tmp_path / "seawall.toml").read_text()
    configuration = configuration.replace('tools = ["opening_hours"]', "handover = true")
    configuration += (
        '\n[handover]\nurl = "http://127.0.0.1:9/hook"\nsecret_file = "secret"\nrole = "staff"\n'
    )
    (tmp_path / "seawall.toml").write_text(configuration)
    (tmp_path / "secret").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    script = (tmp_path / "script.json").read_text().replace("opening_hours", "hand_over_to_person")
    (tmp_path / "script.json").write_text(script.replace('"city"', '"reason"'))
    chat = Terminal("chat", "--simulated", folder=tmp_path)
    chat.wait_for("> ")
    chat.type("Bergen?\n")
    chat.wait_for("handed over to a person with the role staff")
    chat.wait_for("> ")
    chat.type("Hello?\n")
    chat.wait_for("a person has the conversation; your message is stored")
    chat.wait_for("> ")
    chat.type("\x04")
    assert chat.status() == 0
    assert "Traceback" not in chat.written


def test_what_a_server_of_tools_asks_is_asked(tmp_path: Path) -> None:
    assert seawall("init", folder=tmp_path).returncode == 0
    configuration = (tmp_path / "seawall.toml").read_text().replace("opening_hours", "find_shop")
    configuration += (
        f'\n[tools.shops]\ncommand = ["{sys.executable}", "{ASKING}"]\n'
        "trust_annotations = true\nelicitation = true\n"
    )
    configuration = configuration.replace('tools = ["find_shop"]', 'tools = ["shops.*"]')
    (tmp_path / "seawall.toml").write_text(configuration)
    script = (tmp_path / "script.json").read_text().replace("opening_hours", "find_shop")
    (tmp_path / "script.json").write_text(script)
    chat = Terminal("chat", "--simulated", folder=tmp_path)
    chat.wait_for("> ")
    chat.type("Bergen?\n")
    chat.wait_for("waits for an answer: find_shop")
    chat.wait_for("shops asks: Where to?")
    chat.wait_for("street* [Main Street 0]: ")
    chat.type("\n")
    chat.wait_for("returned: the shop of Bergen near Main Street 0 (accept)")
    chat.wait_for("> ")
    chat.type("Oslo?\n")
    chat.wait_for("street* [Main Street 0]: ")
    chat.type("/decline\n")
    chat.wait_for("near no street (decline)")
    chat.wait_for("> ")
    chat.type("\x04")
    assert chat.status() == 0
    assert "Traceback" not in chat.written


def test_it_shows_that_a_turn_waits_for_the_models_quota(tmp_path: Path) -> None:
    quota = "requests_per_minute = 8\nwindow_seconds = 0.1"  # one every 7.5 seconds
    with running_model("--first-token", "0.01", "--duration", "0.05", "--chunks", "3") as model:
        (tmp_path / "seawall.toml").write_text(
            f'[models.default]\nbase_url = "{model.url}"\nmodel = "m"\nquota = "q"\n'
            f'[quotas.q]\n{quota}\n[agents.shop]\ninstructions = "Help."\n'
        )
        done = seawall("chat", folder=tmp_path, text="hello\nhello\n")
    assert done.returncode == 0
    first, second = done.stdout.split("agent shop")[1:]
    assert "waits at position" not in first
    assert re.search(r"· waits at position 1, for about \d+(\.\d)? s\n", second)


def test_a_file_is_sent_with_the_next_message(tmp_path: Path) -> None:
    assert seawall("init", folder=tmp_path).returncode == 0
    with (tmp_path / "seawall.toml").open("a") as configuration:
        configuration.write("\n[blobs]\n")
    (tmp_path / "list.csv").write_text("a;b\n")
    (tmp_path / "none.bin").write_bytes(b"\0")
    chat = Terminal("chat", "--simulated", folder=tmp_path)
    chat.wait_for("> ")
    chat.type("/attach missing.png\n")
    chat.wait_for("There is no file missing.png.")
    chat.type("/attach none.bin\n")
    chat.type("Hello?\n")
    chat.wait_for("Is no file that is accepted")
    chat.type("/attach list.csv\n")
    chat.type("Hello?\n")
    chat.wait_for("I am a simulated model")
    chat.wait_for("> ")
    chat.type("\x04")
    assert chat.status() == 0
    shown = seawall(
        *("sessions", "export", "--tenant", "local", "--subject", "terminal"), folder=tmp_path
    )
    assert '"name":"list.csv"' in shown.stdout
    assert "YTtiCg==" in shown.stdout  # a;b
