"""`seawall chat`: a conversation with an agent on the terminal."""

import argparse
import json
import signal
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from seawall.cli.terminal import color
from seawall.errors import ConfigError, Problem, did_you_mean

if TYPE_CHECKING:
    import asyncio

    from seawall.config import Settings
    from seawall.events import ApprovalRequested, Event
    from seawall.orchestrator import Orchestrator
    from seawall.pipeline.decisions import Verdict
    from seawall.turn import Principal

__all__ = ["add_parser"]

_SCRIPT = "script.json"
_LONGEST_SHOWN = 100
_HELP = (
    "/new starts a new session, /session shows its id, /attach FILE sends a file with the next "
    "message, /quit ends (as Ctrl-D does)"
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "chat",
        help="talk to an agent on the terminal",
        description="Open the configured orchestrator in this process and talk to it. Sessions are "
        "kept in the configured store. Ctrl-C cancels the current turn, or clears the line; "
        "Ctrl-D exits.",
    )
    parser.add_argument(
        "config",
        nargs="?",
        type=Path,
        default=Path("seawall.toml"),
        metavar="CONFIG",
        help="configuration file (default: %(default)s)",
    )
    parser.add_argument("-m", "--message", help="send this message, print the answer and exit")
    parser.add_argument("--agent", help="agent to talk to (default: chosen by intents)")
    parser.add_argument("--session", help="id of a session to continue")
    parser.add_argument(
        "--tenant", default="local", help="tenant of the user (default: %(default)s)"
    )
    parser.add_argument(
        "--subject", default="terminal", help="subject of the user (default: %(default)s)"
    )
    parser.add_argument(
        "--simulated",
        action="store_true",
        help=f"use a simulated model instead of the configured ones; it follows {_SCRIPT} beside "
        "the configuration, if there is one",
    )
    parser.add_argument(
        "--json", action="store_true", help="print each event as a JSON object on a line"
    )
    parser.set_defaults(run=_run)


class _Conversation:
    """The terminal's side: one session at a time."""

    def __init__(self, arguments: argparse.Namespace, principal: "Principal") -> None:
        self._agent: str | None = arguments.agent
        self._json: bool = arguments.json
        self._principal = principal
        self.session: str | None = arguments.session
        self.waiting: list[ApprovalRequested] = []
        self._files: list[Path] = []

    def command(self, line: str) -> None:
        """Do what a line that begins with a slash says."""
        if line == "/new":
            self.session = None
        elif line == "/session":
            sys.stdout.write(f"{self.session or 'none yet'}\n")
        elif line.startswith("/attach "):
            from seawall.printable import printable  # noqa: PLC0415

            file = Path(line.removeprefix("/attach ").strip()).expanduser()
            if file.is_file():
                self._files.append(file)
            else:
                sys.stdout.write(f"There is no file {printable(str(file))}.\n")
        else:
            sys.stdout.write(f"{_HELP}\n")

    async def turn(self, app: "Orchestrator", text: str) -> bool:
        """Answer one message; whether the turn was completed. It may wait for approvals."""
        from seawall.printable import printable  # noqa: PLC0415
        from seawall.requests import new_request  # noqa: PLC0415

        request = new_request(text, session=self.session, agent=self._agent)
        files, self._files = self._files, []
        try:
            for each in files:
                request = await app.attach(
                    request, each.read_bytes(), principal=self._principal, name=each.name
                )
        except Problem as problem:
            sys.stdout.write(f"{printable(str(problem))}\n")
            return False
        completed = False
        self.waiting = []
        async for event in app.run(request, principal=self._principal):
            completed |= self._take(event)
        return completed

    async def decide(self, app: "Orchestrator", verdict: "Verdict") -> bool:
        """Decide about the first call that waits, and continue; whether the turn was completed.

        What does not fit a form is said, and asked again.
        """
        from seawall.errors import InvalidField  # noqa: PLC0415
        from seawall.events import TurnFailed, TurnResumed  # noqa: PLC0415
        from seawall.printable import printable  # noqa: PLC0415

        call = self.waiting.pop(0)
        completed = False
        try:
            _, live = await app.engine.pipeline.decide(self._principal, call.turn, call.id, verdict)
            if live is None:
                sys.stdout.write("\nThe turn continues on a server.\n")
                return False
            self.waiting, known = [], True
            async for _, event in live.follow():
                if isinstance(event, TurnResumed) and event.attempt >= live.attempt:
                    known = False
                elif not known:
                    completed |= self._take(event)
        except InvalidField as problem:
            sys.stdout.write(printable(f"{problem.field}: {problem.detail}") + "\n")
            self.waiting.insert(0, call)
        except Problem as problem:
            self._take(TurnFailed(call.turn, problem.as_dict()))
        return completed

    def _take(self, event: "Event") -> bool:
        """Show an event; whether the turn is completed."""
        from seawall import events  # noqa: PLC0415

        if self._json:
            _write_json(event)
        else:
            _show(event)
        if isinstance(event, events.ApprovalRequested) and event.role is None:
            self.waiting.append(event)
        elif isinstance(event, events.TurnCompleted | events.TurnPaused):
            self.session = event.session
        return isinstance(event, events.TurnCompleted)


def _run(arguments: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415 - only what this command needs

    if arguments.config.suffix != ".toml" and not arguments.config.exists():
        raise ConfigError(
            f"there is no configuration file {str(arguments.config)!r}; to send a message: "
            "seawall chat -m MESSAGE"
        )
    from seawall.config import load_settings  # noqa: PLC0415
    from seawall.identity.settings import check_name  # noqa: PLC0415
    from seawall.turn import Principal  # noqa: PLC0415

    for option in ("tenant", "subject"):
        try:
            check_name(getattr(arguments, option))
        except ValueError as error:
            raise ConfigError(f"--{option}: {error}") from error
    settings = load_settings(arguments.config)
    if arguments.agent and arguments.agent not in settings.agents:
        meant = did_you_mean(arguments.agent, settings.agents)
        raise ConfigError(f"--agent: there is no agent {arguments.agent!r}{meant}")
    conversation = _Conversation(arguments, Principal(arguments.tenant, arguments.subject))
    # One loop that runs while there is something to do: reading a line blocks this thread, and
    # Ctrl-C reaches the line or the turn, whichever it is.
    with asyncio.Runner() as runner:
        opened = _opened(settings, arguments)
        try:
            app = runner.run(opened.__aenter__())
        except ConfigError as error:
            if str(error).endswith("is not set"):  # the variable of a model's key
                raise ConfigError(f"{error}; without a key: seawall chat --simulated") from error
            raise
        try:
            return _talk(runner, app, conversation, arguments)
        finally:
            runner.run(opened.__aexit__(None, None, None))


def _talk(
    runner: "asyncio.Runner",
    app: "Orchestrator",
    conversation: _Conversation,
    arguments: argparse.Namespace,
) -> int:
    if arguments.message is not None:
        return 0 if runner.run(conversation.turn(app, arguments.message)) else 1
    interactive = sys.stdin.isatty()
    if interactive and not arguments.json:
        sys.stderr.write(f"{_HELP}\n\n")
    completed = True
    for line in _lines(interactive):
        if line == "/quit":
            break
        if line.startswith("/"):
            conversation.command(line)
        elif line:
            try:
                answered = runner.run(conversation.turn(app, line))
                while interactive and conversation.waiting and not arguments.json:
                    verdict = _verdict(conversation.waiting[0])
                    answered = runner.run(conversation.decide(app, verdict))
                completed &= answered
            except KeyboardInterrupt:
                if not interactive:
                    raise
                sys.stdout.write("\n(cancelled)\n")
    return 0 if completed or interactive else 1


def _verdict(wait: "ApprovalRequested") -> "Verdict":
    """Ask whether a call may run, where anything but yes is no; or what its server asks."""
    from seawall.pipeline.decisions import Verdict  # noqa: PLC0415

    if wait.question is not None:
        from seawall.cli.questions import ask_question  # noqa: PLC0415

        return ask_question(wait.question)
    try:
        approved = input("Allow it? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        sys.stdout.write("\n")
        approved = False
    return Verdict(decision="approve" if approved else "reject")


def _lines(interactive: bool) -> Iterator[str]:
    """What is typed, or piped in, line by line."""
    if interactive:
        with suppress(ImportError):
            import readline  # noqa: F401, PLC0415 - editing and history for `input`
    while True:
        try:
            yield input("> " if interactive else "").strip()
        except EOFError:
            if interactive:
                sys.stdout.write("\n")
            return
        except KeyboardInterrupt:
            if not interactive:
                raise
            sys.stdout.write("\n(Ctrl-D exits)\n")


@asynccontextmanager
async def _opened(
    settings: "Settings", arguments: argparse.Namespace
) -> AsyncGenerator["Orchestrator", None]:
    from contextlib import AsyncExitStack  # noqa: PLC0415

    from seawall.orchestrator import Orchestrator  # noqa: PLC0415

    async with AsyncExitStack() as stack:
        if arguments.simulated:
            from msgspec import structs  # noqa: PLC0415

            from seawall.lab.processes import parent_death_signal, run_service  # noqa: PLC0415
            from seawall.settings import ModelSettings  # noqa: PLC0415

            script = arguments.config.parent / _SCRIPT
            words = ["--script", str(script)] if script.is_file() else []
            quick = ["--first-token", "0.2", "--duration", "0.6"]
            model = await stack.enter_async_context(
                run_service(
                    *("sim-model", "--port", "0", *quick, *words),
                    # Ctrl-C cancels a turn, and must not end the model.
                    before=parent_death_signal(signal.SIGTERM, own_group=True),
                )
            )
            simulated = ModelSettings(base_url=model.url, model="simulated")
            settings = structs.replace(settings, models=dict.fromkeys(settings.models, simulated))
        app = Orchestrator(settings)
        # Nothing runs while a line is typed, so nothing may have to run between turns.
        await app.open(cold_start=True)
        stack.push_async_callback(app.close)
        yield app


def _write_json(event: "Event") -> None:
    import msgspec  # noqa: PLC0415

    sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
    sys.stdout.flush()


def _show(event: "Event") -> None:
    """An event for a reader: the text as it comes, all else as notes."""
    from seawall import events  # noqa: PLC0415
    from seawall.printable import printable  # noqa: PLC0415

    if note := _note_of(event):
        _note(note)
    match event:
        case events.TextDelta():
            sys.stdout.write(printable(event.text, keep="\n\t"))
        case events.TurnCompleted(finish_reason="person"):
            sys.stdout.write("\n")
            _note("a person has the conversation; your message is stored")
        case events.TurnPaused() | events.TurnCompleted():
            sys.stdout.write("\n")
        case events.TurnFailed():
            detail = event.problem.get("detail") or json.dumps(event.problem)
            failed = f"The turn failed ({event.problem.get('code')}): {detail}"
            sys.stdout.write(f"\n{printable(failed)}\n")
    sys.stdout.flush()


def _note_of(event: "Event") -> str:
    """What a note says of an event; empty for no note."""
    from seawall import events  # noqa: PLC0415
    from seawall.turn import cited_title  # noqa: PLC0415

    note = ""
    match event:
        case events.TurnQueued():
            note = f"waits at position {event.position}, for about {event.seconds:g} s"
        case events.IntentDetected() if event.intent:
            note = f"intent {event.intent} ({event.confidence:.0%}, by {event.by})"
        case events.AgentSelected():
            note = f"agent {event.agent} ({event.reason})"
        case events.ToolCalled():
            note = f"tool {event.name} {_short(event.arguments)}"
        case events.ToolReturned():
            note = f"{'failed' if event.failed else 'returned'}: {_short(event.content)}"
            if event.sources:
                note += f" (from {'; '.join(map(cited_title, event.sources))})"
        case events.ApprovalRequested():
            note = _requested(event)
    return note


def _requested(event: "ApprovalRequested") -> str:
    arguments = _short(event.arguments)
    if event.kind == "person":
        return f"handed over to a person with the role {event.role}: {arguments}"
    if event.kind == "client":
        return f"waits for the result of its client: {event.name} {arguments}"
    if event.question is not None:
        return f"waits for an answer: {event.name} {arguments}"
    by = f" by {event.role}" if event.role else ""
    return f"waits for approval{by}: {event.name} {arguments}"


def _note(text: str) -> None:
    from seawall.printable import printable  # noqa: PLC0415

    sys.stdout.write(color(f"  · {printable(text)}", "dim") + "\n")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]} …"
